"""What the commands that train share: all that is checked and opened before work begins."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sdn_ray.cluster.precision import settle_precision
from sdn_ray.cluster.progress import Terminal
from sdn_ray.cluster.resources import start_ray, worker_resources
from sdn_ray.config import ExperimentConfig
from sdn_ray.data.prepared import PreparedImages
from sdn_ray.data.rows import CaptionedDataset
from sdn_ray.data.splits import ClassSplit
from sdn_ray.files import write_text
from sdn_ray.preparation.images import (
    dataset_split,
    prepare_configured_images,
    read_dataset,
)
from sdn_ray.runs.folder import TrackedRun
from sdn_ray.runs.lifecycle import begin_run, open_tracking
from sdn_ray.runs.storage import RunStorage
from sdn_ray.training.checks import check_classes
from sdn_ray.training.gawwn import check_annotations


@dataclass(frozen=True)
class Session:
    """A run that can begin: its folder, data set, MLflow run and share of the cluster."""

    config: ExperimentConfig
    folder: Path
    dataset: CaptionedDataset
    split: ClassSplit
    resources: dict[str, float]  # of each worker
    tracked: TrackedRun

    def images(self, terminal: Terminal) -> PreparedImages:
        """The data set's images, decoded once; the run folder gets the split."""
        images = prepare_configured_images(self.dataset, self.config.dataset, terminal)
        write_text(self.folder / "split.json", json.dumps(self.split.to_dict()))
        return images


def open_session(
    config: ExperimentConfig,
    folder: Path,
    tags: Mapping[str, str],
    terminal: Terminal,
    *,
    known: bool,
) -> Session:
    """Check and open what a training needs; what can be wrong comes before Ray starts.

    Args:
        config: the experiment, checked.
        folder: of the run.
        tags: of its MLflow run.
        terminal: is told what takes its time.
        known: whether its storage may know a run of this name.

    Raises:
        UserError: the MLflow store, the data set, the storage or the cluster cannot be had.
    """
    terminal.wait("opening MLflow's store")
    tracking = open_tracking(config, folder)
    dataset = read_dataset(config.dataset, terminal)
    check_annotations(config, dataset)
    check_classes(config, dataset)
    split = dataset_split(dataset, config.dataset)
    if config.storage:
        RunStorage(config.storage, folder.name).check(folder, new=not known)
    start_ray(terminal)
    resources = worker_resources(config.training)
    config = settle_precision(config, resources, terminal)
    terminal.wait("beginning the MLflow run")
    tags = {**tags, "sdn_ray.split_by": "class" if dataset.has_classes else "image"}
    tracked = begin_run(config, folder, tracking, tags)
    return Session(config, folder, dataset, split, resources, tracked)
