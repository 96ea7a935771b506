"""Any text encoder on disk: a char-CNN-RNN, a vocabulary, or a sentence encoder's own folder."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from sdn_ray.text.char_cnn_rnn import CharCnnRnn, load_text_encoder
from sdn_ray.text.sentence import SENTENCE_CONFIG, SentenceEncoder, load_sentence_encoder
from sdn_ray.text.words import WORDS_FILE, WordEncoder, load_word_encoder

CHAR_CNN_RNN, WORDS = "char_cnn_rnn", "words"
FIT, PRETRAINED = "fit", "pretrained"  # of text.weights, beside files
ENCODER_FILE = "text_encoder.safetensors"  # in a folder that holds a char-CNN-RNN


class TextEncoder(Protocol):
    """What captions are embedded by."""

    @property
    def embedding_dim(self) -> int:
        """Width of an embedding."""

    def encode(
        self,
        captions: Sequence[str],
        batch_size: int = 256,
        on_batch: Callable[[int, int], None] | None = None,
    ) -> np.ndarray:
        """Embeddings of captions, float32 ``(captions, embedding_dim)``."""

    def to(self, device: str) -> "TextEncoder":
        """The same encoder on a device."""


def read_text_encoder(path: Path) -> CharCnnRnn | SentenceEncoder | WordEncoder:
    """The encoder of a file or folder, in eval mode.

    Raises:
        UserError: naming what is missing or damaged.
    """
    if (path / SENTENCE_CONFIG).exists():
        return load_sentence_encoder(path).eval()
    if path.suffix == ".json" or (path / WORDS_FILE).exists():
        return load_word_encoder(path / WORDS_FILE if path.is_dir() else path)
    return load_text_encoder(path / ENCODER_FILE if path.is_dir() else path).eval()


def copy_text_encoder(path: Path, folder: Path) -> None:
    """Keep an encoder in a folder (a model's, say) as ``text_encoder`` with its own ending."""
    if (path / SENTENCE_CONFIG).exists():
        shutil.copytree(path, folder / Path(ENCODER_FILE).stem)
    elif path.suffix == ".json":
        shutil.copyfile(path, folder / WORDS_FILE)
    else:
        shutil.copyfile(path / ENCODER_FILE if path.is_dir() else path, folder / ENCODER_FILE)


def copied_text_encoder(folder: Path) -> Path:
    """Where `copy_text_encoder` has put it."""
    for name in (Path(ENCODER_FILE).stem, WORDS_FILE):
        if (folder / name).exists():
            return folder / name
    return folder / ENCODER_FILE
