"""Pretrained sentence encoders and CLIP's text tower: found, read, run and written.

Only safetensors weights are read, and no code that comes with a model is run.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, cast

import torch
from torch import Tensor, nn

from sdn_ray.errors import UserError, one_line

if TYPE_CHECKING:  # they take seconds to import, and belong to the extra `sentence`
    from sentence_transformers import SentenceTransformer
    from transformers import CLIPTextModelWithProjection, PreTrainedTokenizerBase

Kind = Literal["sentence", "clip"]
KINDS = ("sentence", "clip")

# What a model needs; pickled weights and code are never fetched.
_FETCHED = ["*.json", "*.txt", "*.model", "*.safetensors"]


class Pretrained(Protocol):
    """A pretrained text encoder as ``SentenceEncoder`` sees it."""

    kind: ClassVar[Kind]

    @property
    def network(self) -> nn.Module:
        """All of its weights."""

    def embed(self, captions: list[str]) -> Tensor:
        """``(captions, width)`` float32, on the network's device."""

    def save(self, folder: str) -> None:
        """Write what its library needs to open it again."""


@dataclass(frozen=True)
class SentenceModel:
    """A sentence-transformers model, which holds its own tokenizer."""

    network: "SentenceTransformer"
    kind: ClassVar[Kind] = "sentence"

    def embed(self, captions: list[str]) -> Tensor:
        """What the model itself gives out."""
        return self.network.encode(
            # The dictionary says that a caption like "a.jpg" is text: some models also read images.
            [{"text": caption} for caption in captions],
            batch_size=len(captions),
            show_progress_bar=False,
            convert_to_tensor=True,
            device=str(_device(self.network)),
        ).float()

    def save(self, folder: str) -> None:
        """Write it as sentence-transformers does."""
        with _quietly():
            self.network.save_pretrained(folder, create_model_card=False)


@dataclass(frozen=True)
class ClipModel:
    """A CLIP text tower and its tokenizer."""

    network: "CLIPTextModelWithProjection"
    tokenizer: "PreTrainedTokenizerBase"
    kind: ClassVar[Kind] = "clip"

    def embed(self, captions: list[str]) -> Tensor:
        """CLIP's ``text_embeds``, not normalised."""
        tokens = self.tokenizer(
            captions,
            padding=True,
            truncation=True,
            max_length=self.network.config.max_position_embeddings,
            return_tensors="pt",
        ).to(_device(self.network))
        return self.network(
            input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]
        ).text_embeds

    def save(self, folder: str) -> None:
        """Write tower and tokenizer as transformers does."""
        with _quietly():
            self.network.save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)


def _device(network: nn.Module) -> torch.device:
    return next(network.parameters()).device


def model_folder(kind: str, name: str) -> Path:
    """The folder of a model given by path or name; a name is downloaded where it is not here.

    Raises:
        UserError: no such folder, a name that cannot be downloaded, or a package that is missing.
    """
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


def load_pretrained(kind: str, folder: Path) -> Pretrained:
    """The model of a local folder.

    Raises:
        UserError: a folder that holds no such model, or a package that is missing.
    """
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


def _load_sentence(folder: Path) -> SentenceModel:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(
        str(folder),
        device="cpu",
        trust_remote_code=False,
        local_files_only=True,
        model_kwargs={"use_safetensors": True},
    )
    return SentenceModel(model)


def _load_clip(folder: Path) -> ClipModel:
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
    loaded = CLIPTextModelWithProjection.from_pretrained(
        str(folder),
        config=config,
        local_files_only=True,
        use_safetensors=True,
        output_loading_info=True,
    )
    # Which is annotated as if it gave the model alone, whatever is asked for.
    model, report = cast("tuple[CLIPTextModelWithProjection, dict[str, Any]]", loaded)
    # Tensors that are not there would be drawn at random.
    missing = sorted(report["missing_keys"])
    if missing:
        raise UserError(
            f"text encoder clip:{folder}: its weights have no {missing[0]!r}, expected those of a "
            "CLIP text tower with its projection"
        )
    return ClipModel(model, AutoTokenizer.from_pretrained(str(folder), **local))


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
