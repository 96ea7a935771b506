"""The two trainings as their commands run them: of a generator, and of a text encoder."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from sdn_ray.cluster.progress import Watcher
from sdn_ray.cluster.resources import runs_on, stop_ray
from sdn_ray.cluster.tasks import ray_runner
from sdn_ray.config import ExperimentConfig
from sdn_ray.data.splits import NOT_ZERO_SHOT, scored_part
from sdn_ray.models.image_features import TEACHER
from sdn_ray.preparation.features import feature_source, prepare_features
from sdn_ray.preparation.teacher import prepare_teacher
from sdn_ray.runs.folder import read_metrics
from sdn_ray.runs.lifecycle import run_to_its_end, show_scores
from sdn_ray.runs.terminal import Display
from sdn_ray.runs.tracking import look_lines
from sdn_ray.training.build import method_tags
from sdn_ray.training.checks import check_experiment, check_sizes, check_text_training
from sdn_ray.training.job import prepare_job
from sdn_ray.training.ray_train import fit
from sdn_ray.training.records import MODEL, finished_before
from sdn_ray.training.session import Session, open_session
from sdn_ray.training.text_worker import EXPORT, TextJob, run_text_job
from sdn_ray.training.worker import run_job

_WORKERS = "starting the workers"


@dataclass(frozen=True)
class _Command:
    """In what the two trainings differ."""

    name: str
    made: str  # what stands in the run folder at its end
    check: Callable[[ExperimentConfig], None]
    tag: Callable[[ExperimentConfig], dict[str, str]]  # of its MLflow run
    work: Callable[[Session, Display], bool]  # whether it came to the end
    summary: Callable[[Path], list[str]]


def train(config: ExperimentConfig, folder: Path, display: Display, *, known: bool) -> Path:
    """Train a generator in a run folder, or say that it is trained.

    Args:
        config: the experiment.
        folder: of the run, new or to go on with.
        display: shows how far it has come.
        known: whether its storage may know a run of this name.

    Returns:
        The folder of the model.

    Raises:
        UserError: the experiment cannot be meant, or something that it needs cannot be had.
        Interrupted: the user stopped it.
    """
    command = _Command(
        "train",
        MODEL,
        check_experiment,
        method_tags,
        _train,
        _summary,
    )
    return _run(command, config, folder, display, known=known)


def train_text(config: ExperimentConfig, folder: Path, display: Display, *, known: bool) -> None:
    """Train a text encoder in a run folder, or say that it is trained; see `train`.

    Raises:
        UserError: the experiment cannot be meant, or something that it needs cannot be had.
        Interrupted: the user stopped it.
    """
    command = _Command(
        "train_text",
        EXPORT,
        check_text_training,
        lambda config: {"sdn_ray.encoder": config.text.encoder},
        _train_text,
        _text_summary,
    )
    _run(command, config, folder, display, known=known)


def _run(
    command: _Command, config: ExperimentConfig, folder: Path, display: Display, *, known: bool
) -> Path:
    """Do what is left to do of a run; what stands in its folder at its end."""
    made = folder / command.made
    if known and finished_before(folder, made):
        return made
    command.check(config)
    tags = {"sdn_ray.command": command.name} | command.tag(config)
    try:
        session = open_session(config, folder, tags, display, known=known)
        prog = f"python -m sdn_ray.{command.name}"
        run_to_its_end(lambda: command.work(session, display), folder, session.tracked, prog)
        show_scores(folder, display, scored_part(session.dataset))
        for line in [*command.summary(folder), look_lines(session.tracked)]:
            display.line(line)
    finally:
        stop_ray(display)
    return made


def _train(session: Session, display: Display) -> bool:
    """Prepare and train; whether it came to the end."""
    began = time.perf_counter()
    config, split = session.config, session.split
    display.line(runs_on(session.resources, config.training.workers))
    images = session.images(display)
    counts = [len(images.dataset.rows_of(part)) for part in split.to_dict().values()]
    display.line(
        f"{config.dataset.name}: {counts[0]} training, {counts[1]} validation and {counts[2]} test "
        + (
            f"images of {len(split.train)}, {len(split.validation)} and {len(split.test)} classes"
            if session.dataset.has_classes
            else f"images without classes, {NOT_ZERO_SHOT}"
        )
    )
    check_sizes(config, len(split.train), counts[0], counts[2])
    watch = Watcher(display)
    runner = ray_runner(session.resources)
    prepared = watch(
        lambda: prepare_job(config, images, split, runner, watch.remote), checkpoints=False
    )
    job = replace(prepared, run=session.folder, tracked=session.tracked, name=session.folder.name)
    display.line(f"prepared in {time.perf_counter() - began:.0f} s")
    display.wait(_WORKERS)
    storage = job.storage()
    if storage:
        storage.push(job.run)  # what this machine has written: the workers may not see it
    return watch(
        lambda: fit(
            run_job,
            job,
            config.training.workers,
            session.resources,
            watch.remote,
            (job.name, ""),
            max_failures=config.training.max_failures,
        ),
        checkpoints=True,
    )


def _summary(run: Path) -> list[str]:
    last = read_metrics(run)[-1]
    return [
        f"last epoch: loss {last['loss']:.4g}, {last['images_per_second']:.3g} images/s",
        f"model:   {run / MODEL}",
        f"samples: {run / 'samples'}",
    ]


def _train_text(session: Session, display: Display) -> bool:
    """Prepare and train; whether it came to the end."""
    config, split = session.config, session.split
    display.line(runs_on(session.resources))
    images = session.images(display)
    watch = Watcher(display)
    runner = ray_runner(session.resources)
    teacher: Path | None = None
    if config.text.features == TEACHER:
        teacher = watch(
            lambda: prepare_teacher(config, images, split, runner, watch.remote), checkpoints=False
        )
    source = feature_source(config, teacher, split)
    features = prepare_features(images, source, display)
    job = TextJob(config, session.folder, images, split, features, source, session.tracked)
    display.wait(_WORKERS)
    return watch(
        lambda: fit(
            run_text_job,
            job,
            1,
            session.resources,
            watch.remote,
            (job.run.name, ""),
            max_failures=config.training.max_failures,
        ),
        checkpoints=True,
    )


def _text_summary(run: Path) -> list[str]:
    return [
        f"last epoch: loss {read_metrics(run)[-1]['loss']:.4g}",
        f"encoder: {run / EXPORT} (for --text.weights, and evaluate --text-encoder)",
    ]
