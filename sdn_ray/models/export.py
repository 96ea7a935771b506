"""A trained generator as a folder: all that `sdn_ray.generate` reads."""

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from sdn_ray.errors import UserError
from sdn_ray.files import making_folder, write_text
from sdn_ray.models.drawing import draw_samples
from sdn_ray.models.generator import Generator
from sdn_ray.models.plan import Plan
from sdn_ray.text.encoders import (
    TextEncoder,
    copied_text_encoder,
    copy_text_encoder,
    read_text_encoder,
)

CONFIG, GENERATOR = "config.json", "generator.safetensors"


@dataclass(frozen=True)
class Model:
    """What a model folder holds."""

    generator: Generator  # in eval mode
    text_encoder: TextEncoder | None  # None: trained on precomputed embeddings
    config: dict[str, Any]

    @property
    def origin(self) -> dict[str, Any]:
        """What the run was: configuration, class split, scores, MLflow run."""
        return self.config.get("origin", {})

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

    def embed(self, captions: Sequence[str]) -> np.ndarray:
        """The captions' embeddings, (captions, embedding_dim) float32."""
        return self.reader().encode(captions)

    def draw(self, captions: Sequence[str]) -> Iterator[np.ndarray]:
        """All samples of each caption, in batches (batch, samples, height, width, 3) uint8."""
        return draw_samples(self.generator, self.embed(captions))


def export_model(
    folder: Path, generator: Generator, text_encoder: Path | None, origin: dict[str, Any]
) -> None:
    """Write a model folder, all or nothing; an older one of the same name is replaced.

    Args:
        folder: to make.
        generator: trained.
        text_encoder: file or folder of the encoder whose embeddings it was trained on, if any.
        origin: what the run was: configuration, class split, scores.
    """
    config = {
        "plan": str(generator.plan),
        "embedding_dim": generator.embedding_dim,
        "image_size": generator.image_size,
        "fc_width": generator.fc_width,
        "samples": generator.samples,
        "batch_norm": generator.batch_norm,
    }
    has_encoder = text_encoder is not None
    with making_folder(folder) as partial:
        state = {name: t.detach().cpu().contiguous() for name, t in generator.state_dict().items()}
        save_file(state, partial / GENERATOR)
        if text_encoder is not None:
            copy_text_encoder(text_encoder, partial)
        write_text(
            partial / CONFIG,
            json.dumps(
                {"generator": config, "text_encoder": has_encoder, "origin": origin}, indent=1
            ),
        )
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
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        settings = dict(config["generator"])
        generator = Generator(Plan.parse(settings.pop("plan")), **settings)
        has_encoder = bool(config["text_encoder"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, UserError) as error:
        inner = folder / "model"
        hint = f", which is {inner}" if (inner / CONFIG).exists() else ""
        raise UserError(
            f"--model: {path} cannot be read ({error}); expected the `model` folder of a "
            f"finished run{hint}"
        ) from error
    path = folder / GENERATOR
    try:
        generator.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise UserError(
            f"--model: {path} cannot be read as this model's generator ({error})"
        ) from error
    text = read_text_encoder(copied_text_encoder(folder)) if has_encoder else None
    return Model(generator.eval(), text, config)
