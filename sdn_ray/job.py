"""A training as it is handed to its workers, and what its run folder says of it."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from sdn_ray.config import ExperimentConfig
from sdn_ray.data.prepared import CaptionArrays, PreparedImages
from sdn_ray.data.splits import ClassSplit
from sdn_ray.distillation.loop import ProgressReport
from sdn_ray.errors import UserError
from sdn_ray.export import TrackedRun
from sdn_ray.files import write_text
from sdn_ray.storage import RunStorage


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
    name: str = ""  # of the run in its storage

    @property
    def finished(self) -> bool:
        """Whether the run has its model."""
        return (self.run / "model").is_dir()  # whole, since it is renamed into place last

    def start(
        self,
        terminal: "Terminal",
        report: Callable[[dict[str, Any]], None],
        measure: Callable[[ProgressReport], None],
        *,
        rank: int = 0,
        world_size: int = 1,
        device: str = "cpu",
    ) -> bool:
        """Do the part of one of the job's workers; see `Worker`."""
        from sdn_ray.worker import Worker  # which knows the job

        worker = Worker(
            self, terminal, report, measure, rank=rank, world_size=world_size, device=device
        )
        return worker.run()

    def storage(self) -> RunStorage | None:
        """Where the run folder is kept a second time, if it is."""
        return RunStorage(self.config.storage, self.name) if self.config.storage else None


class Terminal(Protocol):
    """Where a worker's progress is shown."""

    stop_wanted: bool

    def line(self, text: str) -> None:
        """Print a line."""

    def progress(self, what: str, done: int, total: int, detail: str = "") -> None:
        """Move the progress bar."""


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """The epochs recorded in a run folder, leaving out a line that a kill cut short."""
    path = run / "metrics.jsonl"
    if not path.exists():
        return []
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return records


def record_epoch(run: Path, metrics: dict[str, Any]) -> None:
    """Add an epoch's metrics to the record of a run folder."""
    with (run / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(metrics) + "\n")


def forget_epochs_after(run: Path, epochs: int) -> None:
    """Drop the records of epochs that the checkpoint has not seen: they come again."""
    kept = [record for record in read_metrics(run) if record["epoch"] <= epochs]
    lines = "".join(json.dumps(record) + "\n" for record in kept)
    write_text(run / "metrics.jsonl", lines)


def check_same(identity: dict[str, Any], before: dict[str, Any], path: Path) -> None:
    """Refuse to go on with what would be another training.

    Args:
        identity: what a training depends on, by name.
        before: the same when the checkpoint was written.
        path: of the checkpoint.

    Raises:
        UserError: naming what differs.
    """
    for name, now in identity.items():
        if before[name] != now:
            raise UserError(
                f"--resume: {name}: found {now}, but {path} was written with {before[name]}; "
                "expected the same data, cache and settings as when the run began"
            )
