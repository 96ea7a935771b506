"""The images' side of a trained text encoder: from fixed features to the captions' space."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, NotRequired

import numpy as np
import torch
from pydantic import ConfigDict, Field, with_config
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from threadpoolctl import threadpool_limits
from torch import nn
from typing_extensions import TypedDict

from sdn_ray.errors import UserError
from sdn_ray.files import parse_json, replacing

IMAGE_ENCODER_FILE = "image_side.safetensors"
_LARGEST_IMAGE = 4096
_MOST_COMPONENTS = 256
_FLOOR = 1e-3  # of the largest component's deviation


@with_config(ConfigDict(extra="allow"))
class FeatureSource(TypedDict):
    """What makes the features of images, and which classes an encoder was trained on."""

    config: dict[str, dict[str, str]]  # the name of its data set
    split: dict[str, list[int]]
    features: str
    teacher: str | None
    plan: str | None
    image_size: Annotated[int, Field(gt=0, le=_LARGEST_IMAGE)]
    layout: NotRequired[bool]  # encoders of earlier versions were trained without


@contextmanager
def one_thread() -> Iterator[None]:
    """Linear algebra on one thread: several add up in an order that depends on their number.

    What is found so is the same, bit for bit, in every process of a machine.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):  # NumPy's own
            yield
    finally:
        torch.set_num_threads(before)


class Standardiser:
    """(x − mean) / deviation by the statistics of the training features; whitened where asked.

    Args:
        mean: of each feature, (width,) float64.
        scale: 1 / deviation, 0 where a feature is constant.
        components: (width, kept) float32, the principal components over their deviations, to
            whiten what is standardised; None leaves it standardised.
    """

    def __init__(
        self, mean: np.ndarray, scale: np.ndarray, components: np.ndarray | None = None
    ) -> None:
        self.mean, self.scale, self.components = mean, scale, components

    @classmethod
    def of(cls, features: np.ndarray) -> "Standardiser":
        """By the statistics of (images, width) features."""
        mean = features.mean(axis=0, dtype=np.float64)
        deviation = features.std(axis=0, dtype=np.float64)
        # A constant column says nothing; its deviation is rounding noise that must not be blown up.
        constant = deviation <= 1e-6 * np.abs(mean)
        return cls(mean, np.where(constant, 0, 1 / np.where(constant, 1, deviation)))

    @classmethod
    def whitening(cls, features: np.ndarray) -> "Standardiser":
        """By the statistics of (images, width) features, whitened to at most 256 components.

        Unwhitened, a few large components (colours) drown the rest (counts, shapes).
        """
        plain = cls.of(features)
        standard = torch.from_numpy(plain(features))
        kept = min(_MOST_COMPONENTS, len(standard) - 1, standard.shape[1])
        with one_thread(), torch.random.fork_rng(devices=()):
            torch.manual_seed(0)  # the solver begins with random directions
            _, sizes, directions = torch.pca_lowrank(standard, q=kept, center=False, niter=3)
        deviations = sizes / len(standard) ** 0.5
        # What hardly varies is rounding and noise.
        components = directions / deviations.clamp(min=_FLOOR * float(deviations[0]))
        return cls(plain.mean, plain.scale, components.numpy())

    @property
    def dim(self) -> int:
        """Width of what comes out."""
        return len(self.mean) if self.components is None else self.components.shape[1]

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """(images, width) → (images, dim) float32."""
        standard = ((features - self.mean) * self.scale).astype(np.float32)
        if self.components is None:
            return standard
        with one_thread():
            return standard @ self.components


class ImageEncoder:
    """Standardised features, mapped by a linear layer to the width of the embeddings.

    Where they have that width already, there is no layer.

    Args:
        standardise: by the training images' features.
        project: (images, width) to (images, embedding_dim).
    """

    def __init__(self, standardise: Standardiser, project: nn.Module) -> None:
        self.standardise, self.project = standardise, project

    @property
    def dim(self) -> int:
        """The width of what features are mapped to."""
        if isinstance(self.project, nn.Linear):
            return self.project.out_features
        return self.standardise.dim

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
        if self.standardise.components is not None:
            tensors["components"] = torch.from_numpy(self.standardise.components).contiguous()
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
        components = tensors.pop("components").numpy() if "components" in tensors else None
        standardise = Standardiser(
            tensors.pop("mean").numpy(), tensors.pop("scale").numpy(), components
        )
        project: nn.Module = nn.Identity()
        if tensors:
            embedding_dim, width = tensors["project.weight"].shape
            project = nn.Linear(width, embedding_dim)
            project.load_state_dict({k.removeprefix("project."): v for k, v in tensors.items()})
        own = standardise.mean.shape
        fits = components is None or (components.ndim == 2 and len(components) == own[0])
        if len(own) != 1 or standardise.scale.shape != own or not fits:
            raise ValueError(f"mean {own} and scale {standardise.scale.shape} do not fit")
        if tensors and width != standardise.dim:
            raise ValueError(f"a layer for {width} numbers does not fit {standardise.dim}")
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(
            f"{path}: cannot be read ({error}); expected the `text_encoder` folder of a run of "
            "sdn_ray.train_text"
        ) from error
    known = parse_json(source, FeatureSource, f"{path}: its metadata", "what makes the features")
    return ImageEncoder(standardise, project), known
