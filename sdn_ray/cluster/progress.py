"""Progress and the wish to stop, between workers and the terminal of the command."""

import contextlib
import threading
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sdn_ray.errors import Interrupted, UserError

Result = TypeVar("Result")
OnProgress = Callable[[str, int, int], None]  # (what, done, total)
Event = tuple[str, Any]  # of a `Monitor`: its kind and what it says

_POLL_SECONDS = 0.25


class Terminal(Protocol):
    """Where progress is shown."""

    def wait(self, what: str) -> None:
        """Say what is waited for, until there is progress or another wait."""

    def line(self, text: str) -> None:
        """Print a line."""

    def progress(self, what: str, done: int, total: int, detail: str = "") -> None:
        """Move the progress bar."""


class WorkerTerminal(Terminal, Protocol):
    """A worker's way to whoever awaits it; it travels to the worker by pickle."""

    stop_wanted: bool

    def fail(self, text: str) -> None:
        """Leave word why the work cannot go on; returns once it is kept."""


class Monitor:
    """Carries progress from workers to the terminal, and the wish to stop the other way."""

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._stop = False

    def send(self, kind: str, event: Any) -> bool:
        """Leave an event; the answer says whether the user wants to stop."""
        self._events.append((kind, event))
        return self._stop

    def take(self) -> list[Event]:
        """All events since the last call."""
        events, self._events = self._events, []
        return events

    def stop(self) -> None:
        """Ask the workers to stop at their next resting point."""
        self._stop = True


class RemoteTerminal:
    """A worker's end of a `Monitor`; sending never waits for the terminal."""

    def __init__(self, monitor: Any) -> None:
        self._monitor = monitor
        self._pending: Any = None
        self.stop_wanted = False

    def wait(self, what: str) -> None:
        """Say what is waited for, until there is progress or another wait."""
        self._monitor.send.remote("wait", what)

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


class Watcher:
    """Runs work in a thread and shows what its workers send, until it ends.

    Args:
        terminal: where it is shown.
    """

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        # On the node of the command: it reserves nothing, and Ray might place it on one that dies.
        node = ray.get_runtime_context().get_node_id()
        monitor: Any = ray.remote(num_cpus=0, max_restarts=0)(Monitor)
        self._monitor: Any = monitor.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)
        ).remote()
        self.remote = RemoteTerminal(self._monitor)  # for the workers

    def close(self) -> None:
        """End the process that carries what the workers send."""
        ray.kill(self._monitor)

    def __call__(self, work: Callable[[], Result], *, checkpoints: bool) -> Result:
        """Do the work; what it returns.

        On Ctrl-C the workers are asked to stop at their next resting point; a second Ctrl-C leaves
        at once, as does the first where the work keeps no ``checkpoints``.

        Raises:
            Interrupted: after a clean stop.
            UserError: when the work or one of its workers found one.
        """
        outcome: dict[str, Any] = {}
        # Not `Thread.is_alive`, which an interrupted `join` can leave saying False of a living one.
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
                self._show()
            except KeyboardInterrupt:
                if interrupted or not checkpoints:
                    raise Interrupted from None
                interrupted = True
                self._monitor.stop.remote()
                self._terminal.line(
                    "Stopping after a last checkpoint; Ctrl-C again leaves at once."
                )
        self._show()
        if "error" in outcome:
            raise _cause(outcome["error"])
        if interrupted and not outcome["result"]:
            raise Interrupted
        return outcome["result"]

    def _show(self) -> None:
        """Show what has come since the last call.

        Raises:
            UserError: when a worker left one.
        """
        for kind, event in ray.get(self._monitor.take.remote()):
            if kind == "line":
                self._terminal.line(event)
            elif kind == "wait":
                self._terminal.wait(event)
            elif kind == "progress":
                self._terminal.progress(*event)
            else:
                raise UserError(event)


def _cause(error: BaseException) -> BaseException:
    """The user's error that Ray has wrapped, or the error as it is."""
    wrapped = isinstance(error, ray.exceptions.RayTaskError) and error.cause
    return wrapped if isinstance(wrapped, UserError) else error
