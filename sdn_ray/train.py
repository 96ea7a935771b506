"""python -m sdn_ray.train: from captioned images to a trained generator, on Ray Train."""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from sdn_ray.cluster.progress import Watcher
from sdn_ray.cluster.resources import runs_on
from sdn_ray.cluster.tasks import ray_runner
from sdn_ray.runs.command_line import read_run_arguments, run_command
from sdn_ray.runs.folder import read_metrics
from sdn_ray.runs.lifecycle import run_to_its_end, show_scores
from sdn_ray.runs.terminal import Display
from sdn_ray.runs.tracking import look_line
from sdn_ray.training.checks import check_experiment, check_sizes
from sdn_ray.training.job import prepare_job
from sdn_ray.training.ray_train import fit
from sdn_ray.training.records import MODEL, finished_before
from sdn_ray.training.session import Session, open_session
from sdn_ray.training.worker import run_job

PROG = "python -m sdn_ray.train"
DESCRIPTION = (
    "Train a Symmetrical Distillation Network. Without --config it runs jobs/quickstart.yaml: the "
    "embedded data set and the whole pipeline, in minutes on two cores."
)


def main(arguments: Sequence[str]) -> int:
    """The command; returns its exit status."""
    config, folder, known = read_run_arguments(PROG, DESCRIPTION, arguments)
    if known and finished_before(folder, folder / MODEL):
        return 0
    check_experiment(config)
    tags = {"sdn_ray.command": "train", "sdn_ray.scheme": config.distillation.scheme}
    session = open_session(config, folder, tags, known=known)
    run_to_its_end(lambda display: _train(session, display), folder, session.tracked, PROG)
    _summarise(folder, session.tracked.uri)
    return 0


def _train(session: Session, display: Display) -> bool:
    """Prepare and train; whether it came to the end."""
    began = time.perf_counter()
    config, split = session.config, session.split
    display.line(runs_on(session.resources, config.training.workers))
    images = session.images(display)
    counts = [len(images.dataset.rows_of(part)) for part in split.to_dict().values()]
    display.line(
        f"{config.dataset.name}: {counts[0]} training, {counts[1]} validation and {counts[2]} "
        f"test images of {len(split.train)}, {len(split.validation)} and {len(split.test)} classes"
    )
    check_sizes(config, counts[0], counts[2])
    watch = Watcher(display)
    runner = ray_runner(session.resources)
    prepared = watch(
        lambda: prepare_job(config, images, split, runner, watch.remote), checkpoints=False
    )
    job = replace(prepared, run=session.folder, tracked=session.tracked, name=session.folder.name)
    display.line(f"prepared in {time.perf_counter() - began:.0f} s; starting the workers")
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


def _summarise(run: Path, uri: str) -> None:
    """The table at the end of a run."""
    display = Display()
    show_scores(run, display)
    last = read_metrics(run)[-1]
    display.line(f"last epoch: loss {last['loss']:.4g}, {last['images_per_second']:.0f} images/s")
    display.line(f"model:   {run / MODEL}")
    display.line(f"samples: {run / 'samples'}")
    display.line(look_line(uri))


if __name__ == "__main__":
    raise SystemExit(run_command(main, None))
