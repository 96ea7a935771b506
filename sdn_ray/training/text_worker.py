"""The training of a text encoder as a job: its run folder, scores and MLflow around the epochs."""

import json
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sdn_ray.config import ExperimentConfig
from sdn_ray.data.prepared import PreparedImages
from sdn_ray.data.splits import ClassSplit
from sdn_ray.files import file_hash, making_folder, read_array, sole_writer, write_text
from sdn_ray.methods.checkpoints import (
    latest_checkpoint,
    load_checkpoint,
    remove_partial_files,
    save_checkpoint,
)
from sdn_ray.pictures import loss_curves
from sdn_ray.preparation.text_encoder import captioned_features, new_training, scores_line
from sdn_ray.runs.folder import (
    TrackedRun,
    check_same,
    forget_epochs_after,
    note_epoch,
    read_metrics,
)
from sdn_ray.runs.tracking import Recorder
from sdn_ray.text.encoders import ENCODER_FILE
from sdn_ray.text.image_encoder import FeatureSource
from sdn_ray.text.scores import CaptionedFeatures, TextScores
from sdn_ray.text.training import TextEpoch, TextTraining, train_epochs
from sdn_ray.training.job import WorkerContext
from sdn_ray.training.records import CURVES, record_end

EXPORT = "text_encoder"
_STAGE = "text"


@dataclass(frozen=True)
class TextJob:
    """All that the worker needs to know; every path is absolute and seen by it."""

    config: ExperimentConfig
    run: Path
    images: PreparedImages
    split: ClassSplit
    features: Path  # .npy, (rows of images, width) float32
    source: FeatureSource  # what makes such features
    tracked: TrackedRun

    @property
    def finished(self) -> bool:
        """Whether the run has its encoder."""
        return (self.run / EXPORT).is_dir()

    def storage(self) -> None:
        """Nothing: an encoder is small, and lies in the run folder."""

    def part(self, class_ids: tuple[int, ...]) -> CaptionedFeatures:
        """The images of some classes."""
        features = read_array(self.features)
        return captioned_features(self.images, class_ids, lambda rows: np.asarray(features[rows]))


def run_text_job(job: TextJob, context: WorkerContext) -> bool:
    """Train, from the last checkpoint if there is one; whether it came to the end."""
    with sole_writer(job.run):
        return TextWorker(job, context).run()


class TextWorker:
    """One training of a text encoder, and its run folder.

    Args:
        job: what to train.
        context: where it runs, and where its progress goes.
    """

    def __init__(self, job: TextJob, context: WorkerContext) -> None:
        self.job, self.context, self.terminal = job, context, context.terminal
        self.text = job.config.text
        self.training = new_training(job.config, job.part(job.split.train), context.device)
        # Without classes there is nothing to tell apart.
        self.measured = job.images.dataset.has_classes
        held_out = job.split.validation if self.measured else ()
        self.held_out = job.part(held_out) if held_out else None
        self.recorder = Recorder(job.tracked, self.terminal.line)
        self.best: dict[str, Any] | None = None  # epoch, accuracy and state of the best epoch

    def run(self) -> bool:
        """Train to the exported encoder; False when the user asked to stop."""
        self._restore()
        self.terminal.wait("training the text encoder: first epoch")
        if not self._stale():
            for epoch in train_epochs(self.training, self.text.epochs, self.held_out):
                self._keep(epoch)
                if self._stale():
                    break
                if self.terminal.stop_wanted:
                    return False
        self.terminal.wait("writing and recording the text encoder")
        if not self.job.finished:
            self._export()
        record_end(self.job.run, self.job.run / EXPORT, self.recorder)
        return True

    def _stale(self) -> bool:
        """Whether the validation classes have gained nothing for too long."""
        stale = self.training.epoch - self.best["epoch"] if self.best else 0
        return self.text.patience is not None and stale >= self.text.patience

    def _restore(self) -> None:
        folder = self.job.run / "checkpoints"
        remove_partial_files(folder)
        path = latest_checkpoint(folder)
        if path is None:
            return
        state = load_checkpoint(path)
        check_same(self._identity, state["identity"], path)
        self.training.load_state_dict(state["training"])
        self.best = state["best"]
        forget_epochs_after(self.job.run, self.training.epoch)
        self.terminal.line(f"going on after epoch {self.training.epoch} ({path.name})")

    @cached_property
    def _identity(self) -> dict[str, Any]:
        """What the epochs depend on, and what must be the same when the run goes on."""
        config, job = self.job.config, self.job
        return {
            "seed": config.seed,
            # Runs of earlier versions, which had no such option, say nothing of it.
            "text": {
                k: v
                for k, v in asdict(config.text).items()
                if k not in ("epochs", "patience") and (k, v) != ("whiten", False)
            },
            "prepared images": job.images.key,
            "training classes": list(job.split.train),
            "image features": file_hash(job.features),
        }

    def _keep(self, done: TextEpoch) -> None:
        """Write what an epoch has come to."""
        epoch, scores = done.epoch, done.validation
        metrics: dict[str, Any] = {"epoch": epoch, "loss": done.loss}
        if scores:
            metrics |= {f"validation/{name}": value for name, value in asdict(scores).items()}
        if scores and (self.best is None or scores.zero_shot_accuracy > self.best["accuracy"]):
            state = self.training.state_dict()
            kept = {side: _clone(state[side]) for side in ("text", "image")}
            self.best = {"epoch": epoch, "accuracy": scores.zero_shot_accuracy, **kept}
        state = {
            "training": self.training.state_dict(),
            "best": self.best,
            "identity": self._identity,
        }
        # First the record: what a checkpoint has not seen is forgotten, but never missed.
        note_epoch(self.job.run, metrics)
        save_checkpoint(self.job.run / "checkpoints", state, epoch, False)
        self._show(metrics, scores)
        self.context.on_metrics(metrics)

    def _show(self, metrics: dict[str, Any], scores: TextScores | None) -> None:
        epoch, detail = metrics["epoch"], f"loss {metrics['loss']:.3g}{scores_line(scores)}"
        self.terminal.progress("text encoder", epoch, self.text.epochs, detail)
        values = {k: v for k, v in metrics.items() if k != "epoch"}
        self.recorder.metrics(values, epoch)

    def _export(self) -> None:
        """The best epoch's encoder, its scores on the test classes, and the curves."""
        run, training = self.job.run, self.training
        chosen = training.epoch
        if self.best:
            training.load_weights(self.best)
            chosen = self.best["epoch"]
        self.terminal.line(f"text encoder: that of epoch {chosen} of {training.epoch}")
        scores: dict[str, float] = {}
        if self.job.config.evaluation.score_test and self.job.split.test and self.measured:
            scores = asdict(training.scores(self.job.part(self.job.split.test)))
        write_text(run / "scores.json", json.dumps(scores, indent=1))
        history = read_metrics(run)
        loss_curves(run / CURVES, history, [_STAGE] * len(history))
        with making_folder(run / EXPORT) as partial:
            export_encoder(training, partial, self.job.source)


def export_encoder(training: TextTraining, folder: Path, source: FeatureSource) -> None:
    """Write both sides as they stand into a folder that is being made."""
    whole = folder / "encoder"
    training.tower.save(whole)
    if whole.is_dir():  # a sentence encoder has a folder of files
        for path in whole.iterdir():
            path.rename(folder / path.name)
        whole.rmdir()
    else:
        whole.rename(folder / ENCODER_FILE)
    training.image_encoder.save(folder, source)


def _clone(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value.detach().cpu().clone() for name, value in state.items()}
