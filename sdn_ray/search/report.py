"""How a study ends, trial by trial and as a whole: lines, MLflow, table, pictures, best config."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState
from rich.table import Column, Table

from sdn_ray.config import to_yaml
from sdn_ray.errors import UserError
from sdn_ray.files import replacing, write_text
from sdn_ray.runs.folder import noted_run
from sdn_ray.runs.terminal import Display
from sdn_ray.runs.tracking import Recorder
from sdn_ray.search.study import OBJECTIVE, REASON
from sdn_ray.search.trial import StudyJob

_SHOWN = 5  # trials in the table
_STATUS = {
    TrialState.COMPLETE: "FINISHED",
    TrialState.PRUNED: "KILLED",
    TrialState.FAIL: "FAILED",
}


def record_end(shared: StudyJob, trial: FrozenTrial) -> None:
    """Tell MLflow how a trial ended."""
    tracked = noted_run(shared.trial_folder(trial.number))
    if tracked is None:
        return
    recorder = Recorder(tracked)
    tags = {"sdn_ray.status": trial.state.name.lower()}
    if REASON in trial.user_attrs:
        tags["sdn_ray.reason"] = trial.user_attrs[REASON]
    recorder.tags(tags)
    if trial.value is not None:
        recorder.metrics({OBJECTIVE: trial.value}, 0)
    recorder.status(_STATUS[trial.state])


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
    display.console.print(_best_trials(shared, best[:_SHOWN], len(complete)))
    path = shared.folder / "best.yaml"
    write_text(path, to_yaml(shared.trial_config(best[0].params)))
    for file in (path, *pictures(study, shared.folder)):
        recorder.file(file)
    display.line(f"best:  python -m sdn_ray.train --config {path}")
    display.line(f"study: {shared.folder}")


def _best_trials(shared: StudyJob, best: list[FrozenTrial], complete: int) -> Table:
    """A column a trial: a search may have more parameters than a terminal has room for columns."""
    title = (
        f"{shared.folder.name}: {shared.plan.objective.name}, best of {complete} finished trials"
    )
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


def pictures(study: optuna.Study, folder: Path) -> list[Path]:
    """Write the optimisation history and, from two finished trials on, what mattered."""
    from optuna.visualization.matplotlib import plot_optimization_history, plot_param_importances

    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    plots: dict[str, Callable[[optuna.Study], Any]] = {}
    if complete:
        plots["history.png"] = plot_optimization_history
    if len({trial.value for trial in complete}) > 1:
        plots["importances.png"] = plot_param_importances
    written = []
    for name, plot in plots.items():
        with replacing(folder / name) as partial, warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            canvas = plot(study).figure.canvas
            canvas.print_figure(partial, dpi=110, bbox_inches="tight")
        written.append(folder / name)
    return written
