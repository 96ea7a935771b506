"""Captions become embeddings once, by an encoder that is taken as it is or trained and kept."""

import warnings
from pathlib import Path

import numpy as np

from sdn_ray.cluster.progress import Terminal, WorkerTerminal
from sdn_ray.cluster.resources import use_device
from sdn_ray.cluster.tasks import Runner
from sdn_ray.config import ExperimentConfig
from sdn_ray.data.prepared import (
    CaptionArrays,
    PreparedImages,
    caption_arrays,
    store_captions,
    store_precomputed,
)
from sdn_ray.data.splits import ClassSplit
from sdn_ray.files import path_hash
from sdn_ray.preparation.text_encoder import fitted_encoder, pretrained_encoder
from sdn_ray.text.cache import encode_cached
from sdn_ray.text.encoders import FIT, PRETRAINED, read_text_encoder
from sdn_ray.text.precomputed import read_precomputed


def prepare_captions(
    config: ExperimentConfig,
    images: PreparedImages,
    split: ClassSplit,
    teacher: Path,
    runner: Runner,
    terminal: WorkerTerminal,
) -> tuple[CaptionArrays, Path | None]:
    """The embeddings of all captions, and the encoder's file or folder, where there is one.

    Args:
        config: the experiment.
        images: whose captions.
        split: by class; an encoder that is trained sees the training classes alone.
        teacher: file of its weights, whose features `fit` may train against.
        runner: where the work is done.
        terminal: where progress is shown.

    Raises:
        UserError: when encoder or embeddings cannot be had or do not fit the data set.
    """
    text, cache = config.text, images.cache
    if text.embeddings is not None:
        source = Path(text.embeddings)
        return store_precomputed(images, cache, source, read_precomputed(source)), None
    if text.weights == FIT:
        path = fitted_encoder(config, images, split, teacher, runner, terminal)
    elif text.weights == PRETRAINED:
        path = pretrained_encoder(text.encoder, cache, runner)
    else:
        path = Path(text.weights)
    arrays = caption_arrays(images, cache, path_hash(path))
    if not arrays.folder.is_dir():
        runner(_embed_captions, images, arrays, path, cache, terminal)
    return arrays, path


def _embed_captions(
    images: PreparedImages, arrays: CaptionArrays, path: Path, cache: Path, terminal: Terminal
) -> None:
    encoder = read_text_encoder(path).to(use_device())

    def encode(captions: list[str]) -> np.ndarray:
        return encoder.encode(
            captions,
            on_batch=lambda done, total: terminal.progress("encoding captions", done, total),
        )

    def embed(captions: list[str]) -> np.ndarray:
        return encode_cached(encode, captions, cache, path_hash(path))

    # A task's warnings stay in Ray's logs; these are the user's.
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        store_captions(images, arrays, embed)
    for warning in caught:
        if warning.category is UserWarning:
            terminal.line(f"text: {warning.message}")
