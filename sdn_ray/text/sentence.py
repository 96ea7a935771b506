"""Caption → embedding: pretrained sentence encoders and CLIP's text tower, frozen.

``SentenceEncoder`` stands where ``CharCnnRnn`` can stand.
"""

import json
import shutil
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from pydantic import PositiveInt
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from typing_extensions import TypedDict

from sdn_ray.errors import UserError
from sdn_ray.files import file_hash, file_hashes, making_folder, read_json, write_text
from sdn_ray.text.pretrained import KINDS, Pretrained, load_pretrained, model_folder

_FORMAT = "sdn_ray.sentence_encoder"
SENTENCE_CONFIG = "text_encoder.json"  # by which its folder is known
_BASE, _PROJECTION = "base", "projection.safetensors"


class _Config(TypedDict):
    format: str
    kind: str
    embedding_dim: PositiveInt
    files: dict[str, str]  # their hashes, by name


class SentenceEncoder(nn.Module):
    """A frozen pretrained text encoder, and a linear layer behind it where there is one.

    A caption longer than the base model's limit is cut there.

    Attributes:
        pretrained: a sentence-transformers model or a CLIP text tower.
        base: its network, float32, without gradients, always in eval mode.
        base_dim: width of its embeddings.
        projection: trained layer (base_dim → embedding_dim), or None; may be set.

    >>> encoder = open_sentence_encoder("sentence:all-MiniLM-L6-v2")
    >>> encoder.encode(["a yellow flower with a red center"]).shape
    (1, 384)
    """

    def __init__(self, pretrained: Pretrained, projection: nn.Linear | None = None) -> None:
        super().__init__()
        self.pretrained = pretrained
        # A checkpoint in half precision computes in float32 like any other.
        self.base = pretrained.network.float().eval().requires_grad_(False)
        self.projection = projection
        with torch.no_grad():
            self.base_dim = self._base_batch([""]).shape[1]

    @property
    def embedding_dim(self) -> int:
        """Width of what ``encode`` returns."""
        return self.base_dim if self.projection is None else self.projection.out_features

    def train(self, mode: bool = True) -> "SentenceEncoder":
        """Training mode for the projection alone: the base stays frozen, without dropout."""
        super().train(mode)
        self.base.eval()
        return self

    def base_embeddings(
        self,
        captions: Sequence[str],
        batch_size: int = 256,
        on_batch: Callable[[int, int], None] | None = None,
    ) -> np.ndarray:
        """Embeddings before the projection, float32 ``(captions, base_dim)``; see ``encode``."""
        return _each_once(self._base_batch, self.base_dim, captions, batch_size, on_batch)

    def encode(
        self,
        captions: Sequence[str],
        batch_size: int = 256,
        on_batch: Callable[[int, int], None] | None = None,
    ) -> np.ndarray:
        """Embeddings of captions, float32 ``(captions, embedding_dim)``.

        Each distinct caption is encoded once. ``on_batch(done, total)`` is called after each batch
        with counts of distinct captions.
        """
        return _each_once(self._batch, self.embedding_dim, captions, batch_size, on_batch)

    def _batch(self, captions: list[str]) -> Tensor:
        embeddings = self._base_batch(captions)
        return embeddings if self.projection is None else self.projection(embeddings)

    def _base_batch(self, captions: list[str]) -> Tensor:
        # Tokenizers take no lone surrogates, which text read with errors="surrogateescape" has.
        return self.pretrained.embed(
            [caption.encode("utf-8", "replace").decode("utf-8") for caption in captions]
        )

    def save(self, folder: str | Path) -> None:
        """Write a self-contained folder, all or nothing; an older one is replaced.

        It holds ``text_encoder.json``, ``base/`` (tokenizer, configuration, safetensors weights)
        and, where there is a projection, ``projection.safetensors``.
        """
        folder = Path(folder)
        with making_folder(folder) as partial:
            self.pretrained.save(str(partial / _BASE))
            if self.projection is not None:
                state = self.projection.state_dict()
                tensors = {name: value.cpu().contiguous() for name, value in state.items()}
                save_file(tensors, partial / _PROJECTION)
            config = {
                "format": _FORMAT,
                "kind": self.pretrained.kind,
                "embedding_dim": self.embedding_dim,
                "files": file_hashes(partial),
            }
            write_text(partial / SENTENCE_CONFIG, json.dumps(config, indent=1))
            older = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.older")
            if folder.exists():
                folder.rename(older)
        shutil.rmtree(older, ignore_errors=True)


def open_sentence_encoder(spec: str) -> SentenceEncoder:
    """Open a pretrained encoder by name or path; a name not yet on this machine is downloaded.

    Only safetensors weights are read, and no code that comes with a model is run.

    Args:
        spec: ``sentence:NAME_OR_PATH`` or ``clip:NAME_OR_PATH``.

    Raises:
        UserError: a bad spec, no such folder, a name that cannot be downloaded, a folder that
            holds no such model, or a package that is missing.
    """
    kind, _, name = spec.partition(":")
    if kind not in KINDS or not name:
        raise UserError(
            f"text encoder: found {spec!r}, expected sentence:NAME_OR_PATH or clip:NAME_OR_PATH"
        )
    return SentenceEncoder(load_pretrained(kind, model_folder(kind, name)))


def load_sentence_encoder(folder: str | Path) -> SentenceEncoder:
    """Read what ``SentenceEncoder.save`` wrote.

    Raises:
        UserError: naming the file that is missing, changed or damaged, or a missing package.
    """
    folder = Path(folder)
    path = folder / SENTENCE_CONFIG
    config = read_json(path, _Config, "a folder written by sdn_ray")
    kind, width, hashes = config["kind"], config["embedding_dim"], config["files"]
    if config["format"] != _FORMAT or kind not in KINDS:
        raise UserError(
            f"{path}: found format {config['format']!r} and kind {kind!r}, "
            f"expected {_FORMAT!r} and 'sentence' or 'clip'"
        )
    # Without its vocabulary a tokenizer may still load, empty, and embeddings would only be wrong.
    for name, expected in hashes.items():
        if not (folder / name).is_file():
            raise UserError(f"{folder / name}: not found, expected as part of a text encoder")
        if file_hash(folder / name) != expected:
            raise UserError(f"{folder / name}: damaged or changed since it was saved")
    encoder = SentenceEncoder(load_pretrained(kind, folder / _BASE))
    if _PROJECTION in hashes:
        encoder.projection = _load_projection(folder / _PROJECTION, encoder.base_dim)
    if encoder.embedding_dim != width:
        raise UserError(
            f"{path}: found embedding_dim {width}, expected {encoder.embedding_dim}, "
            "the width of the encoder beside it"
        )
    return encoder


def _each_once(
    embed: Callable[[list[str]], Tensor],
    width: int,
    captions: Sequence[str],
    batch_size: int,
    on_batch: Callable[[int, int], None] | None,
) -> np.ndarray:
    """Distinct captions through ``embed`` in batches of like length, and back in order."""
    distinct = sorted(set(captions), key=lambda caption: (len(caption), caption))
    embeddings = np.empty((len(distinct), width), dtype=np.float32)
    with torch.no_grad():
        for start in range(0, len(distinct), batch_size):
            batch = distinct[start : start + batch_size]
            done = start + len(batch)
            embeddings[start:done] = embed(batch).cpu().numpy()
            if on_batch is not None:
                on_batch(done, len(distinct))
    place = {caption: row for row, caption in enumerate(distinct)}
    return embeddings[[place[caption] for caption in captions]]


def _load_projection(path: Path, base_dim: int) -> nn.Linear:
    try:
        tensors = load_file(path)
        projection = nn.Linear(base_dim, len(tensors["weight"]))
        projection.load_state_dict(tensors)
    except (OSError, SafetensorError, KeyError, RuntimeError) as error:
        raise UserError(
            f"{path}: cannot be read as a projection ({error}); "
            f"expected weight (width, {base_dim}) and bias (width)"
        ) from error
    return projection
