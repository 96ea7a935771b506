"""The images' side of a trained text encoder: from fixed features to the captions' space."""

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from pydantic import ConfigDict, Field, with_config
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn
from typing_extensions import TypedDict

from sdn_ray.errors import UserError
from sdn_ray.files import parse_json, replacing

IMAGE_ENCODER_FILE = "image_side.safetensors"
_LARGEST_IMAGE = 4096


@with_config(ConfigDict(extra="allow"))
class FeatureSource(TypedDict):
    """What makes the features of images, and which classes an encoder was trained on."""

    config: dict[str, dict[str, str]]  # the name of its data set
    split: dict[str, list[int]]
    features: str
    teacher: str | None
    plan: str | None
    image_size: Annotated[int, Field(gt=0, le=_LARGEST_IMAGE)]


class Standardiser:
    """(x − mean) / deviation by the statistics of the training features.

    Args:
        mean: of each feature, (width,) float64.
        scale: 1 / deviation, 0 where a feature is constant.
    """

    def __init__(self, mean: np.ndarray, scale: np.ndarray) -> None:
        self.mean, self.scale = mean, scale

    @classmethod
    def of(cls, features: np.ndarray) -> "Standardiser":
        """By the statistics of (images, width) features."""
        mean = features.mean(axis=0, dtype=np.float64)
        deviation = features.std(axis=0, dtype=np.float64)
        # A constant column says nothing; its deviation is rounding noise that must not be blown up.
        constant = deviation <= 1e-6 * np.abs(mean)
        return cls(mean, np.where(constant, 0, 1 / np.where(constant, 1, deviation)))

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """(images, width) → the same, float32."""
        return ((features - self.mean) * self.scale).astype(np.float32)


class ImageEncoder:
    """Standardised features, mapped by a linear layer to the width of the embeddings.

    Where they have that width already, there is no layer.

    Args:
        standardise: by the training images' features.
        project: (images, width) to (images, embedding_dim).
    """

    def __init__(self, standardise: Standardiser, project: nn.Module) -> None:
        self.standardise, self.project = standardise, project

    def dim(self, width: int) -> int:
        """The width of what features of so many numbers are mapped to."""
        return self.project.out_features if isinstance(self.project, nn.Linear) else width

    @torch.no_grad()
    def __call__(self, features: np.ndarray) -> np.ndarray:
        """(images, width) float32 → (images, embedding_dim) float32."""
        parameter = next(self.project.parameters(), torch.empty(0))
        standard = torch.from_numpy(self.standardise(features)).to(parameter.device)
        return self.project(standard).cpu().numpy()

    def save(self, folder: Path, source: FeatureSource) -> None:
        """Write it beside its text encoder, with what makes the features."""
        tensors = {
            f"project.{k}": v.cpu().contiguous() for k, v in self.project.state_dict().items()
        }
        tensors["mean"] = torch.from_numpy(self.standardise.mean)
        tensors["scale"] = torch.from_numpy(self.standardise.scale)
        with replacing(folder / IMAGE_ENCODER_FILE) as partial:
            save_file(tensors, partial, metadata={"source": json.dumps(source)})


def load_image_encoder(folder: Path) -> tuple[ImageEncoder, FeatureSource]:
    """What `ImageEncoder.save` wrote, and the source of its features.

    Raises:
        UserError: when the file is missing or damaged.
    """
    path = folder / IMAGE_ENCODER_FILE
    try:
        with safe_open(path, framework="pt") as file:
            source = (file.metadata() or {})["source"]
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        standardise = Standardiser(tensors.pop("mean").numpy(), tensors.pop("scale").numpy())
        project: nn.Module = nn.Identity()
        if tensors:
            embedding_dim, width = tensors["project.weight"].shape
            project = nn.Linear(width, embedding_dim)
            project.load_state_dict({k.removeprefix("project."): v for k, v in tensors.items()})
        own = standardise.mean.shape
        if len(own) != 1 or standardise.scale.shape != own or (tensors and width != own[0]):
            raise ValueError(f"mean {own} and scale {standardise.scale.shape} do not fit")
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(
            f"{path}: cannot be read ({error}); expected the `text_encoder` folder of a run of "
            "sdn_ray.train_text"
        ) from error
    known = parse_json(source, FeatureSource, f"{path}: its metadata", "what makes the features")
    return ImageEncoder(standardise, project), known
