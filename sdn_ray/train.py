"""python -m sdn_ray.train: from captioned images to a trained generator, on Ray Train."""

import json
import logging
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import ray
import ray.train
import torch
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer, get_device
from rich.table import Table

from sdn_ray.checks import check_experiment
from sdn_ray.cluster import (
    Display,
    Monitor,
    Reporter,
    start_ray,
    watch,
    worker_resources,
)
from sdn_ray.command import run_command
from sdn_ray.config import (
    DEFAULT_CONFIG,
    ExperimentConfig,
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
from sdn_ray.distillation.loop import DivergedError
from sdn_ray.errors import Interrupted, UserError
from sdn_ray.export import TrackedRun
from sdn_ray.files import write_text
from sdn_ray.models.classifiers import load_classifier
from sdn_ray.prepare import prepare_images, prepare_teacher, prepare_text, read_dataset
from sdn_ray.tracking import (
    Recorder,
    flatten,
    note_run,
    noted_run,
    open_experiment,
    start_run,
)
from sdn_ray.worker import TEST_SPLITS, TrainingJob, Worker, read_metrics

DESCRIPTION = (
    "Train a Symmetrical Distillation Network. Without --config it runs jobs/quickstart.yaml: the "
    "embedded data set and the whole pipeline, in minutes on two cores."
)


def main(arguments: Sequence[str]) -> int:
    """The command; returns its exit status."""
    config, run, resumed = _read_arguments(arguments)
    check_experiment(config)
    uri, experiment = open_experiment(config.tracking)
    dataset = read_dataset(config.dataset)
    split = split_classes(
        dataset,
        validation_classes=config.dataset.validation_classes,
        test_classes=config.dataset.test_classes,
        seed=config.dataset.split_seed,
    )
    if config.evaluation.classifier:
        load_classifier(config.evaluation.classifier)  # its errors belong here, not in a worker
    start_ray()
    resources = worker_resources(config.training)
    tracked = noted_run(run) if resumed else None
    if tracked is None:
        run.mkdir(parents=True, exist_ok=True)
        write_text(run / "config.yaml", to_yaml(config))
        name = config.tracking.run_name or run.name
        tags = {"sdn_ray.command": "train", "sdn_ray.scheme": config.distillation.scheme}
        tracked = start_run(uri, experiment, name, flatten(asdict(config)), tags)
        note_run(run, tracked)
    recorder = Recorder(tracked)
    recorder.status("RUNNING")
    try:
        with Display() as display:
            finished = _train(config, run, dataset, split, tracked, resources, display)
    except Interrupted:
        finished = False
    except BaseException as error:
        recorder.status("FAILED")
        if isinstance(error, ray.train.TrainingFailedError):
            print(f"Failed. Once the cause is mended: python -m sdn_ray.train --resume {run}")
        raise
    if not finished:
        recorder.status("KILLED")
        print(f"Stopped. Go on with: python -m sdn_ray.train --resume {run}")
        raise Interrupted
    recorder.status("FINISHED")
    _summarise(run, uri)
    return 0


def _read_arguments(arguments: Sequence[str]) -> tuple[ExperimentConfig, Path, bool]:
    """The experiment, its run folder, and whether an earlier run goes on."""
    parser = experiment_parser("python -m sdn_ray.train", DESCRIPTION)
    parser.add_argument("--output", type=str, help="New run folder. Default: runs/train-<time>.")
    parser.add_argument("--resume", type=str, help="Run folder to go on with.")
    names = [argument.partition("=")[0] for argument in arguments]
    if not {"--config", "--resume"} & set(names):
        arguments = ["--config", str(DEFAULT_CONFIG), *arguments]
    options = parse(parser, arguments)
    if options.resume is not None:
        others = [name for name in names if name.startswith("--") and name != "--resume"]
        if others:
            raise UserError(
                f"--resume: found {', '.join(others)} beside it; expected no other option, since "
                "the run's own config.yaml says everything"
            )
        run = Path(absolute(options.resume, "--resume"))
        if not (run / "config.yaml").exists():
            raise UserError(f"--resume: {run} has no config.yaml; expected the folder of a run")
        return read_experiment(run / "config.yaml"), run, True
    default = Path("runs") / f"train-{datetime.now():%Y%m%d-%H%M%S}"
    run = Path(absolute(options.output or str(default), "--output"))
    if run.exists() and (not run.is_dir() or any(run.iterdir())):
        raise UserError(
            f"--output: {run} already holds files; expected a new or empty folder. "
            f"To go on with a run there, use --resume {run}"
        )
    return with_absolute_paths(experiment_from(options)), run, False


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
    for item in images.dataset.bad_items:
        display.line(f"left out {item.path}: {item.reason}")
    counts = [len(images.dataset.rows_of(part)) for part in split.to_dict().values()]
    display.line(
        f"{config.dataset.name}: {counts[0]} training, {counts[1]} validation and {counts[2]} "
        f"test images of {len(split.train)}, {len(split.validation)} and {len(split.test)} classes"
    )
    _check_sizes(config, counts[0], counts[2])
    monitor = Monitor.remote()
    reporter = Reporter(monitor)

    def prepare() -> TrainingJob:
        teacher = prepare_teacher(config, images, split, resources, reporter)
        captions, encoder = prepare_text(config, images, split, teacher, resources, reporter)
        return TrainingJob(config, run, images, captions, split, teacher, encoder, tracked)

    job = watch(prepare, monitor, display, checkpoints=False)
    display.line(f"prepared in {time.perf_counter() - began:.0f} s; starting the workers")
    return watch(lambda: fit(job, resources, reporter), monitor, display, checkpoints=True)


def _check_sizes(config: ExperimentConfig, train_images: int, test_images: int) -> None:
    """Refuse parts of a data set that are too small, before hours are spent on them."""
    if train_images < config.training.batch_size:
        raise UserError(
            f"training.batch_size: found {config.training.batch_size}, expected at most the "
            f"{train_images} training images"
        )
    least = TEST_SPLITS if config.evaluation.classifier else 1
    if config.evaluation.score_test and test_images < least:
        raise UserError(
            f"evaluation.score_test: found {test_images} test images, expected at least {least}; "
            "use more, or --evaluation.score_test false"
        )


def fit(job: TrainingJob, resources: dict[str, float], reporter: Reporter) -> bool:
    """Run a job's workers under Ray Train; whether it came to the end."""
    training = job.config.training
    trainer = TorchTrainer(
        _train_loop,
        # A reference: Ray Train's controller would otherwise import all that a job refers to.
        train_loop_config={"job": ray.put((job, reporter)), "cpus": resources["CPU"]},
        scaling_config=ScalingConfig(
            num_workers=training.workers,
            use_gpu="GPU" in resources,
            resources_per_worker=resources,
        ),
        run_config=RunConfig(
            # Ray Train's own records; the run's checkpoints are written by the workers, whole or
            # not at all, which Ray's snapshot of its checkpoints is not.
            name="ray_train",
            storage_path=str(job.run),
            failure_config=FailureConfig(max_failures=training.max_failures),
        ),
    )
    trainer.fit()
    return (job.run / "model").is_dir()


def _train_loop(settings: dict[str, Any]) -> None:
    logging.getLogger("ray.train").setLevel(logging.WARNING)
    context = ray.train.get_context()
    device = get_device()
    if device.type == "cpu":
        torch.set_num_threads(max(1, int(settings["cpus"])))
    job, reporter = ray.get(settings["job"])
    world_size = context.get_world_size()
    try:
        Worker(
            job,
            reporter,
            ray.train.report,
            rank=context.get_world_rank(),
            world_size=world_size,
            device=str(device),
        ).run()
    except DivergedError as error:
        # All workers stop at the same step, and starting them again would change nothing.
        reporter.fail(str(error))
    except UserError as error:
        reporter.fail(str(error))
        if world_size > 1:
            raise  # the others wait for this one, and only Ray can end them


def _summarise(run: Path, uri: str) -> None:
    """The table at the end of a run."""
    display = Display()
    scores = json.loads((run / "scores.json").read_text())
    table = Table("test classes", "score", title=f"{run.name}", title_justify="left")
    for name, value in scores.items():
        table.add_row(name, f"{value:.4f}")
    if scores:
        display.console.print(table)
    last = read_metrics(run)[-1]
    display.line(f"last epoch: loss {last['loss']:.4g}, {last['images_per_second']:.0f} images/s")
    display.line(f"model:   {run / 'model'}")
    display.line(f"samples: {run / 'samples'}")
    display.line(f"MLflow:  mlflow ui --backend-store-uri {uri}")


if __name__ == "__main__":
    raise SystemExit(run_command(main, None))
