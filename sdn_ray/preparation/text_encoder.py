"""A text encoder that is trained on the training classes once and kept, or taken as it is."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from sdn_ray.cluster.progress import Terminal
from sdn_ray.cluster.resources import use_device
from sdn_ray.cluster.tasks import Runner
from sdn_ray.config import ExperimentConfig
from sdn_ray.data.prepared import PreparedImages
from sdn_ray.data.splits import ClassSplit
from sdn_ray.files import fingerprint, spec_key
from sdn_ray.methods.precision import settled
from sdn_ray.preparation.features import feature_maker, maker_hash
from sdn_ray.preparation.images import cache_folder
from sdn_ray.text.cache import encode_cached
from sdn_ray.text.encoders import CHAR_CNN_RNN, WORDS
from sdn_ray.text.scores import CaptionedFeatures, TextScores
from sdn_ray.text.sentence import open_sentence_encoder
from sdn_ray.text.training import (
    BATCH_CLASSES,
    SentenceTower,
    TextTower,
    TextTraining,
    new_char_tower,
    train_epochs,
)
from sdn_ray.text.words import count_words


def pretrained_encoder(encoder: str, cache: Path, runner: Runner) -> Path:
    """The folder of a sentence or CLIP encoder that is taken as it is."""
    path = cache / f"encoder-{spec_key(encoder)}"
    if not path.is_dir():
        runner(_keep_pretrained, encoder, path)
    return path


def _keep_pretrained(encoder: str, path: Path) -> None:
    open_sentence_encoder(encoder).save(path)


def fitted_encoder(
    config: ExperimentConfig,
    images: PreparedImages,
    split: ClassSplit,
    teacher: Path,
    runner: Runner,
    terminal: Terminal,
) -> Path:
    """An encoder that was trained on the training classes, now or before."""
    text = config.text
    unlike = ("weights", "embeddings", "patience")
    settings = {name: value for name, value in asdict(text).items() if name not in unlike}
    if not text.whiten:  # as encoders of earlier versions, which are known by these names
        del settings["whiten"]
    source = maker_hash(text.features, teacher)
    own = text.encoder in (CHAR_CNN_RNN, WORDS)
    base = None if own else spec_key(text.encoder)
    captions = [row.captions for row in images.dataset.rows]
    # Encoders of earlier versions were trained in bf16 whatever the precision, without saying so.
    precision = [] if amp(config) else [config.training.precision]
    key = fingerprint(
        "text", images.key, split.train, split.validation, captions, source, base, settings,
        config.seed, [row.class_id for row in images.dataset.rows], *precision,
    )  # fmt: skip
    suffix = {CHAR_CNN_RNN: ".safetensors", WORDS: ".json"}.get(text.encoder, "")
    path = images.cache / f"text-{key}{suffix}"
    if path.exists():
        terminal.line(f"text encoder: trained before, taken from {path}")
        return path
    if text.encoder == WORDS:
        rows = images.dataset.rows_of(split.train)
        encoder = count_words((c for row in rows for c in row.captions), text.embedding_dim)
        encoder.save(path)
        terminal.line(f"text encoder: {encoder.embedding_dim} words and pairs of words")
        return path
    terminal.line(f"text encoder: training {text.encoder} on the training classes")
    runner(_fit_text, config, images, split, teacher, path, terminal)
    return path


def new_tower(config: ExperimentConfig, first: torch.Generator, device: str) -> TextTower:
    """The encoder that is to be trained, with its first weights."""
    text = config.text
    if text.encoder == CHAR_CNN_RNN:
        return new_char_tower(text.variant, text.embedding_dim, first)
    encoder = open_sentence_encoder(text.encoder).to(device)
    key, cache = f"base-{spec_key(text.encoder)}", cache_folder(config.dataset)

    def base(captions: list[str]) -> np.ndarray:
        return encode_cached(encoder.base_embeddings, captions, cache, key)

    return SentenceTower(encoder, base, text.embedding_dim, first)


def amp(config: ExperimentConfig) -> bool:
    """Whether matrix products are in bfloat16."""
    return settled(config.training.precision) == "bf16"


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
        amp=amp(config),
        whiten=text.whiten,
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
    return f", zero-shot {scores.zero_shot_accuracy:.1%}, AP@50 {scores.ap_at_50:.1%}"


def _fit_text(
    config: ExperimentConfig,
    images: PreparedImages,
    split: ClassSplit,
    teacher: Path,
    path: Path,
    terminal: Terminal,
) -> None:
    text, device = config.text, use_device()
    features = feature_maker(config, images, split, teacher, terminal)
    training = new_training(config, captioned_features(images, split.train, features), device)
    validation = split.validation if images.dataset.has_classes else ()
    held_out = captioned_features(images, validation, features) if validation else None
    detail = ""
    for epoch in train_epochs(training, text.epochs, held_out):
        detail = scores_line(epoch.validation)
        terminal.progress(
            "text encoder", epoch.epoch, epoch.epochs, f"loss {epoch.loss:.3g}{detail}"
        )
    terminal.line(f"text encoder: {text.epochs} epoch{'' if text.epochs == 1 else 's'}{detail}")
    training.tower.save(path)
