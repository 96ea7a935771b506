"""python -m sdn_ray.tune: a search over experiments, or a grid of them, on Ray Tune with Optuna."""

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
import ray
import ray.tune
from optuna.trial import FrozenTrial, TrialState
from ray.tune import FailureConfig, RunConfig, TuneConfig, Tuner
from rich.table import Table

from sdn_ray.ablation import ablation
from sdn_ray.checks import check_experiment
from sdn_ray.cluster import Display, Monitor, Reporter, start_ray, watch
from sdn_ray.command import run_command
from sdn_ray.config import (
    DEFAULT_CONFIG,
    ExperimentConfig,
    TrainingConfig,
    absolute,
    experiment_from,
    experiment_parser,
    parse,
    read_experiment,
    to_yaml,
    with_absolute_paths,
)
from sdn_ray.data.rows import CaptionedDataset
from sdn_ray.data.splits import ClassSplit, split_classes
from sdn_ray.errors import Interrupted, UserError
from sdn_ray.export import TrackedRun
from sdn_ray.files import write_text
from sdn_ray.metrics.classifier_score import score_name
from sdn_ray.metrics.evaluation import PERCEPTUAL
from sdn_ray.prepare import prepare_images, prepare_teacher, prepare_text, read_dataset
from sdn_ray.search_space import SearchSpace, read_search_space
from sdn_ray.study import (
    OBJECTIVE,
    REASON,
    SAMPLERS,
    StudyPruner,
    StudySearch,
    enqueue_grid,
    open_study,
    pictures,
    trials_left,
)
from sdn_ray.tracking import (
    Recorder,
    flatten,
    note_run,
    noted_run,
    open_experiment,
    start_run,
)
from sdn_ray.trial import StudyJob, run_trial
from sdn_ray.worker import TrainingJob

DESCRIPTION = (
    "Search learning rates, layer weights, stage lengths or any other option of an experiment, "
    "with Optuna's TPE and pruning through Ray Tune. The objective is measured on validation "
    "classes; the test classes are never looked at."
)
OBJECTIVES = ("classifier_score", PERCEPTUAL)
_SHOWN = 10  # trials in the table
_RETRIES = 2  # of a trial whose process or node dies


def main(arguments: Sequence[str]) -> int:
    """The command; returns its exit status."""
    plan, resumed = _read_arguments(arguments)
    config, space, settings = plan.config, plan.space, plan.settings
    space.check(config)
    for values in space.grid() if space.is_grid else space.corners():
        _check_trial(space.apply(config, values))
    objective, maximise = _objective(config, settings["objective"])
    uri, experiment = open_experiment(config.tracking)
    dataset = read_dataset(config.dataset)
    split = _split(config, dataset, settings["score_test"])
    start_ray()
    resources = _trial_resources(settings, config.training)
    trials = len(space.grid()) if space.is_grid else settings["trials"]
    if not resumed:
        plan.write()
    study = open_study(
        plan.folder.name,
        settings["storage"],
        maximise=maximise,
        sampler=settings["sampler"],
        seed=config.seed,
        trials=trials,
        prune=settings["prune"] and not space.is_grid,
        concurrent=settings["concurrent"],
    )
    if space.is_grid:
        enqueue_grid(study, space)
    parent = _parent_run(plan, uri, experiment)
    recorder = Recorder(parent)
    recorder.status("RUNNING")
    try:
        with Display() as display:
            job = _prepare(config, dataset, split, resources, display)
            shared = StudyJob(
                plan.folder, space, config, job, objective, parent, settings["score_test"]
            )
            _search(study, shared, trials, settings["concurrent"], resources, display)
    except (Interrupted, KeyboardInterrupt):
        recorder.status("KILLED")
        print(f"Stopped. Go on with: python -m sdn_ray.tune --resume {plan.folder}")
        raise Interrupted from None
    except BaseException:
        recorder.status("FAILED")
        raise
    _summarise(study, shared, recorder)
    if shared.score_test:
        ablation(study, shared, recorder)
    recorder.status("FINISHED")
    return 0


@dataclass(frozen=True)
class StudyPlan:
    """What a study is: its folder holds it all, for `--resume`."""

    folder: Path
    config: ExperimentConfig
    space: SearchSpace
    settings: dict[str, Any]  # objective, trials, concurrent, gpus_per_trial, storage, prune

    def write(self) -> None:
        """Keep the plan in the study's folder."""
        self.folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self.space.path, self.folder / "space.yaml")
        write_text(self.folder / "study.json", json.dumps(self.settings, indent=1))
        write_text(self.folder / "config.yaml", to_yaml(self.config))  # last: now it can go on


def _read_arguments(arguments: Sequence[str]) -> tuple[StudyPlan, bool]:
    parser = experiment_parser("python -m sdn_ray.tune", DESCRIPTION)
    add = parser.add_argument
    add("--space", type=str, help="Search space: a YAML file such as those in search_spaces/.")
    add("--trials", type=int, default=20, help="Trials in all; a grid has its own number.")
    add("--output", type=str, help="New study folder. Default: runs/tune-<time>.")
    add("--resume", type=str, help="Study folder to go on with.")
    add("--objective", type=str, help=f"{' or '.join(OBJECTIVES)}, of validation images.")
    add("--concurrent", type=int, default=1, help="Trials at a time; CPUs are shared equally.")
    add("--gpus_per_trial", type=float, help="Such as 0.5. Default: 1 where there are GPUs.")
    add("--storage", type=str, help="Optuna URL. Default: a SQLite file in the study folder.")
    add(
        "--score_test",
        type=bool,
        default=False,
        help="Of a grid (an ablation, not a search): "
        "score every trial on the test classes, and end in their table.",
    )
    add("--sampler", type=str, default="tpe", help=f"{' or '.join(SAMPLERS)}.")
    add("--prune", type=bool, default=True, help="End trials early that promise little (ASHA).")
    names = [argument.partition("=")[0] for argument in arguments]
    if not {"--config", "--resume"} & set(names):
        arguments = ["--config", str(DEFAULT_CONFIG), *arguments]
    options = parse(parser, arguments)
    if options.resume is not None:
        return _resumed(options.resume, names), True
    if options.space is None:
        raise UserError(
            "--space: found none, expected a file such as search_spaces/quickstart.yaml"
        )
    if options.sampler not in SAMPLERS:
        raise UserError(f"--sampler: found {options.sampler}, expected {' or '.join(SAMPLERS)}")
    for name, least in (("trials", 1), ("concurrent", 1)):
        if options[name] < least:
            raise UserError(f"--{name}: found {options[name]}, expected at least {least}")
    default = Path("runs") / f"tune-{datetime.now():%Y%m%d-%H%M%S}"
    folder = Path(absolute(options.output or str(default), "--output"))
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(
            f"--output: {folder} already holds files; expected a new or empty folder. To go on "
            f"with a study there, use --resume {folder}"
        )
    settings = {
        "objective": options.objective,
        "trials": options.trials,
        "concurrent": options.concurrent,
        "gpus_per_trial": options.gpus_per_trial,
        "storage": options.storage or f"sqlite:///{folder}/study.db",
        "sampler": options.sampler,
        "prune": options.prune,
        "score_test": options.score_test,
    }
    space = read_search_space(Path(absolute(options.space, "--space")))
    if options.score_test and not space.is_grid:
        raise UserError(
            "--score_test: found true for a search, which chooses on validation classes alone; "
            "expected a space of `grid`, where nothing is chosen"
        )
    config = with_absolute_paths(experiment_from(options))
    return StudyPlan(folder, config, space, settings), False


def _resumed(folder: str, names: Sequence[str]) -> StudyPlan:
    others = [name for name in names if name.startswith("--") and name != "--resume"]
    if others:
        raise UserError(
            f"--resume: found {', '.join(others)} beside it; expected no other option, since the "
            "study's own files say everything"
        )
    path = Path(absolute(folder, "--resume"))
    if not (path / "config.yaml").exists():
        raise UserError(f"--resume: {path} has no config.yaml; expected the folder of a study")
    return StudyPlan(
        path,
        read_experiment(path / "config.yaml"),
        read_search_space(path / "space.yaml"),
        json.loads((path / "study.json").read_text(encoding="utf-8")),
    )


def _check_trial(config: ExperimentConfig) -> None:
    """Refuse a trial that could not run."""
    check_experiment(config)
    if config.training.workers > 1:
        raise UserError(
            f"training.workers: found {config.training.workers}; a trial trains in its own "
            "process, expected 1"
        )


def _objective(config: ExperimentConfig, wanted: str | None) -> tuple[str, bool]:
    """The metric that trials are compared by, and whether more is better.

    Never the training loss, whose weights may be what is searched.
    """
    wanted = wanted or ("classifier_score" if config.evaluation.classifier else PERCEPTUAL)
    if wanted not in OBJECTIVES:
        raise UserError(f"--objective: found {wanted}, expected {' or '.join(OBJECTIVES)}")
    if wanted == PERCEPTUAL:
        return f"validation/{PERCEPTUAL}", False
    if not config.evaluation.classifier:
        raise UserError(
            "--objective: classifier_score needs evaluation.classifier, such as "
            "squeezenet1_1:WEIGHTS; found none"
        )
    return f"validation/{score_name(config.evaluation.classifier.partition(':')[0])}", True


def _split(config: ExperimentConfig, dataset: CaptionedDataset, score_test: bool) -> ClassSplit:
    """The classes that the trials see: in a search those for testing are not among them."""
    split = split_classes(
        dataset,
        validation_classes=config.dataset.validation_classes,
        test_classes=config.dataset.test_classes,
        seed=config.dataset.split_seed,
    )
    if not split.validation:
        raise UserError(
            "dataset.validation_classes: found 0; a search chooses on validation classes, "
            "expected some"
        )
    return split if score_test else replace(split, test=())


def _trial_resources(settings: dict[str, Any], training: TrainingConfig) -> dict[str, float]:
    """What each trial reserves: its share of the CPUs, and of the GPUs where there are any.

    Raises:
        UserError: when the cluster can never meet it.
    """
    total = ray.cluster_resources()
    cpus, gpus = int(total.get("CPU", 0)), total.get("GPU", 0)
    share = training.cpus_per_worker or cpus // settings["concurrent"]
    if not share:
        raise UserError(
            f"--concurrent: found {settings['concurrent']}, but the cluster has {cpus} CPUs; each "
            "trial needs at least one"
        )
    wanted = settings["gpus_per_trial"]
    if wanted is None:
        wanted = 1 if gpus >= settings["concurrent"] else 0
    if wanted * settings["concurrent"] > gpus:
        raise UserError(
            f"--gpus_per_trial: found {wanted} for each of {settings['concurrent']} trials at a "
            f"time, but the cluster has {gpus:g} GPUs"
        )
    return {"CPU": share, "GPU": wanted} if wanted else {"CPU": share}


def _parent_run(plan: StudyPlan, uri: str, experiment: str) -> TrackedRun:
    """The study's MLflow run, under which its trials stand."""
    earlier = noted_run(plan.folder)
    if earlier is not None:
        return earlier
    params = flatten(asdict(plan.config)) | flatten({"study": plan.settings})
    tags = {"sdn_ray.command": "tune", "sdn_ray.space": plan.space.path.name}
    tracked = start_run(uri, experiment, plan.folder.name, params, tags)
    note_run(plan.folder, tracked)
    Recorder(tracked).file(plan.folder / "space.yaml")
    return tracked


def _prepare(
    config: ExperimentConfig,
    dataset: CaptionedDataset,
    split: ClassSplit,
    resources: dict[str, float],
    display: Display,
) -> TrainingJob:
    """What all trials share: pixels, teacher and captions' embeddings, made once."""
    images = prepare_images(dataset, config.dataset, display.progress)
    monitor = Monitor.remote()
    reporter = Reporter(monitor)

    def prepare() -> TrainingJob:
        teacher = prepare_teacher(config, images, split, resources, reporter)
        captions, encoder = prepare_text(config, images, split, teacher, resources, reporter)
        return TrainingJob(config, Path(), images, captions, split, teacher, encoder, None)

    job = watch(prepare, monitor, display, checkpoints=False)
    ray.kill(monitor)
    return job


def _search(
    study: optuna.Study,
    shared: StudyJob,
    trials: int,
    concurrent: int,
    resources: dict[str, float],
    display: Display,
) -> None:
    """Run the trials that are left."""
    left = trials_left(study, trials)
    if left <= 0:
        return
    display.line(f"{trials - left} of {trials} trials done before, {left} to go")

    def on_end(trial: FrozenTrial) -> None:
        _record_end(shared, trial)
        display.line(_end_line(trial))
        display.progress("trials", trials - trials_left(study, trials), trials)

    search = StudySearch(study, shared.space, trials, on_end)
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # `verbose=0` silences the older one alone
    trainable = ray.tune.with_resources(
        ray.tune.with_parameters(run_trial, study=shared),
        {"cpu": resources["CPU"], "gpu": resources.get("GPU", 0)},
    )
    Tuner(
        trainable,
        tune_config=TuneConfig(
            search_alg=search,
            scheduler=StudyPruner(search),
            num_samples=left,
            max_concurrent_trials=concurrent,
            reuse_actors=True,
        ),
        run_config=RunConfig(
            # Tune's own records; the study and the trials' folders are what counts.
            name="ray_tune",
            storage_path=str(shared.folder),
            failure_config=FailureConfig(max_failures=_RETRIES),
            verbose=0,
        ),
    ).fit()


_STATUS = {
    TrialState.COMPLETE: "FINISHED",
    TrialState.PRUNED: "KILLED",
    TrialState.FAIL: "FAILED",
}


def _record_end(shared: StudyJob, trial: FrozenTrial) -> None:
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


def _end_line(trial: FrozenTrial) -> str:
    values = ", ".join(f"{name.rpartition('.')[2]} {_short(v)}" for name, v in trial.params.items())
    result = {
        TrialState.COMPLETE: f"{trial.value:.4g}" if trial.value is not None else "",
        TrialState.PRUNED: f"pruned after epoch {trial.last_step} of its last stage",
        TrialState.FAIL: f"failed: {trial.user_attrs.get(REASON)}",
    }[trial.state]
    return f"trial {trial.number}: {result} ({values})"


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _summarise(study: optuna.Study, shared: StudyJob, recorder: Recorder) -> None:
    """The table of the best trials, the best one as a runnable file, and the pictures."""
    complete = study.get_trials(states=(TrialState.COMPLETE,))
    display = Display()
    if not complete:
        raise UserError(f"no trial of {shared.folder} came to its end; see trials/*/error.txt")
    reverse = study.direction == optuna.study.StudyDirection.MAXIMIZE
    best = sorted(complete, key=lambda trial: trial.value or 0, reverse=reverse)
    names = [parameter.name for parameter in shared.space.parameters]
    title = f"{shared.folder.name}: {shared.objective} of {len(complete)} finished trials"
    table = Table("trial", "objective", *(name.rpartition(".")[2] for name in names), title=title)
    for trial in best[:_SHOWN]:
        cells = (_short(trial.params[name]) for name in names)
        table.add_row(str(trial.number), f"{trial.value:.4f}", *cells)
    display.console.print(table)
    path = shared.folder / "best.yaml"
    write_text(path, to_yaml(shared.trial_config(best[0].params)))
    for file in (path, *pictures(study, shared.folder)):
        recorder.file(file)
    display.line(f"best:  python -m sdn_ray.train --config {path}")
    display.line(f"study: {shared.folder}")


if __name__ == "__main__":
    raise SystemExit(run_command(main, None))
