"""Ray Train around the training loop: one worker or many, for a run or within a trial."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import ray
import ray.train
import torch
from ray.train import FailureConfig, RunConfig, ScalingConfig, UserCallback
from ray.train.torch import TorchTrainer, get_device

from sdn_ray.cluster.progress import WorkerTerminal
from sdn_ray.cluster.resources import use_device
from sdn_ray.errors import UserError, one_line
from sdn_ray.methods.loop import DivergedError
from sdn_ray.runs.storage import RunStorage
from sdn_ray.training.gauges import Gauges
from sdn_ray.training.job import WorkerContext

# What spoils a training for good: starting it again would change nothing.
UNRECOVERABLE = (DivergedError, UserError, torch.OutOfMemoryError, MemoryError)


class Job(Protocol):
    """What Ray Train runs; it travels to the workers by pickle."""

    @property
    def run(self) -> Path:
        """The job's folder."""

    @property
    def finished(self) -> bool:
        """Whether the folder holds what the job is to make."""

    def storage(self) -> RunStorage | None:
        """Where the folder is kept a second time, if it is."""


def failure_reason(error: BaseException) -> str:
    """Why a training is spoilt, in one line."""
    text = one_line(error) or type(error).__name__
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return f"out of memory: {text}"
    return text


def all_metrics(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """An epoch is reported to Ray as it is."""
    return dict(metrics)


def fit(
    run_job: Callable[[Any, WorkerContext], bool],
    job: Job,
    workers: int,
    resources: dict[str, float],
    terminal: WorkerTerminal,
    gauges: tuple[str, str],
    *,
    max_failures: int,
    summary: Callable[[Mapping[str, Any]], dict[str, Any]] = all_metrics,
    callbacks: Sequence[UserCallback] = (),
) -> bool:
    """Run a job's workers under Ray Train; whether it came to the end.

    Args:
        run_job: does one worker's part of the job; a function of a module, since it travels to the
            workers by pickle.
        job: what to train.
        workers: how many.
        resources: of each worker.
        terminal: where the workers' lines, progress and reasons to fail go.
        gauges: the run's and the trial's name in the dashboard.
        max_failures: how many deaths of workers to recover from.
        summary: turns a worker's metrics of an epoch into what is reported to Ray.
        callbacks: of Ray Train.
    """
    settings = {
        # A reference: Ray Train's controller would otherwise import all that they refer to.
        "work": ray.put((run_job, job, terminal, gauges, summary)),
        "resources": resources,
    }
    run_callbacks: list[Any] = list(callbacks)  # which Ray annotates as Tune's
    trainer = TorchTrainer(
        _train_loop,
        train_loop_config=settings,
        scaling_config=ScalingConfig(
            num_workers=workers,
            use_gpu="GPU" in resources,
            resources_per_worker=resources,
        ),
        run_config=RunConfig(
            # Ray Train's own records; the run's checkpoints are written by the workers, whole or
            # not at all, which Ray's snapshot of its checkpoints is not.
            name="ray_train",
            storage_path=str(job.run),
            failure_config=FailureConfig(max_failures=max_failures),
            callbacks=run_callbacks,
        ),
    )
    trainer.fit()
    storage = job.storage()
    if storage and not job.finished:
        # The worker may have been on a machine whose folders this one does not see.
        try:
            storage.pull(job.run)
        except OSError as error:
            terminal.line(f"storage: {storage.uri} cannot be read: {one_line(error)}")
    return job.finished


def _train_loop(settings: dict[str, Any]) -> None:
    logging.getLogger("ray.train").setLevel(logging.WARNING)
    context = ray.train.get_context()
    device = get_device()  # of this worker, where several GPUs are seen
    use_device(settings["resources"])
    run_job, job, terminal, gauges, summary = ray.get(settings["work"])
    world_size = context.get_world_size()
    worker = WorkerContext(
        terminal,
        lambda metrics: ray.train.report(summary(metrics)),
        Gauges(*gauges),
        context.get_world_rank(),
        world_size,
        str(device),
    )
    try:
        run_job(job, worker)
    except UNRECOVERABLE as error:
        terminal.fail(failure_reason(error))
        # All workers diverge at the same step. Of another failure the others do not know: they
        # wait for this one, and only Ray can end them.
        if world_size > 1 and not isinstance(error, DivergedError):
            raise
