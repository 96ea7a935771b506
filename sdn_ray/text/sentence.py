"""Caption → embedding: pretrained sentence encoders and CLIP's text tower, frozen.

``SentenceEncoder`` stands where ``CharCnnRnn`` can stand.
"""

import json
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sdn_ray.errors import UserError, one_line
from sdn_ray.files import file_hash, file_hashes, making_folder, write_text

Kind = Literal["sentence", "clip"]
KINDS = ("sentence", "clip")

_FORMAT = "sdn_ray.sentence_encoder"
SENTENCE_CONFIG = "text_encoder.json"  # by which its folder is known
_BASE, _PROJECTION = "base", "projection.safetensors"
# What a model needs; pickled weights and code are never fetched.
_FETCHED = ["*.json", "*.txt", "*.model", "*.safetensors"]


class SentenceEncoder(nn.Module):
    """A frozen pretrained text encoder, and a linear layer behind it where there is one.

    A caption longer than the base model's limit is cut there. CLIP's embeddings are its
    ``text_embeds``, not normalised; a sentence model's are what the model itself gives out.

    Attributes:
        kind: `sentence` (a sentence-transformers model) or `clip` (a CLIP text tower).
        base: the pretrained model, float32, without gradients, always in eval mode.
        base_dim: width of its embeddings.
        projection: trained layer (base_dim → embedding_dim), or None; may be set.

    >>> encoder = open_sentence_encoder("sentence:all-MiniLM-L6-v2")
    >>> encoder.encode(["a yellow flower with a red center"]).shape
    (1, 384)
    """

    def __init__(
        self,
        kind: Kind,
        base: nn.Module,
        tokenizer: Any = None,
        projection: nn.Linear | None = None,
    ) -> None:
        super().__init__()
        self.kind = kind
        # A checkpoint in half precision computes in float32 like any other.
        self.base = base.float().eval().requires_grad_(False)
        self.tokenizer = tokenizer  # of a CLIP tower; a sentence model holds its own
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
        """``(captions, base_dim)`` float32, on the base's device."""
        # Tokenizers take no lone surrogates, which text read with errors="surrogateescape" has.
        captions = [caption.encode("utf-8", "replace").decode("utf-8") for caption in captions]
        device = next(self.base.parameters()).device
        if self.kind == "sentence":
            # The dictionary says that a caption like "a.jpg" is text: some models also read images.
            return self.base.encode(
                [{"text": caption} for caption in captions],
                batch_size=len(captions),
                show_progress_bar=False,
                convert_to_tensor=True,
                device=str(device),
            ).float()
        tokens = self.tokenizer(
            captions,
            padding=True,
            truncation=True,
            max_length=self.base.config.max_position_embeddings,
            return_tensors="pt",
        ).to(device)
        return self.base(
            input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]
        ).text_embeds

    def save(self, folder: str | Path) -> None:
        """Write a self-contained folder, all or nothing; an older one is replaced.

        It holds ``text_encoder.json``, ``base/`` (tokenizer, configuration, safetensors weights)
        and, where there is a projection, ``projection.safetensors``.
        """
        folder = Path(folder)
        with making_folder(folder) as partial:
            base = str(partial / _BASE)
            with _quietly():
                if self.kind == "sentence":
                    self.base.save_pretrained(base, create_model_card=False)
                else:
                    self.base.save_pretrained(base)
                    self.tokenizer.save_pretrained(base)
            if self.projection is not None:
                state = self.projection.state_dict()
                tensors = {name: value.cpu().contiguous() for name, value in state.items()}
                save_file(tensors, partial / _PROJECTION)
            config = {
                "format": _FORMAT,
                "kind": self.kind,
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
    if kind not in ("sentence", "clip") or not name:
        raise UserError(
            f"text encoder: found {spec!r}, expected sentence:NAME_OR_PATH or clip:NAME_OR_PATH"
        )
    return SentenceEncoder(*_load_base(kind, _model_folder(kind, name)))


def load_sentence_encoder(folder: str | Path) -> SentenceEncoder:
    """Read what ``SentenceEncoder.save`` wrote.

    Raises:
        UserError: naming the file that is missing, changed or damaged, or a missing package.
    """
    folder = Path(folder)
    path = folder / SENTENCE_CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        kind, width, hashes = config["kind"], int(config["embedding_dim"]), dict(config["files"])
        known = config["format"] == _FORMAT and kind in ("sentence", "clip")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path}: cannot be read ({error!r}); expected a folder written by sdn_ray"
        ) from error
    if not known:
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
    encoder = SentenceEncoder(*_load_base(kind, folder / _BASE))
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


def _model_folder(kind: str, name: str) -> Path:
    """The folder of a model given by path or name; a name is downloaded where it is not here."""
    folder = Path(name).expanduser()
    if folder.exists():
        return folder
    if name.startswith(("/", ".", "~")) or name.count("/") > 1:
        raise UserError(f"text encoder {kind}:{name}: no such folder")
    with _needing_packages():
        from huggingface_hub import snapshot_download
    short = kind == "sentence" and "/" not in name
    repository = f"sentence-transformers/{name}" if short else name
    try:
        return Path(snapshot_download(repository, allow_patterns=_FETCHED))
    # The client raises its own, its transport's and the system's errors.
    except Exception as error:
        raise UserError(
            f"text encoder {kind}:{name}: no folder of this name, and a model of this name cannot "
            f"be downloaded ({one_line(error, 300)}); expected a folder, or a name on the Hugging "
            "Face hub and a network that reaches it"
        ) from error


def _load_base(kind: str, folder: Path) -> tuple[Kind, nn.Module, Any]:
    """Kind, model and (for CLIP) tokenizer of a local folder."""
    weights = [*folder.glob("*.safetensors"), *folder.glob("*/*.safetensors")]
    if not weights or not [*folder.glob("*.json")]:
        raise UserError(
            f"text encoder {kind}:{folder}: found no model; expected a folder with its "
            "configuration and its weights as *.safetensors (no other format is read)"
        )
    for pickled in folder.glob("*/pytorch_model.bin"):
        if not pickled.with_name("model.safetensors").exists():
            raise UserError(f"{pickled}: pickled weights are not read, expected model.safetensors")
    load = _load_sentence if kind == "sentence" else _load_clip
    try:
        with _needing_packages(), _quietly():
            return load(folder)
    except UserError:
        raise
    # The files say which classes are built from which settings: they can fail in any way.
    except Exception as error:
        raise UserError(
            f"text encoder {kind}:{folder}: cannot be read as such a model ({one_line(error, 300)})"
        ) from error


def _load_sentence(folder: Path) -> tuple[Kind, nn.Module, Any]:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(
        str(folder),
        device="cpu",
        trust_remote_code=False,
        local_files_only=True,
        model_kwargs={"use_safetensors": True},
    )
    return "sentence", model, None


def _load_clip(folder: Path) -> tuple[Kind, nn.Module, Any]:
    from transformers import AutoConfig, AutoTokenizer, CLIPTextModelWithProjection

    if not (folder / "tokenizer.json").exists() and not (folder / "vocab.json").exists():
        raise UserError(f"{folder}: found no tokenizer.json or vocab.json, expected one of them")
    local = {"local_files_only": True, "trust_remote_code": False}
    config = AutoConfig.from_pretrained(str(folder), **local)
    if config.model_type == "clip":
        # In a whole CLIP the width stands outside the text tower's own part.
        config.text_config.projection_dim = config.projection_dim
        config = config.text_config
    if config.model_type != "clip_text_model":
        raise UserError(f"{folder}: found a model of type {config.model_type!r}, expected 'clip'")
    model, report = CLIPTextModelWithProjection.from_pretrained(
        str(folder),
        config=config,
        local_files_only=True,
        use_safetensors=True,
        output_loading_info=True,
    )
    # Tensors that are not there would be drawn at random.
    missing = sorted(report["missing_keys"])
    if missing:
        raise UserError(
            f"text encoder clip:{folder}: its weights have no {missing[0]!r}, expected those of a "
            "CLIP text tower with its projection"
        )
    return "clip", model, AutoTokenizer.from_pretrained(str(folder), **local)


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


@contextmanager
def _needing_packages() -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise UserError(
            f"text encoder: a package is missing ({one_line(error, 300)}); sentence encoders and "
            'CLIP need: pip install "sdn_ray[sentence]"'
        ) from error


@contextmanager
def _quietly() -> Iterator[None]:
    """No progress bars and no tables of unused tensors while a model is read or written."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
