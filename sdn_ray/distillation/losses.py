"""Equations 1 to 5 of the paper.

Every distance is ‖·‖₁, the sum of absolute differences, kept per example; a loss is its mean over
the batch. φ^D(I_r) has shape (batch, channels, height, width), images (batch, samples, 3, height,
width). In diverse synthesis the minimum over the samples p is taken per example.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from sdn_ray.distillation.layer_weights import LayerWeights
from sdn_ray.models.generator import GeneratorOutput
from sdn_ray.models.teacher import Teacher

Features = Sequence[Tensor]


@dataclass(frozen=True)
class Loss:
    """A loss and what it is made of."""

    total: Tensor  # scalar
    terms: Tensor  # (len(term_names),) weighted batch means that add up to the total; no gradient


def l1(a: Tensor, b: Tensor, example_dims: int = 1) -> Tensor:
    """‖a − b‖₁ over all but the leading ``example_dims`` dimensions, summed in float32."""
    distances = functional.l1_loss(a.expand_as(b), b, reduction="none")
    return distances.sum(tuple(range(example_dims, b.dim())), dtype=torch.float32)


def stage_one_features(real: Features, output: GeneratorOutput, weights: LayerWeights) -> Tensor:
    """λ_l ‖φ_l^D(I_r) − φ_{l+1}^G‖₁ of eq. 1 and 4: (batch, layers)."""
    pairs = zip(weights.layers, real, output.features, strict=True)
    return torch.stack([weight * l1(d, g) for weight, d, g in pairs], dim=1)


def stage_two_features(
    real: Features, output: GeneratorOutput, weights: LayerWeights, teacher: Teacher
) -> Tensor:
    """λ_l ‖φ_l^D(I_r) − φ_l^D(I_s^p)‖₁ of eq. 3 and 5: (batch, samples, layers)."""
    batch, samples = output.images.shape[:2]
    terms = []
    for weight, d, s in zip(
        weights.layers, real, teacher(output.images.flatten(0, 1)), strict=True
    ):
        terms.append(weight * l1(d.unsqueeze(1), s.unflatten(0, (batch, samples)), 2))
    return torch.stack(terms, dim=2)


def image_distance(images: Tensor, output: GeneratorOutput, weights: LayerWeights) -> Tensor:
    """λ_image ‖I_r − I_s^p‖₁ of eq. 2: (batch, samples)."""
    return weights.image * l1(images.unsqueeze(1), output.images.float(), 2)


def _loss(*terms: Tensor) -> Loss:
    """The batch means of terms, each (batch,) or (batch, layers), and their sum."""
    means = torch.cat(
        [term.flatten(1).mean(0) if term.dim() > 1 else term.mean()[None] for term in terms]
    )
    return Loss(means.sum(), means.detach())


def _winner(values: Tensor, scores: Tensor) -> Tensor:
    """For every example the entry of ``values`` (batch, samples, …) whose score is smallest."""
    winner = scores.argmin(1)
    return values[torch.arange(len(values), device=values.device), winner]


def image_loss(
    images: Tensor, output: GeneratorOutput, weights: LayerWeights, teacher: Teacher
) -> Loss:
    """Eq. 2: λ_image ‖I_r − I_s‖₁."""
    distance = image_distance(images, output, weights)
    return _loss(_winner(distance, distance))


def stage_one_loss(
    images: Tensor, output: GeneratorOutput, weights: LayerWeights, teacher: Teacher
) -> Loss:
    """Eq. 1, and with several samples eq. 4: the minimum over p is of the image term alone."""
    with torch.no_grad():
        real = teacher(images)
    distance = image_distance(images, output, weights)
    return _loss(stage_one_features(real, output, weights), _winner(distance, distance))


def _best_stage_two(
    images: Tensor, real: Features, output: GeneratorOutput, weights: LayerWeights, teacher: Teacher
) -> tuple[Tensor, Tensor]:
    """The terms of the sample with the smallest bracket of eq. 5: (batch, layers) and (batch,)."""
    features = stage_two_features(real, output, weights, teacher)
    distance = image_distance(images, output, weights)
    bracket = features.sum(2) + distance
    return _winner(features, bracket), _winner(distance, bracket)


def stage_two_loss(
    images: Tensor, output: GeneratorOutput, weights: LayerWeights, teacher: Teacher
) -> Loss:
    """Eq. 3, and with several samples eq. 5: the minimum over p is of the whole bracket."""
    with torch.no_grad():
        real = teacher(images)
    return _loss(*_best_stage_two(images, real, output, weights, teacher))


def joint_loss(
    images: Tensor, output: GeneratorOutput, weights: LayerWeights, teacher: Teacher
) -> Loss:
    """Table 3's "Stage-I & Stage-II loss": eq. 1 + eq. 3 with one image term."""
    with torch.no_grad():
        real = teacher(images)
    stage_one = stage_one_features(real, output, weights)
    return _loss(stage_one, *_best_stage_two(images, real, output, weights, teacher))


LossFunction = Callable[[Tensor, GeneratorOutput, LayerWeights, Teacher], Loss]

LOSSES: dict[str, LossFunction] = {
    "image": image_loss,
    "stage_one": stage_one_loss,
    "stage_two": stage_two_loss,
    "joint": joint_loss,
}


def term_names(loss: str, layers: Sequence[str]) -> tuple[str, ...]:
    """The names of `Loss.terms` of a loss, for a teacher with these convolutions."""
    features = {
        "image": (),
        "stage_one": tuple(layers),
        "stage_two": tuple(layers),
        "joint": (*(f"stage_one/{n}" for n in layers), *(f"stage_two/{n}" for n in layers)),
    }[loss]
    return (*features, "image")
