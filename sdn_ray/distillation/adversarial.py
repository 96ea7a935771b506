"""The losses of SDN's third stage, which the paper does not have.

Hinge losses (Lim and Ye, "Geometric GAN", 2017) on the logits of heads that see the teacher's
features φ^D. t is the picture's caption, t̃ that of a picture of another class, and every mean is
over pictures and the places of all heads.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from sdn_ray.models.feature_heads import deviation_in_groups

TERMS = ("heads_real", "heads_wrong", "heads_fake", "generator", "variety")
SCORES = ("score_real", "score_wrong", "score_fake")


@dataclass(frozen=True)
class HeadsLoss:
    """What the heads minimise."""

    total: Tensor  # scalar
    terms: Tensor  # (3,) real, wrong, fake; weighted, no gradient


def heads_loss(real: Tensor, wrong: Tensor, fake: Tensor, wrong_weight: float) -> HeadsLoss:
    """[1 − D(I_r, t)]₊ + w [1 + D(I_r, t̃)]₊ + (1 − w) [1 + D(I_s, t)]₊.

    Args:
        real: logits of real pictures with their captions, (batch, places).
        wrong: of the same pictures with wrong captions.
        fake: of drawn pictures with the captions they were drawn for.
        wrong_weight: w, the share of wrong captions in what is to be refused.
    """
    terms = torch.stack(
        [
            functional.relu(1 - real).mean(),
            wrong_weight * functional.relu(1 + wrong).mean(),
            (1 - wrong_weight) * functional.relu(1 + fake).mean(),
        ]
    )
    return HeadsLoss(terms.sum(), terms.detach())


def drawn_loss(fake: Tensor) -> Tensor:
    """−D(I_s, t), what the generator minimises: logits (batch, places) to a scalar."""
    return -fake.mean()


def channel_deviations(features: Sequence[Tensor]) -> Tensor:
    """How much pictures differ from each other in each channel, at the same place.

    Args:
        features: level by level, (batch, channels, height, width).

    Returns:
        The means of `deviation_in_groups` over groups and places, (channels of all levels,).
    """
    return torch.cat([deviation_in_groups(maps).mean((0, 2, 3)) for maps in features])


def variety_loss(real: Tensor, fake: Tensor, channels: Sequence[int]) -> Tensor:
    """How much less drawn pictures differ from each other than photographs do.

    A layout that comes back in every picture makes features differ less at their places than those
    of photographs do. Of each level Σ_c [σ_c(I_r) − σ_c(I_s)]₊ / Σ_c σ_c(I_r), and their mean: 1
    where all pictures are one, 0 where each channel varies at least as much as that of photographs.

    Args:
        real: `channel_deviations` of real pictures, of the whole batch.
        fake: of drawn ones.
        channels: how many each level has.
    """
    levels = zip(real.split(list(channels)), fake.split(list(channels)), strict=True)
    return torch.stack([functional.relu(r - s).sum() / r.sum() for r, s in levels]).mean()
