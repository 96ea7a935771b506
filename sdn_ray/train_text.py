"""python -m sdn_ray.train_text: a text encoder from captioned images, on Ray Train."""

import json
from collections.abc import Sequence
from pathlib import Path

from sdn_ray.checks import check_text_training
from sdn_ray.cluster import Display, Monitor, Reporter, start_ray, watch, worker_resources
from sdn_ray.command import run_command
from sdn_ray.config import ExperimentConfig
from sdn_ray.data.rows import CaptionedDataset
from sdn_ray.data.splits import ClassSplit
from sdn_ray.distributed import fit
from sdn_ray.errors import UserError
from sdn_ray.export import TrackedRun
from sdn_ray.files import write_text
from sdn_ray.image_features import feature_source, prepare_features
from sdn_ray.job import read_metrics
from sdn_ray.models.features import TEACHER
from sdn_ray.prepare import (
    dataset_split,
    on_ray,
    prepare_images,
    prepare_teacher,
    read_dataset,
    show_left_out,
)
from sdn_ray.runs import begin_run, open_tracking, read_run_arguments, run_to_its_end, show_scores
from sdn_ray.text_worker import EXPORT, TextJob

PROG = "python -m sdn_ray.train_text"
DESCRIPTION = (
    "Train a text encoder on the training classes of a data set: captions against fixed image "
    "features, by the symmetric structured joint embedding loss. The options are those of "
    "sdn_ray.train; `text` says what is trained."
)


def main(arguments: Sequence[str]) -> int:
    """The command; returns its exit status."""
    config, run, _ = read_run_arguments(PROG, DESCRIPTION, arguments)
    check_text_training(config)
    tracking = open_tracking(config, run)
    dataset = read_dataset(config.dataset)
    split = dataset_split(dataset, config.dataset)
    if config.text.patience and not split.validation:
        raise UserError(
            "text.patience: needs validation classes to stop by; found dataset.validation_classes 0"
        )
    start_ray()
    resources = worker_resources(config.training)
    tags = {"sdn_ray.command": "train_text", "sdn_ray.encoder": config.text.encoder}
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
    images = prepare_images(dataset, config.dataset, display.progress)
    show_left_out(images, display)
    write_text(run / "split.json", json.dumps(split.to_dict()))
    monitor = Monitor.remote()
    reporter = Reporter(monitor)
    teacher = None
    if config.text.features == TEACHER:
        teacher = watch(
            lambda: prepare_teacher(config, images, split, on_ray(resources), reporter),
            monitor,
            display,
            checkpoints=False,
        )
    source = feature_source(config, teacher, split)
    features = prepare_features(images, source, config.dataset, display.progress)
    job = TextJob(config, run, images, split, features, source, tracked)
    failures = config.training.max_failures

    def work() -> bool:
        return fit(job, 1, resources, reporter, (run.name, ""), max_failures=failures)

    return watch(work, monitor, display, checkpoints=True)


def _summarise(run: Path, uri: str) -> None:
    """The table at the end of a run."""
    display = Display()
    show_scores(run, display)
    display.line(f"last epoch: loss {read_metrics(run)[-1]['loss']:.4g}")
    display.line(f"encoder: {run / EXPORT} (for --text.weights, and evaluate --text-encoder)")
    display.line(f"MLflow:  mlflow ui --backend-store-uri {uri}")


if __name__ == "__main__":
    raise SystemExit(run_command(main, None))
