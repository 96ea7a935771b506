"""A run folder: its metrics, what it was begun with, and which MLflow run is its own."""

import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, with_config
from typing_extensions import TypedDict

from sdn_ray.errors import UserError
from sdn_ray.files import parse_json, read_json, read_text, write_text
from sdn_ray.models.export import Origin

_NOTE = "mlflow.json"
_RECORDED = ".recorded"  # hidden, since it says nothing to a user


@dataclass(frozen=True)
class TrackedRun:
    """Which MLflow run records a training; small enough to send to any worker."""

    uri: str
    experiment_id: str
    run_id: str


@with_config(ConfigDict(extra="allow"))
class _Epoch(TypedDict):
    epoch: int


def tracked_run(origin: Origin) -> TrackedRun | None:
    """The MLflow run that the origin of a model, or of a folder of its images, names."""
    tracked = origin.get("tracked")
    if not tracked:
        return None
    return TrackedRun(tracked["uri"], tracked["experiment_id"], tracked["run_id"])


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """The epochs recorded in a run folder, leaving out a last line that a kill cut short.

    Raises:
        UserError: another line is damaged.
    """
    path = run / "metrics.jsonl"
    if not path.exists():
        return []
    expected = "an epoch of a run on every line"
    records: list[dict[str, Any]] = []
    *lines, last = read_text(path, expected).split("\n")  # after the last newline: what was cut
    for number, line in enumerate(lines, 1):
        where = f"{path}, line {number}"
        records.append(dict(parse_json(line, _Epoch, where, expected)))
    with suppress(UserError):
        records.append(dict(parse_json(last, _Epoch, str(path), expected)))
    return records


def epochs_done(run: Path) -> int:
    """How many epochs a run folder records."""
    return max((record["epoch"] for record in read_metrics(run)), default=0)


def note_epoch(run: Path, metrics: dict[str, Any]) -> None:
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
        if name not in before:
            raise UserError(
                f"--resume: {path} says nothing of {name}: it was written by an older version of "
                "sdn_ray, whose runs this one cannot go on with"
            )
        if before[name] != now:
            raise UserError(
                f"--resume: {name}: found {now}, but {path} was written with {before[name]}; "
                "expected the same data, cache and settings as when the run began"
            )


def noted_run(folder: Path) -> TrackedRun | None:
    """The MLflow run of a run, study or trial folder, if it has begun one."""
    path = folder / _NOTE
    expected = "the MLflow run of this folder, as sdn_ray noted it"
    return read_json(path, TrackedRun, expected) if path.exists() else None


def read_scores(run: Path) -> dict[str, float]:
    """A run's scores on the test classes; none where none were asked for."""
    return read_json(run / "scores.json", dict[str, float], "a score by name")


def end_is_recorded(folder: Path) -> bool:
    """Whether MLflow has all that a finished run has come to."""
    return (folder / _RECORDED).exists()


def note_end_recorded(folder: Path) -> None:
    """Keep in a folder that its end is recorded."""
    write_text(folder / _RECORDED, "")


def note_run(folder: Path, run: TrackedRun) -> None:
    """Keep in a folder which MLflow run is its own."""
    write_text(folder / _NOTE, json.dumps(asdict(run)))
