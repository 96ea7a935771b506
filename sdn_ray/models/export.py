"""A trained generator as a folder: all that `sdn_ray.generate` reads."""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NotRequired

import numpy as np
import torch
from pydantic import ConfigDict, with_config
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from typing_extensions import TypedDict

from sdn_ray.errors import UserError, one_line
from sdn_ray.files import making_folder, read_json, write_text
from sdn_ray.models.drawing import draw_samples
from sdn_ray.models.image_generators import SDN, ImageGenerator, generator_of, method_of
from sdn_ray.models.stackgan import StackGanGenerator
from sdn_ray.text.encoders import (
    TextEncoder,
    copied_text_encoder,
    copy_text_encoder,
    read_text_encoder,
)

CONFIG, GENERATOR = "config.json", "generator.safetensors"
_OPEN = with_config(ConfigDict(extra="allow"))


@_OPEN
class OriginDataset(TypedDict, total=False):
    """The data set of a model's configuration, as far as scoring looks at it."""

    name: str | None


@_OPEN
class OriginConfig(TypedDict, total=False):
    """A model's configuration, as far as scoring looks at it."""

    dataset: OriginDataset


@_OPEN
class Tracked(TypedDict):
    """A `TrackedRun` as JSON has it."""

    uri: str
    experiment_id: str
    run_id: str


@_OPEN
class Origin(TypedDict, total=False):
    """What the run of a model was; nothing of it need be known."""

    config: OriginConfig
    split: dict[str, list[int]] | None
    split_by: str  # class, or image, where the split is not zero-shot; of earlier versions: class
    test_scores: dict[str, float]
    tracked: Tracked | None


class _ModelConfig(TypedDict):
    method: NotRequired[str]  # of models of earlier versions: sdn
    generator: dict[str, Any]  # its settings
    text_encoder: bool
    origin: NotRequired[Origin]


@dataclass(frozen=True)
class Model:
    """What a model folder holds."""

    generator: ImageGenerator  # in eval mode
    text_encoder: TextEncoder | None  # None: trained on precomputed embeddings
    origin: Origin

    def to(self, device: str) -> "Model":
        """The same model, its networks moved to a device."""
        self.generator.to(device).to(memory_format=torch.channels_last)
        if self.text_encoder is not None:
            self.text_encoder.to(device)
        return self

    def reader(self) -> TextEncoder:
        """The text encoder.

        Raises:
            UserError: when there is none, since the model was trained on precomputed embeddings.
        """
        if self.text_encoder is None:
            raise UserError(
                "--model: this model was trained on precomputed embeddings and has no text "
                "encoder; expected a model trained with text.weights"
            )
        return self.text_encoder

    def draw_first_stage(self) -> None:
        """Have StackGAN draw the images of its first stage, enlarged, from now on.

        Raises:
            UserError: when the model is no StackGAN of two stages.
        """
        if not isinstance(self.generator, StackGanGenerator) or not self.generator.stage_two:
            raise UserError(
                f"--first_stage: found true with a model of the method "
                f"{method_of(self.generator)}, expected a stackgan model of two stages"
            )
        self.generator.draws_first = True

    def embed(self, captions: Sequence[str]) -> np.ndarray:
        """The captions' embeddings, (captions, embedding_dim) float32."""
        return self.reader().encode(captions)

    @torch.no_grad()
    def read(self, captions: Sequence[str]) -> np.ndarray:
        """What the generator's first layer is given: embeddings, whitened where they are."""
        embeddings = torch.from_numpy(self.embed(captions))
        device = next(self.generator.parameters()).device
        return self.generator.whitening(embeddings.to(device)).cpu().numpy()

    def draw(
        self,
        captions: Sequence[str],
        *,
        samples: int | None = None,
        seed: int = 0,
        indices: np.ndarray | None = None,
        locations: np.ndarray | None = None,
    ) -> Iterator[np.ndarray]:
        """Samples of each caption, in batches (batch, samples, height, width, 3) uint8.

        Arguments as in `draw_samples`.
        """
        embeddings = self.embed(captions)
        return draw_samples(
            self.generator,
            embeddings,
            samples=samples,
            seed=seed,
            indices=indices,
            locations=locations,
        )


def export_model(
    folder: Path, generator: ImageGenerator, text_encoder: Path | None, origin: dict[str, Any]
) -> None:
    """Write a model folder, all or nothing; an older one of the same name is replaced.

    Args:
        folder: to make.
        generator: trained.
        text_encoder: file or folder of the encoder whose embeddings it was trained on, if any.
        origin: what the run was: configuration, class split, scores.
    """
    config = {
        "method": method_of(generator),
        "generator": generator.settings,
        "text_encoder": text_encoder is not None,
        "origin": origin,
    }
    with making_folder(folder) as partial:
        state = {name: t.detach().cpu().contiguous() for name, t in generator.state_dict().items()}
        save_file(state, partial / GENERATOR)
        if text_encoder is not None:
            copy_text_encoder(text_encoder, partial)
        write_text(partial / CONFIG, json.dumps(config, indent=1))
        older = folder.with_name(f".{folder.name}.older")
        shutil.rmtree(older, ignore_errors=True)
        if folder.exists():
            folder.rename(older)
    shutil.rmtree(older, ignore_errors=True)


def load_model(folder: Path) -> Model:
    """Read a model folder.

    Raises:
        UserError: naming the file that is missing or damaged.
    """
    path = folder / CONFIG
    config = _read_config(path)
    method, settings = config.get("method", SDN), config["generator"]
    try:
        with torch.device("meta"):  # false numbers in a damaged file cost no memory
            expected_weights = generator_of(method, settings).state_dict()
    except (ArithmeticError, RuntimeError, TypeError, ValueError, UserError) as error:
        raise UserError(f"--model: {path}: {one_line(error, 400)}") from error
    path = folder / GENERATOR
    try:
        weights = load_file(path)
        shapes = {name: weight.shape for name, weight in weights.items()}
        if shapes != {name: weight.shape for name, weight in expected_weights.items()}:
            raise ValueError(_first_difference(expected_weights, weights))
        generator = generator_of(method, settings)
        generator.load_state_dict(weights)
    except (OSError, SafetensorError, ValueError) as error:
        raise UserError(
            f"--model: {path} cannot be read as this model's generator ({one_line(error, 400)})"
        ) from error
    text = read_text_encoder(copied_text_encoder(folder)) if config["text_encoder"] else None
    if text is not None and text.embedding_dim != generator.embedding_dim:
        raise UserError(
            f"--model: the text encoder in {folder} gives embeddings of {text.embedding_dim}, "
            f"expected the generator's {generator.embedding_dim}"
        )
    return Model(generator.eval(), text, config.get("origin", {}))


def read_origin(folder: Path) -> Origin:
    """What the run of a model was; its weights are not read.

    Raises:
        UserError: the folder's configuration is missing or damaged.
    """
    return _read_config(folder / CONFIG).get("origin", {})


def _read_config(path: Path) -> _ModelConfig:
    inner = path.parent / "model"
    expected = "the `model` folder of a finished run"
    if (inner / CONFIG).exists():
        expected += f", which is {inner}"
    try:
        return read_json(path, _ModelConfig, expected)
    except UserError as error:
        raise UserError(f"--model: {error}") from error


def _first_difference(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str:
    """The first weight that is missing, too many, or of another shape."""
    for name in sorted(expected.keys() | found.keys()):
        wanted, own = (
            tuple(weights[name].shape) if name in weights else "nothing"
            for weights in (expected, found)
        )
        if own != wanted:
            return f"{name}: found {own}, expected {wanted}"
    return "no difference"
