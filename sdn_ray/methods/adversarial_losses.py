"""The losses of GAN-INT-CLS (Reed et al., ICML 2016, sections 4.2 and 4.3; the authors' code),
which StackGAN (Zhang et al., ICCV 2017, section 3; the authors' code) has, too.

ℓ(s, y) is the binary cross-entropy of logits s with the label y, a mean over the batch, in float32
whatever the precision of the networks. (x, t) is an image and its caption, x̃ an image of another
class, G(z, t) a drawn one.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from sdn_ray.errors import UserError


@dataclass(frozen=True)
class DiscriminatorLoss:
    """L_D and what it is made of."""

    total: Tensor  # scalar
    terms: Tensor  # (3,) real, wrong, fake, or (2,) real, fake; weighted, no gradient


def cross_entropy(logits: Tensor, label: float) -> Tensor:
    """ℓ(s, y): logits (batch,) against one label for all, a scalar in float32."""
    logits = logits.float()
    return functional.binary_cross_entropy_with_logits(logits, torch.full_like(logits, label))


def discriminator_loss(
    real: Tensor, wrong: Tensor | None, fake: Tensor, real_label: float = 1.0
) -> DiscriminatorLoss:
    """L_D = ℓ(D(x, t), 1) + ½ ℓ(D(x̃, t), 0) + ½ ℓ(D(G(z, t), t), 0).

    Args:
        real: logits of real images with their captions, ``(batch,)``.
        wrong: logits of images of other classes with the same captions, ``(batch,)``. None is the
            plain GAN of the paper's family, without "CLS": no such term, and weight 1 on the next.
        fake: logits of drawn images with the captions they were drawn for, ``(batch,)``.
        real_label: y of the first term; below 1 is the smoothing of some ports.
    """
    terms = [cross_entropy(real, real_label)]
    if wrong is None:
        terms.append(cross_entropy(fake, 0))
    else:
        terms += [0.5 * cross_entropy(wrong, 0), 0.5 * cross_entropy(fake, 0)]
    stacked = torch.stack(terms)
    return DiscriminatorLoss(stacked.sum(), stacked.detach())


def generator_loss(fake: Tensor) -> Tensor:
    """L_G = ℓ(D(G(z, t), t), 1), the non-saturating loss: logits (items,) to a scalar.

    The items are the captions of the batch and, with "INT", those of `interpolated_embeddings`
    after them, all with weight 1.
    """
    return cross_entropy(fake, 1)


def condition_divergence(mean: Tensor, log_deviation: Tensor) -> Tensor:
    """KL(N(μ, σ²) ‖ N(0, 1)) of StackGAN's conditioning augmentation (eq. 5 of the paper).

    Args:
        mean: μ, ``(batch, width)`` float32.
        log_deviation: log σ, the same shape.

    Returns:
        −log σ + ½ (σ² + μ² − 1), the mean over batch and numbers, as in the authors' code.
    """
    return (0.5 * ((2 * log_deviation).exp() + mean.square() - 1) - log_deviation).mean()


def interpolated_embeddings(embeddings: Tensor) -> Tensor:
    """t′_j = ½ (t_j + t_{j + B/2}), the captions between captions of "INT" (β fixed at ½).

    Args:
        embeddings: φ_t of the batch of all workers, ``(B, embedding_dim)``.

    Returns:
        ``(B/2, embedding_dim)``. The generator alone is trained on them, after the B it is made of.

    Raises:
        UserError: names ``training.batch_size``, where B is odd.
    """
    if len(embeddings) % 2:
        raise UserError(
            f"training.batch_size: found {len(embeddings)} images, expected an even number, "
            "since GAN-INT averages the captions of the two halves of a batch"
        )
    first, second = embeddings.chunk(2)
    return 0.5 * (first + second)
