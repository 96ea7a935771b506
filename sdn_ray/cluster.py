"""Starting or joining Ray, sizing what is asked of it, and showing progress where it is awaited."""

import contextlib
import logging
import os
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import ray
import ray.data
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)

from sdn_ray.config import TrainingConfig
from sdn_ray.errors import Interrupted, UserError

Result = TypeVar("Result")
OnProgress = Callable[[str, int, int], None]  # (what, done, total)

_POLL_SECONDS = 0.25


def start_ray() -> None:
    """Join the cluster that the environment names, else start one on this machine."""
    if ray.is_initialized():
        return
    # Workers speak to the terminal through a `Monitor`; their own logs stay in the dashboard.
    # Without an address Ray would look for the last cluster of this machine, and wait for minutes
    # where that one has died.
    address = os.environ.get("RAY_ADDRESS", "local")
    ray.init(address=address, logging_level=logging.WARNING, log_to_driver=False)
    if len(ray.nodes()) == 1:
        # Every idle process of Ray's wakes 100 times a second, which a worker on all cores feels;
        # the one that watches for nodes that are about to go has nothing to say of a single node.
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    # Ray Data's progress bars would fight with ours for the terminal, and it warns of their lack.
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)


def worker_resources(
    config: TrainingConfig, *, trials: int = 1, gpus_per_worker: float | None = None
) -> dict[str, float]:
    """What each training worker reserves: CPU and GPU.

    Args:
        config: how many workers there are, and on what.
        trials: trainings that run at a time, among whom the cluster is shared equally.
        gpus_per_worker: such as 0.5. Default: 1 where the cluster has enough of them.

    Raises:
        UserError: when the cluster can never meet it.
    """
    workers = config.workers * trials
    asked = f"training.workers: found {config.workers}"
    if trials > 1:
        asked += f" in each of {trials} trials at a time (--concurrent)"
    # A worker lives on one node, so the nodes count, not their sum.
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    most = _most_resources(nodes)
    cpus, gpus = int(most.get("CPU", 0)), most.get("GPU", 0)
    wanted = gpus_per_worker or 1
    use_gpu = gpus_per_worker != 0 and config.device != "cpu" and gpus >= workers * wanted
    if (config.device == "gpu" and gpus_per_worker == 0) or (
        config.device == "cpu" and gpus_per_worker
    ):
        raise UserError(
            f"--gpus_per_worker: found {gpus_per_worker:g} beside training.device {config.device}; "
            "expected the two to agree"
        )
    if not use_gpu and (config.device == "gpu" or gpus_per_worker):
        raise UserError(f"{asked}, {wanted:g} GPUs each, but the cluster has {gpus:g} GPUs")
    if workers > cpus:
        raise UserError(f"{asked}, but the cluster has {cpus} CPUs; each worker needs at least one")

    def fits(share: int) -> bool:
        places = [int(node.get("CPU", 0) // share) for node in nodes]
        if use_gpu:
            free = [int(node.get("GPU", 0) / wanted) for node in nodes]
            places = [min(pair) for pair in zip(places, free, strict=True)]
        return sum(places) >= workers

    share = config.cpus_per_worker or next((s for s in range(cpus, 0, -1) if fits(s)), 1)
    if not fits(share) and not _grows():
        raise UserError(
            f"training.cpus_per_worker: {share} for each of {workers} workers"
            + (f" with {wanted:g} GPUs each" if use_gpu else "")
            + f", but the cluster's nodes have {[int(node.get('CPU', 0)) for node in nodes]} CPUs"
        )
    return {"CPU": share, "GPU": wanted} if use_gpu else {"CPU": share}


def _most_resources(nodes: list[dict[str, float]]) -> dict[str, float]:
    """All that the cluster has, or may grow to."""
    names = {name for node in nodes for name in node}
    now = {name: sum(node.get(name, 0) for node in nodes) for name in names}
    later = ray._private.state.state.get_max_resources_from_cluster_config() or {}
    return {name: max(now.get(name, 0), later.get(name, 0)) for name in names | set(later)}


def _grows() -> bool:
    """Whether an autoscaler may still add nodes."""
    return bool(ray._private.state.state.get_max_resources_from_cluster_config())


@ray.remote(num_cpus=0, max_restarts=0)
class Monitor:
    """Carries progress from workers to the terminal, and the wish to stop the other way."""

    def __init__(self) -> None:
        self._events: list[tuple[str, Any]] = []
        self._stop = False

    def send(self, kind: str, event: Any) -> bool:
        """Leave an event; the answer says whether the user wants to stop."""
        self._events.append((kind, event))
        return self._stop

    def take(self) -> list[tuple[str, Any]]:
        """All events since the last call."""
        events, self._events = self._events, []
        return events

    def stop(self) -> None:
        """Ask the workers to stop at their next resting point."""
        self._stop = True


class Reporter:
    """A worker's end of a `Monitor`; sending never waits for the terminal."""

    def __init__(self, monitor: Any) -> None:
        self._monitor = monitor
        self._pending: Any = None
        self.stop_wanted = False

    def line(self, text: str) -> None:
        """Print a line."""
        self._monitor.send.remote("line", text)

    def fail(self, text: str) -> None:
        """End the command with this error; returns once it is known there."""
        ray.get(self._monitor.send.remote("error", text))

    def progress(self, what: str, done: int, total: int, detail: str = "") -> None:
        """Move the progress bar; also learns whether the user wants to stop."""
        if self._pending is not None:
            ready, _ = ray.wait([self._pending], timeout=0)
            if not ready:
                return
            # A lost monitor means a lost driver: the work goes on until Ray ends it.
            with contextlib.suppress(ray.exceptions.RayActorError):
                self.stop_wanted |= ray.get(self._pending)
        self._pending = self._monitor.send.remote("progress", (what, done, total, detail))


class Display:
    """The terminal: lines, and one progress bar with remaining time."""

    def __init__(self) -> None:
        self.console = Console(highlight=False, soft_wrap=True)
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[detail]}"),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
        )
        self._task: Any = None
        self._what = ""

    def __enter__(self) -> "Display":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def line(self, text: str) -> None:
        """Print a line above the bar."""
        self._progress.console.print(text, markup=False)

    def progress(self, what: str, done: int, total: int, detail: str = "") -> None:
        """Show how far something has come."""
        if what != self._what:
            if self._task is not None:
                self._progress.remove_task(self._task)
            self._task = self._progress.add_task(what, total=total, detail=detail)
            self._what = what
        self._progress.update(self._task, completed=done, total=total, detail=detail)

    def show(self, events: list[tuple[str, Any]]) -> None:
        """Render what a `Monitor` gathered.

        Raises:
            UserError: when a worker reported one.
        """
        for kind, event in events:
            if kind == "line":
                self.line(event)
            elif kind == "progress":
                self.progress(*event)
            else:
                raise UserError(event)


def watch(
    work: Callable[[], Result], monitor: Any, display: Display, *, checkpoints: bool
) -> Result:
    """Run ``work`` in a thread and show what its workers report, until it ends.

    On Ctrl-C the workers are asked to stop at their next resting point; a second Ctrl-C leaves at
    once, as does the first where the work keeps no ``checkpoints``.

    Raises:
        Interrupted: after a clean stop.
        UserError: when the work or one of its workers found one.
    """
    outcome: dict[str, Any] = {}
    # Not `Thread.is_alive`, which an interrupted `join` can leave saying False of a living thread.
    ended = threading.Event()

    def run() -> None:
        try:
            outcome["result"] = work()
        except BaseException as error:
            outcome["error"] = error
        finally:
            ended.set()

    threading.Thread(target=run, name="work", daemon=True).start()
    interrupted = False
    while not ended.is_set():
        try:
            ended.wait(_POLL_SECONDS)
            display.show(ray.get(monitor.take.remote()))
        except KeyboardInterrupt:
            if interrupted or not checkpoints:
                raise Interrupted from None
            interrupted = True
            monitor.stop.remote()
            display.line("Stopping after a last checkpoint; Ctrl-C again leaves at once.")
    display.show(ray.get(monitor.take.remote()))
    if "error" in outcome:
        error = outcome["error"]
        if isinstance(error, ray.exceptions.RayTaskError) and isinstance(error.cause, UserError):
            raise error.cause
        raise error
    if interrupted and not outcome["result"]:
        raise Interrupted
    return outcome["result"]
