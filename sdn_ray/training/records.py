"""A training in MLflow, from what its run folder holds: by epoch, at its end, or all at once."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sdn_ray.metrics.attributes import ATTRIBUTES
from sdn_ray.metrics.evaluation import (
    BETWEEN_CAPTIONS,
    BETWEEN_DRAWS,
    PERCEPTUAL,
    WITHIN_CLASSES,
)
from sdn_ray.pictures import loss_curves
from sdn_ray.runs.folder import (
    end_is_recorded,
    epochs_done,
    note_end_recorded,
    noted_run,
    read_metrics,
    read_scores,
)
from sdn_ray.runs.tracking import Recorder

OBJECTIVE = "objective"  # by which trials are compared, in MLflow and Tune
MODEL, CURVES, SAMPLES, TEST_SHEET = "model", "curves.png", "samples", "test.png"
COLLAPSED = 0.25  # of the mean difference between two real images of one class
LAST_MODEL = "model_last"  # the last weights, beside a model of averaged ones
_CURVES_SECONDS = 30.0  # between two drawings of the curves, each of which takes a second


class Curves:
    """The curves of a run: drawn now and then, since an epoch may be shorter than their drawing.

    Args:
        run: its folder.
    """

    def __init__(self, run: Path) -> None:
        self._run, self._drawn = run, time.monotonic()

    def after_epoch(self) -> None:
        """Draw them where the last time was long ago."""
        if time.monotonic() - self._drawn >= _CURVES_SECONDS:
            self.draw()

    def draw(self) -> None:
        """Draw them of all epochs, if there is one."""
        history = read_metrics(self._run)
        if history:
            stages = [record["stage"] for record in history]
            loss_curves(self._run / CURVES, history, stages, ATTRIBUTES)
        self._drawn = time.monotonic()


def record_epoch(
    run: Path, record: Mapping[str, Any], recorder: Recorder, objective: str | None = None
) -> None:
    """Record an epoch, as a line of `metrics.jsonl` has it, and the pictures of its end.

    Args:
        run: its folder.
        record: of the epoch.
        recorder: of its MLflow run.
        objective: of a trial, the metric that is recorded as `objective` too. It comes first, since
            MLflow's Compare takes the first metric that runs have in common for its axis.
    """
    stage, epoch = record["stage"], record["epoch"]
    values = {OBJECTIVE: record[objective]} if objective and objective in record else {}
    values |= {
        f"{stage}/{name}" if name.startswith(("loss", "terms")) else name: value
        for name, value in record.items()
        if name not in ("epoch", "stage")
    }
    recorder.metrics(values, epoch)
    if (run / CURVES).exists():
        recorder.file(run / CURVES)
    sheet = run / SAMPLES / sheet_name(epoch)
    if sheet.exists():
        recorder.file(sheet, SAMPLES)


def telling(metrics: Mapping[str, Any], watched: str) -> list[str]:
    """The few figures of an epoch that fit on a line; all stand in `metrics.jsonl` and MLflow.

    Args:
        metrics: of the epoch.
        watched: which images were scored: validation or train.
    """
    shown = {"loss": metrics["loss"], "distance": metrics.get(f"{watched}/{PERCEPTUAL}")}
    scores = [n for n in metrics if n.startswith(watched) and n.endswith("_score")]
    shown["score"] = metrics[scores[0]] if scores else None
    shown["SSIM"] = metrics.get(f"{watched}/ssim")
    shown["between draws"] = metrics.get(f"{watched}/{BETWEEN_DRAWS}")
    return [f"{name} {value:.3g}" for name, value in shown.items() if value is not None]


def collapse(metrics: Mapping[str, Any], watched: str) -> str | None:
    """A warning in words where pictures have become alike; None where they have not.

    Args:
        metrics: of an epoch of an adversarial stage.
        watched: which images were scored: validation or train.
    """
    real = metrics.get(f"{watched}/{WITHIN_CLASSES}")
    if real is None:
        return None
    kinds = {"two draws of one caption": BETWEEN_DRAWS, "draws of two captions": BETWEEN_CAPTIONS}
    found = {words: metrics.get(f"{watched}/{name}") for words, name in kinds.items()}
    alike = [
        f"{words} differ by {value:.3f}"
        for words, value in found.items()
        if value is not None and value < COLLAPSED * real
    ]
    if not alike:
        return None
    return (
        f"the pictures have become alike (mode collapse): {' and '.join(alike)}, two real images "
        f"of one class by {real:.3f}. Below {COLLAPSED:.0%} of that this is said; try lower or "
        "less equal learning rates, or go back to an earlier epoch"
    )


def sheet_name(epoch: int) -> str:
    """The file of an epoch's samples."""
    return f"epoch-{epoch:04d}.png"


def record_end(run: Path, made: Path, recorder: Recorder) -> None:
    """Record a finished run's scores on the test classes and what it has made, once.

    What MLflow did not take is recorded by the next one who goes on with the run.

    Args:
        run: its folder.
        made: the folder of the model, or of the text encoder.
        recorder: of its MLflow run.
    """
    if end_is_recorded(run):
        return
    scores = read_scores(run)
    recorder.metrics({f"test/{name}": v for name, v in scores.items()}, epochs_done(run))
    if (run / SAMPLES / TEST_SHEET).exists():
        recorder.file(run / SAMPLES / TEST_SHEET, SAMPLES)
    recorder.file(run / CURVES)
    recorder.folder(made, made.name)
    if not recorder.lost:
        note_end_recorded(run)


def record_all(run: Path, recorder: Recorder, objective: str | None = None) -> None:
    """Record what a run has come to while MLflow was away."""
    for record in read_metrics(run):
        record_epoch(run, record, recorder, objective)
    if (run / MODEL).is_dir():
        record_end(run, run / MODEL, recorder)


def finished_before(run: Path, made: Path) -> bool:
    """Whether a run that is to go on has come to its end; says so, and records what is missing."""
    if not made.is_dir():
        return False
    tracked = noted_run(run)
    if tracked and not end_is_recorded(run):
        recorder = Recorder(tracked, print)
        record_end(run, made, recorder)
        recorder.status("FINISHED")
    print(f"{run} is finished, nothing is left to do. What it has made: {made}")
    return True
