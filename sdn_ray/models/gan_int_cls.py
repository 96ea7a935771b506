"""GAN-INT-CLS (Reed et al., "Generative Adversarial Text to Image Synthesis", ICML 2016).

Layer for layer the authors' code (reedscot/icml2016, the script for birds and flowers) rather than
the paper's figure 2, which leaves out the bottlenecks that the released models have. Other image
sizes than 64 lengthen or shorten the same plan, which runs between a map of 4×4 and the image.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, overload

import torch
from torch import Tensor, nn

from sdn_ray.errors import UserError
from sdn_ray.models.gan_blocks import Bottleneck, Down, Tup, initialise, leaky, rectifier
from sdn_ray.models.whitening import whitening_layer

_SMALLEST_MAP = 4  # pixels a side of the map next to the text
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
        widths = _generator_widths(image_size, width)
        self.whitening = whitening_layer(embedding_dim, whitened_dim)
        self.text = nn.Sequential(nn.Linear(whitened_dim or embedding_dim, text_width), leaky())
        # No activation goes before a bottleneck, here as in the authors' code.
        layers: list[nn.Module] = [
            nn.ConvTranspose2d(noise_dim + text_width, widths[0], _SMALLEST_MAP, bias=False),
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
        if noise is None:
            raise ValueError(f"noise: found none, expected (batch, {self.noise_dim})")
        images = (self(embeddings, noise).float() + 1) * 127.5
        return images.round().clamp(0, 255).to(torch.uint8)[:, None]

    @property
    def settings(self) -> dict[str, Any]:
        """What makes a generator of the same shape."""
        names = ("embedding_dim", "image_size", "width", "text_width", "noise_dim", "whitened_dim")
        return {name: getattr(self, name) for name in names}

    def reset_parameters(self, seed: int) -> None:
        """The authors' initial laws, drawn from ``seed`` alone: see `gan_blocks.initialise`."""
        initialise(self, seed)


class GanIntClsDiscriminator(nn.Module):
    """D(x, t): whether an image is real and shows what the caption says, as a logit.

    The first stage of StackGAN has the same discriminator without ``text_norm``.

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
        super().__init__()
        _check_image_size(image_size)
        self.embedding_dim, self.image_size, self.width = embedding_dim, image_size, width
        self.text_width, self.text_norm = text_width, text_norm
        widths = _discriminator_widths(image_size, width)
        self.image = _image_path(widths)
        self.whitening = whitening_layer(embedding_dim, whitened_dim)
        self.text = nn.Sequential(
            nn.Linear(whitened_dim or embedding_dim, text_width),
            nn.BatchNorm1d(text_width) if text_norm else nn.Identity(),
            leaky(),
        )
        self.head = nn.Sequential(
            nn.Conv2d(widths[-1] + text_width, widths[-1], 1, bias=False),
            nn.BatchNorm2d(widths[-1]),
            leaky(),
            nn.Conv2d(widths[-1], 1, _SMALLEST_MAP, bias=False),
        )

    @overload
    def forward(self, images: Tensor, embeddings: Tensor) -> Tensor: ...
    @overload
    def forward(self, images: Sequence[Tensor], embeddings: Tensor) -> tuple[Tensor, ...]: ...
    def forward(
        self, images: Tensor | Sequence[Tensor], embeddings: Tensor
    ) -> Tensor | tuple[Tensor, ...]:
        """Judge a batch, or real, wrong and fake images of the same captions in one call.

        Each batch of a sequence is a pass and a batch normalisation batch of its own, as in the
        authors' code; one concatenated batch would be another algorithm. It is one call because
        DistributedDataParallel overwrites the running statistics at the start of each, which can
        make the backward pass of an earlier call fail (pytorch/pytorch#22095).

        Args:
            images: in [−1, 1], ``(batch, 3, image_size, image_size)``, or several such.
            embeddings: φ_t, ``(batch, embedding_dim)``.

        Returns:
            Logits ``(batch,)``, or as many such as there are batches of images.
        """
        if isinstance(images, Tensor):
            return self._logits(images, embeddings)
        return tuple(self._logits(batch, embeddings) for batch in images)

    def reset_parameters(self, seed: int) -> None:
        """The authors' initial laws, drawn from ``seed`` alone: see `gan_blocks.initialise`."""
        initialise(self, seed)

    def _logits(self, images: Tensor, embeddings: Tensor) -> Tensor:
        seen = self.image(images)
        said = self.text(self.whitening(embeddings))[:, :, None, None]
        said = said.expand(-1, -1, *seen.shape[2:])
        return self.head(torch.cat([seen, said], dim=1)).flatten()


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


def _generator_widths(image_size: int, width: int) -> list[int]:
    """The channels of the maps of 4×4, 8×8 … S/2."""
    sides = [_SMALLEST_MAP << place for place in range(_halvings(image_size))]
    return [width * min(_MOST_WIDTHS, image_size // (2 * side)) for side in sides]


def _discriminator_widths(image_size: int, width: int) -> list[int]:
    """The channels of the maps of S/2, S/4 … 4×4."""
    return [width * min(_MOST_WIDTHS, 2**place) for place in range(_halvings(image_size))]


def _halvings(image_size: int) -> int:
    """How often an image is halved until it has 4×4 pixels."""
    return (image_size // _SMALLEST_MAP).bit_length() - 1


def _check_image_size(image_size: int) -> None:
    if image_size < _SMALLEST_IMAGE or image_size & (image_size - 1):
        raise UserError(
            f"dataset.image_size: found {image_size}, expected a power of two, {_SMALLEST_IMAGE} "
            f"or more, since GAN-INT-CLS doubles a map of {_SMALLEST_MAP}×{_SMALLEST_MAP} pixels "
            "until it is the image"
        )
