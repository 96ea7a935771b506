"""The losses of SDN's third stage, which the paper does not have.

Hinge losses (Lim and Ye, "Geometric GAN", 2017) on the logits of heads that see the teacher's
features φ^D. t is the picture's caption, t̃ that of a picture of another class, and every mean is
over pictures and the places of all heads.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

TERMS = ("heads_real", "heads_wrong", "heads_fake", "generator")
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
