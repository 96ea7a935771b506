"""GAN-INT-CLS (Reed et al., "Generative Adversarial Text to Image Synthesis", ICML 2016).

Layer for layer the authors' code (reedscot/icml2016, the script for birds and flowers) rather than
the paper's figure 2, which leaves out the bottlenecks that the released models have. Other image
sizes than 64 lengthen or shorten the same plan, which runs between a map of 4×4 and the image.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from sdn_ray.errors import UserError
from sdn_ray.models.caption_judge import SMALLEST_MAP, CaptionJudge
from sdn_ray.models.gan_blocks import (
    Bottleneck,
    Down,
    Tup,
    drawn_pixels,
    initialise,
    leaky,
    rectifier,
)
from sdn_ray.models.whitening import whitening_layer

_MOST_WIDTHS = 8  # channels of the widest map, in widths
_SMALLEST_IMAGE = 16  # a smaller one has no map of 8×8 for the second bottleneck
_NARROWING = 4  # of a bottleneck


class GanIntClsGenerator(nn.Module):
    """G(z, t): noise and a caption to an image (section 4.1 of the paper; the authors' code).

    Args:
        embedding_dim: width of the text embedding φ_t.
        image_size: S, height and width of the image, a power of two.
        width: channels of the last map, that of S/2; 4×4 has up to 8 times as many.
        text_width: channels to which φ_t is compressed.
        noise_dim: how many normal numbers z is made of.
        whitened_dim: width of the whitened embedding that is compressed (the authors': none).

    Raises:
        UserError: when ``image_size`` is no power of two or below 16.
    """

    samples = 1  # images of one forward pass of a caption: others take other noise

    def __init__(
        self,
        embedding_dim: int = 1024,
        image_size: int = 64,
        width: int = 128,
        text_width: int = 128,
        noise_dim: int = 100,
        whitened_dim: int | None = None,
    ) -> None:
        super().__init__()
        _check_image_size(image_size)
        self.embedding_dim, self.image_size, self.width = embedding_dim, image_size, width
        self.text_width, self.noise_dim, self.whitened_dim = text_width, noise_dim, whitened_dim
        widths = generator_widths(image_size, width)
        self.whitening = whitening_layer(embedding_dim, whitened_dim)
        self.text = nn.Sequential(nn.Linear(whitened_dim or embedding_dim, text_width), leaky())
        # No activation goes before a bottleneck, here as in the authors' code.
        layers: list[nn.Module] = [
            nn.ConvTranspose2d(noise_dim + text_width, widths[0], SMALLEST_MAP, bias=False),
            nn.BatchNorm2d(widths[0]),
            Bottleneck(widths[0], widths[0] // _NARROWING, rectifier),
            Tup(widths[0], widths[1]),
            nn.BatchNorm2d(widths[1]),
            Bottleneck(widths[1], widths[1] // _NARROWING, rectifier),
        ]
        for below, above in pairwise(widths[1:]):
            layers += [Tup(below, above), nn.BatchNorm2d(above), rectifier()]
        self.image = nn.Sequential(*layers, Tup(widths[-1], 3), nn.Tanh())

    def forward(self, embeddings: Tensor, noise: Tensor) -> Tensor:
        """Draw one image for each caption.

        Args:
            embeddings: φ_t, ``(batch, embedding_dim)``.
            noise: z ~ N(0, I), ``(batch, noise_dim)``.

        Returns:
            Images in [−1, 1], ``(batch, 3, image_size, image_size)``.
        """
        code = torch.cat([noise, self.text(self.whitening(embeddings))], dim=1)
        return self.image(code[:, :, None, None])

    def pixels(self, embeddings: Tensor, noise: Tensor | None = None) -> Tensor:
        """One image of each caption as bytes: (batch, 1, 3, image_size, image_size) uint8."""
        return drawn_pixels(self, embeddings, noise)

    @property
    def settings(self) -> dict[str, Any]:
        """What makes a generator of the same shape."""
        names = ("embedding_dim", "image_size", "width", "text_width", "noise_dim", "whitened_dim")
        return {name: getattr(self, name) for name in names}

    def reset_parameters(self, seed: int) -> None:
        """The authors' initial laws, drawn from ``seed`` alone: see `gan_blocks.initialise`."""
        initialise(self, seed)


class GanIntClsDiscriminator(CaptionJudge):
    """D(x, t): whether an image is real and shows what the caption says, as a logit.

    Args:
        embedding_dim: width of the text embedding φ_t.
        image_size: S, height and width of the image, a power of two.
        width: channels of the first map, that of S/2; 4×4 has up to 8 times as many.
        text_width: channels to which φ_t is compressed.
        text_norm: batch normalisation of the compressed text.
        whitened_dim: width of the whitened embedding that is compressed (the authors': none).

    Raises:
        UserError: when ``image_size`` is no power of two or below 16.
    """

    def __init__(
        self,
        embedding_dim: int = 1024,
        image_size: int = 64,
        width: int = 64,
        text_width: int = 128,
        text_norm: bool = True,
        whitened_dim: int | None = None,
    ) -> None:
        _check_image_size(image_size)
        widths = discriminator_widths(image_size, width)
        super().__init__(
            _image_path(widths),
            widths[-1],
            embedding_dim=embedding_dim,
            text_width=text_width,
            text_norm=text_norm,
            whitened_dim=whitened_dim,
        )

    def reset_parameters(self, seed: int) -> None:
        """The authors' initial laws, drawn from ``seed`` alone: see `gan_blocks.initialise`."""
        initialise(self, seed)


def _image_path(widths: Sequence[int]) -> nn.Sequential:
    """From the image to 4×4: a halving a width, then a bottleneck."""
    layers: list[nn.Module] = [Down(3, widths[0]), leaky()]
    for place, (above, below) in enumerate(pairwise(widths), start=1):
        layers += [Down(above, below), nn.BatchNorm2d(below)]
        # None after the last two: the last is before a bottleneck, and the one above it lacks an
        # activation in the authors' code, with which the published scores were made.
        if place < len(widths) - 2:
            layers.append(leaky())
    return nn.Sequential(*layers, Bottleneck(widths[-1], widths[-1] // _NARROWING, leaky))


def generator_widths(image_size: int, width: int) -> list[int]:
    """The channels of the maps of 4×4, 8×8 … S/2."""
    sides = [SMALLEST_MAP << place for place in range(halvings(image_size))]
    return [width * min(_MOST_WIDTHS, image_size // (2 * side)) for side in sides]


def discriminator_widths(image_size: int, width: int) -> list[int]:
    """The channels of the maps of S/2, S/4 … 4×4."""
    return [width * min(_MOST_WIDTHS, 2**place) for place in range(halvings(image_size))]


def halvings(image_size: int) -> int:
    """How often an image is halved until it has 4×4 pixels."""
    return (image_size // SMALLEST_MAP).bit_length() - 1


def _check_image_size(image_size: int) -> None:
    if image_size < _SMALLEST_IMAGE or image_size & (image_size - 1):
        raise UserError(
            f"dataset.image_size: found {image_size}, expected a power of two, {_SMALLEST_IMAGE} "
            f"or more, since GAN-INT-CLS doubles a map of {SMALLEST_MAP}×{SMALLEST_MAP} pixels "
            "until it is the image"
        )
