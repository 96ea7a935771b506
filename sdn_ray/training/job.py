"""A training as it is handed to its workers, and what a worker is given beside it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sdn_ray.cluster.progress import WorkerTerminal
from sdn_ray.cluster.tasks import Runner
from sdn_ray.config import ExperimentConfig
from sdn_ray.data.batches import EncodedImages
from sdn_ray.data.prepared import CaptionArrays, PreparedImages
from sdn_ray.data.readers.annotations import Locations
from sdn_ray.data.splits import ClassSplit
from sdn_ray.methods.loop import StepProgress
from sdn_ray.preparation.captions import prepare_captions
from sdn_ray.preparation.smaller import prepare_smaller
from sdn_ray.preparation.teacher import prepare_teacher
from sdn_ray.preparation.whitening import prepare_whitening
from sdn_ray.runs.folder import TrackedRun
from sdn_ray.runs.storage import RunStorage
from sdn_ray.training.build import smaller_sides
from sdn_ray.training.gawwn import method_locations


@dataclass(frozen=True)
class TrainingJob:
    """All that a worker needs to know; every path is absolute and seen by all workers."""

    config: ExperimentConfig
    run: Path
    images: PreparedImages
    captions: CaptionArrays
    split: ClassSplit
    teacher: Path
    text_encoder: Path | None
    tracked: TrackedRun | None
    whitening: Path | None = None  # of the captions' embeddings
    locations: Locations | None = None  # of all images, where the method is told them
    smaller: Mapping[int, Path] = field(default_factory=dict)  # files of images, by their side
    name: str = ""  # of the run in its storage
    objective: str | None = None  # the metric by which a trial is compared with others

    @property
    def finished(self) -> bool:
        """Whether the run has its model."""
        return (self.run / "model").is_dir()  # whole, since it is renamed into place last

    def encoded(self, class_ids: tuple[int, ...]) -> EncodedImages:
        """The images of some classes with all that the method's steps see of them."""
        values = self.locations.values if self.locations else None
        return self.captions.encoded(self.images, class_ids, values, self.smaller)

    def storage(self) -> RunStorage | None:
        """Where the run folder is kept a second time, if it is."""
        return RunStorage(self.config.storage, self.name) if self.config.storage else None


@dataclass(frozen=True)
class WorkerContext:
    """Which of a training's workers one is, and whom it tells how the training goes."""

    terminal: WorkerTerminal
    on_metrics: Callable[[Mapping[str, Any]], None]  # of each epoch, by every worker
    on_steps: Callable[[StepProgress], None]  # the latest steps, by rank 0
    rank: int = 0
    world_size: int = 1
    device: str = "cpu"


def prepare_job(
    config: ExperimentConfig,
    images: PreparedImages,
    split: ClassSplit,
    runner: Runner,
    terminal: WorkerTerminal,
) -> TrainingJob:
    """What a training needs beside the images: the teacher, captions' embeddings, smaller images.

    The job has no folder and no MLflow run yet.

    Args:
        config: the experiment.
        images: as `prepare_images` gives them.
        split: by class; the encoder and a fitted teacher see the training classes alone.
        runner: where the work is done: `ray_runner` or `run_locally`.
        terminal: where progress is shown.

    Raises:
        UserError: when weights or embeddings cannot be had or do not fit the data set.
    """
    # First: what is wrong with them is said before hours are spent.
    locations = method_locations(config, images.dataset)
    teacher = prepare_teacher(config, images, split, runner, terminal)
    captions, encoder = prepare_captions(config, images, split, teacher, runner, terminal)
    whitening = prepare_whitening(config, images, split, teacher, captions, runner, terminal)
    smaller = prepare_smaller(images, smaller_sides(config), runner, terminal)
    return TrainingJob(
        config,
        Path(),
        images,
        captions,
        split,
        teacher,
        encoder,
        None,
        whitening,
        locations,
        smaller,
    )
