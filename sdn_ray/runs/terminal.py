"""The terminal of a command: lines, and below them what it does now or waits for."""

import time
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
)
from rich.table import Column
from rich.text import Text

LOADING = "loading Ray, PyTorch and MLflow"
_NARROW, _BAR = 80, 16  # columns; a narrow terminal has room for words alone


class Display:
    """The terminal: lines, and below them one bar with remaining time, or a clock while waiting.

    Where the output is no terminal (a job's log), every wait is a line.

    Args:
        console: where. Default: the standard output.
    """

    def __init__(self, console: Console | None = None) -> None:
        # A notebook is no terminal: its lines stay, and a bar would need packages of its own.
        self.console = console or Console(highlight=False, soft_wrap=True, force_jupyter=False)
        narrow = self.console.width < _NARROW
        detail = Column(no_wrap=True, overflow="ellipsis", ratio=1)
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", table_column=Column(no_wrap=True)),
            *([] if narrow else [BarColumn(bar_width=_BAR)]),
            _Percent(),
            _Clock(table_column=Column(no_wrap=True)),
            TextColumn("{task.fields[detail]}", table_column=detail),
            console=self.console,
            transient=True,
            expand=True,
        )
        self._task: Any = None
        self._waits: set[str] = set()

    def __enter__(self) -> "Display":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def line(self, text: str) -> None:
        """Print a line above the bar."""
        self._progress.console.print(text, markup=False)

    def wait(self, what: str) -> None:
        """Say what the command waits for, until there is progress or another wait."""
        if not self.console.is_terminal and what not in self._waits:
            self.line(f"{what} …")
        self._waits.add(what)
        self._begin(what, None)

    def progress(self, what: str, done: int, total: int, detail: str = "") -> None:
        """Show how far something has come; its parts count as one while their total is the same."""
        task = self._progress.tasks[0] if self._progress.tasks else None
        if task is None or task.total != total or done < task.completed:
            self._begin(what, total)
        self._progress.update(self._task, description=what, completed=done, detail=detail)

    def _begin(self, what: str, total: int | None) -> None:
        if self._task is not None:
            self._progress.remove_task(self._task)
        self._task = self._progress.add_task(what, total=total, detail="")


class _Percent(TaskProgressColumn):
    """How much is done; nothing where that is not known."""

    def render(self, task: Task) -> Text:
        return Text("") if task.total is None else super().render(task)


class _Clock(ProgressColumn):
    """The time that a wait has taken, or that the rest will take."""

    def render(self, task: Task) -> Text:
        if task.total is None:
            return Text(f"{_clock(task.elapsed or 0)}")
        remaining = task.time_remaining
        return Text("" if remaining is None else f"{_clock(remaining)} left")


def _clock(seconds: float) -> str:
    """Hours, minutes and seconds, as many of them as there are."""
    shown = time.strftime("%H:%M:%S", time.gmtime(seconds))
    return shown.removeprefix("00:").removeprefix("0")
