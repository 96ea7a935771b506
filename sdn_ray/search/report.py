"""How a study ends, trial by trial and as a whole: lines, MLflow, table, pictures, best config."""

import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState
from rich.table import Column, Table

from sdn_ray.errors import UserError
from sdn_ray.files import replacing, write_text
from sdn_ray.runs.experiment import read_kept_experiment, to_yaml
from sdn_ray.runs.folder import TrackedRun, epochs_done, noted_run
from sdn_ray.runs.terminal import Display
from sdn_ray.runs.tracking import Recorder, look_lines
from sdn_ray.search.study import REASON, STATUS_TAG
from sdn_ray.search.trial import StudyJob, begin_trial_run
from sdn_ray.training.records import OBJECTIVE, record_all

_SHOWN = 5  # trials in the table
_TELLING = 10  # complete trials, from which importances begin to mean something
_ENDS = {  # in our words, and in MLflow's
    TrialState.COMPLETE: ("complete", "FINISHED"),
    TrialState.PRUNED: ("pruned", "FINISHED"),  # as the search meant it
    TrialState.FAIL: ("failed", "FAILED"),
    TrialState.RUNNING: ("stopped", "KILLED"),  # by the user: it goes on with the study
}


def record_trial(shared: StudyJob, trial: FrozenTrial, warn: Callable[[str], None]) -> None:
    """Tell MLflow how a trial ended, or that it was stopped in the middle.

    Args:
        shared: the study's part of the trial.
        trial: its state.
        warn: called with what could not be recorded.
    """
    run = shared.trial_folder(trial.number)
    if not (run / "config.yaml").exists():  # it ended before it began
        return
    tracked = noted_run(run) or _made_up_for(shared, trial, run, warn)
    if tracked is None:
        return
    recorder = Recorder(tracked, warn)
    word, status = _ENDS[trial.state]
    tags = {STATUS_TAG: word}
    if REASON in trial.user_attrs:
        tags["sdn_ray.reason"] = trial.user_attrs[REASON]
    recorder.tags(tags)
    if trial.value is not None:
        recorder.metrics({OBJECTIVE: trial.value}, epochs_done(run))
    recorder.status(status)


def _made_up_for(
    shared: StudyJob, trial: FrozenTrial, run: Path, warn: Callable[[str], None]
) -> TrackedRun | None:
    """The MLflow run of a trial that began while MLflow was away, with all its epochs."""
    config = read_kept_experiment(run / "config.yaml")
    tracked = begin_trial_run(shared, trial.number, trial.params, config, warn)
    if tracked:
        record_all(run, Recorder(tracked, warn), shared.plan.objective.name)
    return tracked


def end_line(trial: FrozenTrial) -> str:
    """How a trial ended, in a line."""
    values = ", ".join(f"{short_name(name)} {_short(v)}" for name, v in trial.params.items())
    result = {
        TrialState.COMPLETE: f"{trial.value:.4g}" if trial.value is not None else "",
        TrialState.PRUNED: f"pruned after epoch {trial.last_step} of its last stage",
        TrialState.FAIL: f"failed: {trial.user_attrs.get(REASON)}",
    }[trial.state]
    return f"trial {trial.number}: {result} ({values})"


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def summarise(study: optuna.Study, shared: StudyJob, recorder: Recorder, display: Display) -> None:
    """The table of the best trials, the best one as a runnable file, and the pictures."""
    complete = study.get_trials(states=(TrialState.COMPLETE,))
    if not complete:
        raise UserError(
            f"no trial of {shared.folder} came to its end; see trials/*/error.txt and "
            "ray_tune/*/error.txt there"
        )
    reverse = study.direction == optuna.study.StudyDirection.MAXIMIZE
    best = sorted(complete, key=lambda trial: trial.value or 0, reverse=reverse)
    known = study.get_trials(deepcopy=False, states=tuple(_ENDS))
    ends = Counter(_ENDS[trial.state][0] for trial in known)
    display.console.print(_best_trials(shared, best[:_SHOWN], ends))
    _record_study(best[0], ends, shared, recorder)
    path = shared.plan.best
    write_text(path, to_yaml(shared.trial_config(best[0].params)))
    for file in (path, *pictures(study, shared.folder, shared.plan.objective.name)):
        recorder.file(file)
    display.line(f"best:  python -m sdn_ray.train --config {path}")
    display.line(f"study: {shared.folder}")
    display.line(look_lines(shared.parent))


def _record_study(
    best: FrozenTrial, ends: Counter[str], shared: StudyJob, recorder: Recorder
) -> None:
    """What the study has come to, in its own MLflow run: values, and a description for people."""
    counts: dict[str, float] = {f"trials/{word}": count for word, count in ends.items()}
    recorder.metrics(
        counts | {f"best/{OBJECTIVE}": best.value or 0.0, "best/trial": best.number}, 0
    )
    values = "\n".join(f"- `{name}`: {_short(value)}" for name, value in best.params.items())
    summary = ", ".join(f"{count} {word}" for word, count in ends.items())
    note = (
        f"Compared by `{shared.plan.objective.name}`; trials: {summary}.\n\n"
        f"The best is trial {best.number} with {best.value:.4g}:\n{values}"
    )
    recorder.tags({"mlflow.note.content": note})


def _best_trials(shared: StudyJob, best: list[FrozenTrial], ends: Counter[str]) -> Table:
    """A column a trial: a search may have more parameters than a terminal has room for columns."""
    others = ", ".join(f"{count} {word}" for word, count in ends.items() if word != "complete")
    title = (
        f"{shared.folder.name}: {shared.plan.objective.name}, best of {ends['complete']} complete"
    )
    title += f" trials ({others})" if others else " trials"
    headers = (Column(f"trial {trial.number}", justify="right") for trial in best)
    table = Table("", *headers, title=title, title_justify="left")
    table.add_row("objective", *(f"{trial.value:.4f}" for trial in best), end_section=True)
    for parameter in shared.space.parameters:
        cells = (_short(trial.params[parameter.name]) for trial in best)
        table.add_row(short_name(parameter.name), *cells)
    return table


def short_name(option: str) -> str:
    """An option's name without what goes without saying."""
    return option.removeprefix("distillation.").replace("weight_factors", "weight")


def pictures(study: optuna.Study, folder: Path, objective: str) -> list[Path]:
    """Write the optimisation history and, from two complete trials on, what mattered.

    Args:
        study: the trials.
        folder: for `history.png` and `importances.png`.
        objective: the name of the metric that trials are compared by.

    Returns:
        The files that were written.
    """
    from optuna.visualization.matplotlib import plot_optimization_history, plot_param_importances

    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    written = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if complete:
            axes = plot_optimization_history(study, target_name=objective)
            _add_others(axes, study)
            written.append(_save(axes, folder / "history.png"))
        if len({trial.value for trial in complete}) > 1:
            axes = plot_param_importances(study, target_name=objective)
            if len(complete) < _TELLING:
                axes.set_title(
                    f"{axes.get_title()}\n{len(complete)} complete trials are too few to rely on"
                )
            written.append(_save(axes, folder / "importances.png"))
    return written


def _add_others(axes: Any, study: optuna.Study) -> None:
    """Pruned trials by their last value, and failed ones, of which there is none, as lines."""
    best = "larger" if study.direction == optuna.study.StudyDirection.MAXIMIZE else "smaller"
    axes.set_title(f"{axes.get_title()} ({best} is better)")
    pruned = study.get_trials(deepcopy=False, states=(TrialState.PRUNED,))
    known = [
        (trial.number, trial.intermediate_values[trial.last_step])
        for trial in pruned
        if trial.last_step is not None
    ]
    if known:
        axes.scatter(
            *zip(*known, strict=True), marker="x", color="gray", label="Pruned, last value"
        )
    failed = study.get_trials(deepcopy=False, states=(TrialState.FAIL,))
    for place, trial in enumerate(failed):
        label = None if place else "Failed"
        axes.axvline(trial.number, color="tab:red", linestyle=":", label=label)
    axes.legend()


def _save(axes: Any, path: Path) -> Path:
    with replacing(path) as partial:
        axes.figure.canvas.print_figure(partial, dpi=110, bbox_inches="tight")
    return path
