"""python -m sdn_ray.tune: a search over experiments, or a grid of them, on Ray Tune with Optuna."""

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import optuna
import ray
import ray.tune
from optuna.trial import FrozenTrial
from ray.tune import FailureConfig, RunConfig, TuneConfig, Tuner

from sdn_ray.ablation import ablation
from sdn_ray.checks import check_experiment, check_sizes
from sdn_ray.cluster import (
    Display,
    Monitor,
    Reporter,
    start_ray,
    watch,
    worker_resources,
)
from sdn_ray.command import check_at_least, new_folder, refuse_others, run_command
from sdn_ray.config import (
    ExperimentConfig,
    absolute,
    experiment_from,
    experiment_parser,
    read_experiment,
    to_yaml,
    with_absolute_paths,
)
from sdn_ray.data.rows import CaptionedDataset
from sdn_ray.data.splits import ClassSplit
from sdn_ray.errors import Interrupted, UserError
from sdn_ray.export import TrackedRun
from sdn_ray.files import write_text
from sdn_ray.job import TrainingJob
from sdn_ray.metrics.classifier_score import score_name
from sdn_ray.metrics.evaluation import PERCEPTUAL
from sdn_ray.models.classifiers import load_classifier
from sdn_ray.prepare import dataset_split, on_ray, prepare_images, read_dataset, show_left_out
from sdn_ray.prepare_text import prepare_job
from sdn_ray.runs import default_output, open_tracking, parse_with_default_config
from sdn_ray.search_space import SCHEME, SearchSpace, read_search_space
from sdn_ray.storage import RunStorage
from sdn_ray.study import (
    FINISHED,
    RETRIES,
    SAMPLERS,
    StudyPruner,
    StudySearch,
    check_study,
    enqueue_grid,
    open_study,
    trials_left,
)
from sdn_ray.study_report import end_line, record_end, summarise
from sdn_ray.tracking import (
    SQLITE,
    Recorder,
    flatten,
    note_run,
    open_experiment,
    start_run,
)
from sdn_ray.trial import StudyJob, run_trial

DESCRIPTION = (
    "Search learning rates, layer weights, stage lengths or any other option of an experiment, "
    "with Optuna's TPE and pruning through Ray Tune. The objective is measured on validation "
    "classes; the test classes are never looked at."
)
# A trial of one worker starts in the process of the one before it.
REUSE_PROCESSES = True
OBJECTIVES = ("classifier_score", PERCEPTUAL)


def main(arguments: Sequence[str]) -> int:
    """The command; returns its exit status."""
    plan, resumed = _read_arguments(arguments)
    config, space, settings = plan.config, plan.space, plan.settings
    space.check(config)
    for values in space.grid() if space.is_grid else space.probes():
        check_experiment(space.apply(config, values))
    if settings["prune"] and space.varies(SCHEME) and not space.is_grid:
        raise UserError(
            f"--prune: {space.path} varies {SCHEME}, whose last stages are not alike; expected "
            "--prune false"
        )
    if config.evaluation.classifier:
        load_classifier(config.evaluation.classifier)  # its errors belong here, not in trials
    objective, maximise = _objective(config, settings["objective"])
    if space.varies("teacher.") and not maximise:
        raise UserError(
            f"--objective: {PERCEPTUAL} is measured by the teacher, which {space.path} varies; "
            "expected classifier_score"
        )
    tracking = open_tracking(config, plan.folder)
    if isinstance(tracking, TrackedRun):  # every new trial begins a run in that store
        open_experiment(replace(config.tracking, uri=tracking.uri))
    dataset = read_dataset(config.dataset)
    split = _split(config, dataset, settings["score_test"])
    begun = (plan.folder / "trials").is_dir()
    check_study(plan.folder.name, settings["study_storage"], new=not resumed, begun=begun)
    if config.storage:
        RunStorage(config.storage, plan.folder.name).check(plan.folder, new=not resumed)
    start_ray()
    resources = worker_resources(
        config.training,
        trials=settings["concurrent"],
        gpus_per_worker=settings["gpus_per_worker"],
    )
    trials = len(space.grid()) if space.is_grid else settings["trials"]
    if not resumed:
        plan.write()
    study = open_study(
        plan.folder.name,
        settings["study_storage"],
        maximise=maximise,
        sampler=settings["sampler"],
        seed=config.seed,
        trials=trials,
        prune=settings["prune"] and not space.is_grid,
        concurrent=settings["concurrent"],
    )
    if space.is_grid:
        enqueue_grid(study, space)
    parent = _parent_run(plan, tracking)
    recorder = Recorder(parent)
    recorder.status("RUNNING")
    try:
        with Display() as display:
            job = _prepare(config, dataset, split, resources, display)
            shared = StudyJob(
                plan.folder,
                space,
                config,
                job,
                objective,
                parent,
                resources,
                settings["score_test"],
            )
            _search(study, shared, trials, settings["concurrent"], resources, display)
        if trials_left(study, trials) > 0:  # Tune ends in silence at Ctrl-C
            raise Interrupted
    except (Interrupted, KeyboardInterrupt):
        recorder.status("KILLED")
        print(f"Stopped. Go on with: python -m sdn_ray.tune --resume {plan.folder}")
        raise Interrupted from None
    except BaseException:
        recorder.status("FAILED")
        raise
    summarise(study, shared, recorder)
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
    settings: dict[str, Any]  # of the search: what the command was given beside the experiment

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
    add(
        "--gpus_per_worker",
        type=float,
        help="Of each trial's workers, such as 0.5. Default: 1 where there are enough GPUs.",
    )
    add("--study_storage", type=str, help="Optuna URL. Default: a SQLite file in --output.")
    add(
        "--score_test",
        type=bool,
        default=False,
        help="Of a grid (an ablation, not a search): "
        "score every trial on the test classes, and end in their table.",
    )
    add("--sampler", type=str, default="tpe", help=f"{' or '.join(SAMPLERS)}.")
    add("--prune", type=bool, default=True, help="End trials early that promise little (ASHA).")
    options, names = parse_with_default_config(parser, arguments)
    if options.resume is not None:
        return _resumed(options.resume, names), True
    if options.space is None:
        raise UserError(
            "--space: found none, expected a file such as search_spaces/quickstart.yaml"
        )
    if options.sampler not in SAMPLERS:
        raise UserError(f"--sampler: found {options.sampler}, expected {' or '.join(SAMPLERS)}")
    check_at_least(options, trials=1, concurrent=1)
    share = options.gpus_per_worker
    if share is not None and (share < 0 or (share > 1 and share % 1)):
        raise UserError(
            f"--gpus_per_worker: found {share}, expected 0, a fraction of 1, or a whole number"
        )
    folder = new_folder(options.output or default_output("tune"))
    settings = {
        "objective": options.objective,
        "trials": options.trials,
        "concurrent": options.concurrent,
        "gpus_per_worker": options.gpus_per_worker,
        "study_storage": _study_storage(options.study_storage, folder),
        "sampler": options.sampler,
        "prune": options.prune,
        "score_test": options.score_test,
    }
    space = read_search_space(Path(options.space).expanduser().absolute())
    if options.score_test and not space.is_grid:
        raise UserError(
            "--score_test: found true for a search, which chooses on validation classes alone; "
            "expected a space of `grid`, where nothing is chosen"
        )
    config = with_absolute_paths(experiment_from(options))
    return StudyPlan(folder, config, space, settings), False


def _study_storage(url: str | None, folder: Path) -> str:
    """The study's database; a file's path means the same in every process."""
    if url is None:
        return f"{SQLITE}{folder}/study.db"
    if url.startswith(SQLITE):
        return SQLITE + absolute(url.removeprefix(SQLITE), "--study_storage")
    return url


def _resumed(folder: str, names: Sequence[str]) -> StudyPlan:
    refuse_others(names, "--resume")
    path = Path(absolute(folder, "--resume"))
    if not (path / "config.yaml").exists():
        raise UserError(f"--resume: {path} has no config.yaml; expected the folder of a study")
    return StudyPlan(
        path,
        read_experiment(path / "config.yaml"),
        read_search_space(path / "space.yaml"),
        json.loads((path / "study.json").read_text(encoding="utf-8")),
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
    split = dataset_split(dataset, config.dataset)
    if not split.validation:
        raise UserError(
            "dataset.validation_classes: found 0; a search chooses on validation classes, "
            "expected some"
        )
    return split if score_test else replace(split, test=())


def _parent_run(plan: StudyPlan, tracking: TrackedRun | tuple[str, str]) -> TrackedRun:
    """The study's MLflow run, under which its trials stand; see `open_tracking`."""
    if isinstance(tracking, TrackedRun):
        return tracking
    uri, experiment = tracking
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
    show_left_out(images, display)
    counts = [len(images.dataset.rows_of(part)) for part in (split.train, split.test)]
    scored = replace(config.evaluation, score_test=bool(split.test))
    check_sizes(replace(config, evaluation=scored), *counts)
    monitor = Monitor.remote()
    reporter = Reporter(monitor)

    def prepare() -> TrainingJob:
        return prepare_job(config, images, split, on_ray(resources), reporter)

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
    for trial in study.get_trials(deepcopy=False, states=FINISHED):
        record_end(shared, trial)  # again: a kill may have come between the study's word and this

    def on_end(trial: FrozenTrial) -> None:
        record_end(shared, trial)
        display.line(end_line(trial))
        display.progress("trials", trials - trials_left(study, trials), trials)

    search = StudySearch(study, shared.space, trials, on_end)
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # `verbose=0` silences the older one alone
    one_worker = shared.config.training.workers == 1
    trainable = ray.tune.with_resources(
        ray.tune.with_parameters(run_trial, study=shared),
        # With several workers the trial's own process only waits for them. Tune reserves nothing
        # less than one byte.
        {"cpu": resources["CPU"], "gpu": resources.get("GPU", 0)} if one_worker else {"memory": 1},
    )
    Tuner(
        trainable,
        tune_config=TuneConfig(
            search_alg=search,
            scheduler=StudyPruner(search),
            num_samples=left,
            max_concurrent_trials=concurrent,
            # Where a pruned trial waits for workers of its own, only the end of its process ends
            # them.
            reuse_actors=REUSE_PROCESSES and one_worker,
        ),
        run_config=RunConfig(
            # Tune's own records; the study and the trials' folders are what counts.
            name="ray_tune",
            storage_path=str(shared.folder),
            failure_config=FailureConfig(max_failures=RETRIES),
            verbose=0,
        ),
    ).fit()


if __name__ == "__main__":
    raise SystemExit(run_command(main, None))
