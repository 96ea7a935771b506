"""λ_l and λ_image: how much each term of a loss counts."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from sdn_ray.errors import UserError
from sdn_ray.models.plan import Plan
from sdn_ray.models.teacher import Teacher

PRESETS = ("paper", "mean", "balanced")
IMAGE = "image"


@dataclass(frozen=True)
class LayerWeights:
    """λ_l, from conv1_1 upwards, and λ_image; they multiply sums (eq. 1 to 5).

    They are numbers, and within a compiled graph scalar tensors, which are its inputs.
    """

    layers: tuple[float | Tensor, ...]
    image: float | Tensor


def check_factors(plan: Plan, factors: Mapping[str, float]) -> None:
    """Refuse factors that name no layer or group of the plan, or are negative or not finite.

    Raises:
        UserError: naming the key, what was found and what was expected.
    """
    groups = dict.fromkeys(c.group for c in plan.convolutions)
    known = [IMAGE, *groups, *plan.names]
    for name, factor in factors.items():
        if name not in known:
            raise UserError(
                f"distillation.weight_factors: found {name!r}, expected one of {', '.join(known)}"
            )
        if not 0 <= factor < float("inf"):
            raise UserError(
                f"distillation.weight_factors.{name}: found {factor}, expected a finite number >= 0"
            )


def layer_weights(
    preset: str,
    factors: Mapping[str, float],
    plan: Plan,
    image_size: int,
    feature_sizes: Tensor | None = None,
) -> LayerWeights:
    """The weights of a preset, each multiplied by its factor.

    Args:
        preset: ``paper`` (all 1), ``mean`` (1 / elements: each term a mean absolute error) or
            ``balanced`` (the mean absolute error over the layer's mean |φ_l^D(I_r)|, the sum over
            layers divided by their number; in the spirit of Chen & Koltun 2017).
        factors: multipliers by layer (``conv3_2``), by group (``conv3``) or ``image``; a layer's
            own factor and its group's multiply. With ``paper`` they are the λ themselves.
        plan: the teacher's plan.
        image_size: height and width of the images.
        feature_sizes: (layers,) mean |φ_l^D(I_r)|, for ``balanced`` only; see
            `mean_feature_sizes`.

    Raises:
        UserError: when a factor names no layer or group.
        ValueError: when ``balanced`` is given no feature sizes.
    """
    check_factors(plan, factors)
    elements = torch.tensor(
        [c * h * w for c, h, w in plan.feature_shapes(image_size)], dtype=torch.float64
    )
    image = 1.0
    if preset == "paper":
        layers = torch.ones_like(elements)
    else:
        layers = 1 / elements
        image = 1 / (3 * image_size**2)
    if preset == "balanced":
        if feature_sizes is None:
            raise ValueError("balanced layer weights are made of feature sizes, found none")
        # A layer that is silent on the whole sample would get an infinite weight.
        layers = layers / (feature_sizes.double().clamp_min(1e-8) * len(layers))
    own = [factors.get(c.name, 1.0) * factors.get(c.group, 1.0) for c in plan.convolutions]
    return LayerWeights(
        tuple((layers * torch.tensor(own, dtype=torch.float64)).tolist()),
        image * factors.get(IMAGE, 1.0),
    )


@torch.no_grad()
def mean_feature_sizes(teacher: Teacher, images: Tensor, batch_size: int = 32) -> Tensor:
    """Mean |φ_l^D(I_r)| of every layer over normalised images (n, 3, height, width): (layers,)."""
    total = torch.zeros(len(teacher.plan.convolutions), dtype=torch.float64)
    for batch in images.split(batch_size):
        means = [feature.abs().mean(dtype=torch.float64) for feature in teacher(batch)]
        total += torch.stack(means).cpu() * len(batch)
    return total / len(images)
