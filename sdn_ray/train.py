"""python -m sdn_ray.train: from captioned images to a trained generator, on Ray Train."""

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from sdn_ray.checks import check_experiment, check_sizes
from sdn_ray.cluster import (
    Display,
    Monitor,
    Reporter,
    start_ray,
    watch,
    worker_resources,
)
from sdn_ray.command import run_command
from sdn_ray.config import ExperimentConfig
from sdn_ray.data.rows import CaptionedDataset
from sdn_ray.data.splits import ClassSplit
from sdn_ray.distributed import fit
from sdn_ray.export import TrackedRun
from sdn_ray.files import write_text
from sdn_ray.job import TrainingJob, read_metrics
from sdn_ray.models.classifiers import load_classifier
from sdn_ray.prepare import dataset_split, on_ray, prepare_images, read_dataset, show_left_out
from sdn_ray.prepare_text import prepare_job
from sdn_ray.runs import begin_run, open_tracking, read_run_arguments, run_to_its_end, show_scores
from sdn_ray.storage import RunStorage

PROG = "python -m sdn_ray.train"
DESCRIPTION = (
    "Train a Symmetrical Distillation Network. Without --config it runs jobs/quickstart.yaml: the "
    "embedded data set and the whole pipeline, in minutes on two cores."
)


def main(arguments: Sequence[str]) -> int:
    """The command; returns its exit status."""
    config, run, known = read_run_arguments(PROG, DESCRIPTION, arguments)
    check_experiment(config)
    tracking = open_tracking(config, run)
    dataset = read_dataset(config.dataset)
    split = dataset_split(dataset, config.dataset)
    if config.evaluation.classifier:
        load_classifier(config.evaluation.classifier)  # its errors belong here, not in a worker
    if config.storage:
        RunStorage(config.storage, run.name).check(run, new=not known)
    start_ray()
    resources = worker_resources(config.training)
    tags = {"sdn_ray.command": "train", "sdn_ray.scheme": config.distillation.scheme}
    tracked = begin_run(config, run, tracking, tags)

    def train(display: Display) -> bool:
        return _train(config, run, dataset, split, tracked, resources, display)

    run_to_its_end(train, run, tracked, PROG)
    _summarise(run, tracked.uri)
    return 0


def _train(
    config: ExperimentConfig,
    run: Path,
    dataset: CaptionedDataset,
    split: ClassSplit,
    tracked: TrackedRun,
    resources: dict[str, float],
    display: Display,
) -> bool:
    """Prepare and train; whether it came to the end."""
    began = time.perf_counter()
    images = prepare_images(dataset, config.dataset, display.progress)
    write_text(run / "split.json", json.dumps(split.to_dict()))
    show_left_out(images, display)
    counts = [len(images.dataset.rows_of(part)) for part in split.to_dict().values()]
    display.line(
        f"{config.dataset.name}: {counts[0]} training, {counts[1]} validation and {counts[2]} "
        f"test images of {len(split.train)}, {len(split.validation)} and {len(split.test)} classes"
    )
    check_sizes(config, counts[0], counts[2])
    monitor = Monitor.remote()
    reporter = Reporter(monitor)

    def prepare() -> TrainingJob:
        job = prepare_job(config, images, split, on_ray(resources), reporter)
        return replace(job, run=run, tracked=tracked, name=run.name)

    job = watch(prepare, monitor, display, checkpoints=False)
    display.line(f"prepared in {time.perf_counter() - began:.0f} s; starting the workers")
    failures = config.training.max_failures

    storage = job.storage()
    if storage:
        storage.push(run)  # what this machine has written: the workers may not see it

    def train() -> bool:
        workers = config.training.workers
        return fit(job, workers, resources, reporter, (run.name, ""), max_failures=failures)

    return watch(train, monitor, display, checkpoints=True)


def _summarise(run: Path, uri: str) -> None:
    """The table at the end of a run."""
    display = Display()
    show_scores(run, display)
    last = read_metrics(run)[-1]
    display.line(f"last epoch: loss {last['loss']:.4g}, {last['images_per_second']:.0f} images/s")
    display.line(f"model:   {run / 'model'}")
    display.line(f"samples: {run / 'samples'}")
    display.line(f"MLflow:  mlflow ui --backend-store-uri {uri}")


if __name__ == "__main__":
    raise SystemExit(run_command(main, None))
