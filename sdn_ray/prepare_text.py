"""Captions become embeddings once, by an encoder that is taken as it is or trained and kept."""

import warnings
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from sdn_ray.config import ExperimentConfig
from sdn_ray.data.prepared import (
    CaptionArrays,
    PreparedImages,
    caption_arrays,
    store_captions,
    store_precomputed,
)
from sdn_ray.data.splits import ClassSplit
from sdn_ray.files import file_hash, fingerprint
from sdn_ray.job import Terminal, TrainingJob
from sdn_ray.models.features import TEACHER, ImageFeatures
from sdn_ray.prepare import Run, cache_folder, prepare_teacher, task_device
from sdn_ray.text.cache import encode_cached
from sdn_ray.text.encoders import CHAR_CNN_RNN, FIT, PRETRAINED, read_text_encoder
from sdn_ray.text.precomputed import read_precomputed
from sdn_ray.text.sentence import fingerprint as path_fingerprint
from sdn_ray.text.sentence import open_sentence_encoder, spec_files
from sdn_ray.text.training import (
    BATCH_CLASSES,
    CaptionedFeatures,
    SentenceTower,
    TextScores,
    TextTower,
    TextTraining,
    new_char_tower,
    train_epochs,
)


def prepare_job(
    config: ExperimentConfig,
    images: PreparedImages,
    split: ClassSplit,
    run: Run,
    reporter: Terminal,
) -> TrainingJob:
    """What a training needs beside the images: the teacher and the captions' embeddings.

    The job has no folder and no MLflow run yet.

    Args:
        config: the experiment.
        images: as `prepare_images` gives them.
        split: by class; the encoder and a fitted teacher see the training classes alone.
        run: where the work is done: `on_ray` or `here`.
        reporter: where progress is shown.

    Raises:
        UserError: when weights or embeddings cannot be had or do not fit the data set.
    """
    teacher = prepare_teacher(config, images, split, run, reporter)
    captions, encoder = _prepare_text(config, images, split, teacher, run, reporter)
    return TrainingJob(config, Path(), images, captions, split, teacher, encoder, None)


def _prepare_text(
    config: ExperimentConfig,
    images: PreparedImages,
    split: ClassSplit,
    teacher: Path,
    run: Run,
    reporter: Terminal,
) -> tuple[CaptionArrays, Path | None]:
    """The embeddings of all captions, and the encoder's file or folder, where there is one."""
    text, cache = config.text, cache_folder(config.dataset)
    if text.embeddings is not None:
        source = Path(text.embeddings)
        return store_precomputed(images, cache, source, read_precomputed(source)), None
    if text.weights == FIT:
        path = _fitted(config, images, split, teacher, run, reporter)
    elif text.weights == PRETRAINED:
        path = cache / f"encoder-{_base_key(text.encoder)}"
        if not path.is_dir():
            run(_keep_pretrained, text.encoder, path)
    else:
        path = Path(text.weights)
    arrays = caption_arrays(images, cache, path_fingerprint(path))
    if not arrays.folder.is_dir():
        run(_embed_captions, images, arrays, path, cache, reporter)
    return arrays, path


def _base_key(encoder: str) -> str:
    """What a pretrained encoder is known by: its files where they are here, else its name."""
    return fingerprint(encoder, spec_files(encoder))


def _keep_pretrained(encoder: str, path: Path) -> None:
    open_sentence_encoder(encoder).save(path)


def _fitted(
    config: ExperimentConfig,
    images: PreparedImages,
    split: ClassSplit,
    teacher: Path,
    run: Run,
    reporter: Terminal,
) -> Path:
    """An encoder that was trained on the training classes, now or before."""
    text = config.text
    unlike = ("weights", "embeddings", "patience")
    settings = {name: value for name, value in asdict(text).items() if name not in unlike}
    source = file_hash(teacher) if text.features == TEACHER else spec_files(text.features)
    base = None if text.encoder == CHAR_CNN_RNN else _base_key(text.encoder)
    captions = [row.captions for row in images.dataset.rows]
    key = fingerprint(
        "text", images.key, split.train, split.validation, captions, source, base, settings,
        config.seed, [row.class_id for row in images.dataset.rows],
    )  # fmt: skip
    suffix = ".safetensors" if text.encoder == CHAR_CNN_RNN else ""
    path = cache_folder(config.dataset) / f"text-{key}{suffix}"
    if path.exists():
        reporter.line(f"text encoder: trained before, taken from {path}")
        return path
    reporter.line(f"text encoder: training {text.encoder} on the training classes")
    run(_fit_text, config, images, split, teacher, path, reporter)
    return path


def new_tower(config: ExperimentConfig, first: torch.Generator, device: str) -> TextTower:
    """The encoder that is to be trained, with its first weights."""
    text = config.text
    if text.encoder == CHAR_CNN_RNN:
        return new_char_tower(text.variant, text.embedding_dim, first)
    encoder = open_sentence_encoder(text.encoder).to(device)
    key, cache = f"base-{_base_key(text.encoder)}", cache_folder(config.dataset)

    def base(captions: list[str]) -> np.ndarray:
        return encode_cached(encoder.base_embeddings, captions, cache, key)

    return SentenceTower(encoder, base, text.embedding_dim, first)


def new_training(config: ExperimentConfig, data: CaptionedFeatures, device: str) -> TextTraining:
    """A training of the configured encoder that has not begun."""
    first = torch.Generator().manual_seed(config.seed)
    text = config.text
    return TextTraining(
        data,
        new_tower(config, first, device),
        embedding_dim=text.embedding_dim,
        first=first,
        learning_rate=text.learning_rate,
        decay=text.decay,
        batch_classes=BATCH_CLASSES,
        seed=config.seed,
        device=device,
        amp=True,
    )


def captioned_features(
    images: PreparedImages,
    class_ids: tuple[int, ...],
    features: Callable[[np.ndarray], np.ndarray],
) -> CaptionedFeatures:
    """Captions, classes and features of the images of some classes.

    Args:
        images: prepared.
        class_ids: of the classes.
        features: rows of the prepared images to (rows, width) float32.
    """
    members = images.members(class_ids)
    rows = [images.dataset.rows[i] for i in members]
    return CaptionedFeatures(
        [row.captions for row in rows], np.array([row.class_id for row in rows]), features(members)
    )


def scores_line(scores: TextScores | None) -> str:
    """Scores on held-out classes, in words."""
    if scores is None:
        return ""
    return (
        f"  zero-shot accuracy {scores.zero_shot_accuracy:.1%}, AP@50 {scores.ap_at_50:.1%} on "
        "validation classes"
    )


def _fit_text(
    config: ExperimentConfig,
    images: PreparedImages,
    split: ClassSplit,
    teacher: Path,
    path: Path,
    reporter: Terminal,
) -> None:
    text, device = config.text, task_device()
    extract = ImageFeatures(text.features, str(teacher), config.teacher.plan, device)

    def features(members: np.ndarray) -> np.ndarray:
        def shown(done: int, total: int) -> None:
            reporter.progress("image features", done, total)

        return extract(images.images()[members], shown)

    training = new_training(config, captioned_features(images, split.train, features), device)
    held_out = captioned_features(images, split.validation, features) if split.validation else None
    detail = ""
    for epoch in train_epochs(training, text.epochs, held_out):
        detail = f"loss {epoch.loss:.3f}{scores_line(epoch.validation)}"
        reporter.progress("training the text encoder", epoch.epoch, epoch.epochs, detail)
    reporter.line(f"text encoder: {text.epochs} epochs, {detail}")
    training.tower.save(path)


def _embed_captions(
    images: PreparedImages, arrays: CaptionArrays, path: Path, cache: Path, reporter: Terminal
) -> None:
    encoder = read_text_encoder(path).to(task_device())

    def encode(captions: list[str]) -> np.ndarray:
        return encoder.encode(
            captions,
            on_batch=lambda done, total: reporter.progress("encoding captions", done, total),
        )

    def embed(captions: list[str]) -> np.ndarray:
        return encode_cached(encode, captions, cache, path_fingerprint(path))

    # A task's warnings stay in Ray's logs; these are the user's.
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        store_captions(images, arrays, embed)
    for warning in caught:
        if warning.category is UserWarning:
            reporter.line(f"text: {warning.message}")
