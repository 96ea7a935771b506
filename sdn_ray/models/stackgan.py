"""StackGAN (Zhang et al., "StackGAN: Text to Photo-realistic Image Synthesis with Stacked
Generative Adversarial Networks", ICCV 2017).

Layer for layer the authors' TensorFlow code (hanzhanggit/StackGAN), which made the published scores
of birds and flowers. Stage one draws a small image from a caption; stage two draws a larger one
from that image and the caption. Other sizes than 64 and 256 lengthen or shorten the same plan.
"""

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from sdn_ray.models.caption_judge import SMALLEST_MAP, CaptionJudge
from sdn_ray.models.gan_blocks import (
    Bottleneck,
    Down,
    Nup,
    Residual,
    drawn_pixels,
    initialise,
    leaky,
    rectifier,
)
from sdn_ray.models.gan_int_cls import GanIntClsDiscriminator, generator_widths, halvings
from sdn_ray.models.whitening import whitening_layer

SMALLEST_FIRST = 16  # pixels a side of stage one's images; a smaller one has one bottleneck
_NARROWING = 4  # of a bottleneck
_RESIDUALS = 4  # of stage two
_ENCODED = 4  # how much smaller than the first image the map is that stage two makes of it
_MOST_WIDTHS = 8  # channels of the map that stage two's discriminator decides on, in widths

# Images (batch, 3, S, S), and the means and log deviations of their captions' codes.
Drawn = tuple[Tensor, Tensor, Tensor]


class ConditioningAugmentation(nn.Module):
    """φ_t to a code that is drawn around its mean (section 3.2 of the paper).

    Args:
        code_dim: width of the embedding, whitened where it is.
        width: of the code.
    """

    def __init__(self, code_dim: int, width: int) -> None:
        super().__init__()
        # The activation is the code's, and is on the deviations, too; the paper has none.
        self.moments = nn.Sequential(nn.Linear(code_dim, 2 * width), leaky())

    def forward(self, codes: Tensor, noise: Tensor) -> Drawn:
        """c = μ + σ ⊙ ε.

        Args:
            codes: ``(batch, code_dim)``.
            noise: ε ~ N(0, I), ``(batch, width)``.

        Returns:
            c, μ and log σ, each ``(batch, width)``, float32.
        """
        mean, log_deviation = self.moments(codes).float().chunk(2, dim=1)
        return mean + log_deviation.exp() * noise, mean, log_deviation


class StageOneGenerator(nn.Module):
    """Caption and noise to the first image.

    Args:
        code_dim: width of the embedding, whitened where it is.
        image_size: s, a power of two from 16 on.
        width: channels of the last map, that of s/2; 4×4 has up to 8 times as many.
        text_width: of the caption's code.
        noise_dim: how many normal numbers z is made of.
    """

    def __init__(
        self, code_dim: int, image_size: int, width: int, text_width: int, noise_dim: int
    ) -> None:
        super().__init__()
        widths = generator_widths(image_size, width)
        self.condition = ConditioningAugmentation(code_dim, text_width)
        cells = widths[0] * SMALLEST_MAP**2
        # Normalised before it is a map: each of its numbers by itself.
        self.first = nn.Sequential(
            nn.Linear(text_width + noise_dim, cells),
            nn.BatchNorm1d(cells),
            nn.Unflatten(1, (widths[0], SMALLEST_MAP, SMALLEST_MAP)),
        )
        # No activation goes before a bottleneck, as in the authors' code.
        layers: list[nn.Module] = [
            Bottleneck(widths[0], widths[0] // _NARROWING, rectifier),
            Nup(widths[0], widths[1]),
            nn.BatchNorm2d(widths[1]),
            Bottleneck(widths[1], widths[1] // _NARROWING, rectifier),
        ]
        for below, above in pairwise(widths[1:]):
            layers += [Nup(below, above), nn.BatchNorm2d(above), rectifier()]
        self.image = nn.Sequential(*layers, Nup(widths[-1], 3), nn.Tanh())

    def forward(self, codes: Tensor, noise: Tensor, condition_noise: Tensor) -> Drawn:
        """Draw one image for each caption.

        Args:
            codes: ``(batch, code_dim)``.
            noise: z ~ N(0, I), ``(batch, noise_dim)``.
            condition_noise: ε ~ N(0, I), ``(batch, text_width)``.

        Returns:
            Images in [−1, 1], ``(batch, 3, s, s)``; μ and log σ.
        """
        code, mean, log_deviation = self.condition(codes, condition_noise)
        return self.image(self.first(torch.cat([code, noise], 1))), mean, log_deviation


class StageTwoGenerator(nn.Module):
    """The first image and its caption to a larger image.

    Args:
        code_dim: width of the embedding, whitened where it is.
        first_size: s, of the first image.
        image_size: S, of the larger one: s times a power of two.
        width: channels of the first map; those of s/4 have 4 times as many, and from there they are
            halved with every doubling of the map.
        text_width: of the caption's code.
    """

    def __init__(
        self, code_dim: int, first_size: int, image_size: int, width: int, text_width: int
    ) -> None:
        super().__init__()
        wide = 4 * width
        self.condition = ConditioningAugmentation(code_dim, text_width)
        self.seen = nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1, bias=False),
            rectifier(),
            *_down(width, 2 * width),
            *_down(2 * width, wide),
        )
        self.joined = nn.Sequential(
            nn.Conv2d(wide + text_width, wide, 3, padding=1, bias=False),
            nn.BatchNorm2d(wide),
            rectifier(),
            *(Residual(wide, rectifier) for _ in range(_RESIDUALS)),
        )
        widths = [wide >> place for place in range(_doublings(first_size, image_size) + 1)]
        layers: list[nn.Module] = []
        for below, above in pairwise(widths):
            layers += [Nup(below, above), nn.BatchNorm2d(above), rectifier()]
        last = nn.Conv2d(widths[-1], 3, 3, padding=1, bias=False)
        self.image = nn.Sequential(*layers, last, nn.Tanh())

    def forward(self, images: Tensor, codes: Tensor, condition_noise: Tensor) -> Drawn:
        """Draw one image from each first image.

        Args:
            images: of stage one, in [−1, 1], ``(batch, 3, s, s)``.
            codes: ``(batch, code_dim)``.
            condition_noise: ε ~ N(0, I), ``(batch, text_width)``.

        Returns:
            Images in [−1, 1], ``(batch, 3, S, S)``; μ and log σ.
        """
        code, mean, log_deviation = self.condition(codes, condition_noise)
        seen = self.seen(images)
        said = code[:, :, None, None].expand(-1, -1, *seen.shape[2:])
        joined = self.joined(torch.cat([seen, said.to(seen.dtype)], 1))
        return self.image(joined), mean, log_deviation


class StackGanGenerator(nn.Module):
    """Both stages, which draw as one.

    Args:
        embedding_dim: width of the text embedding φ_t.
        image_size: S, height and width of the image.
        first_size: s, of stage one's; the same where there is no stage two.
        width: channels, see `StageOneGenerator` and `StageTwoGenerator`.
        text_width: of the caption's code.
        z_dim: how many normal numbers z is made of.
        whitened_dim: width of the whitened embedding (the authors': none).
        stage_two: whether there is one.

    Raises:
        ValueError: when a size is no power of two from 16 on, or the image not the larger.

    Attributes:
        noise_dim: normal numbers of a drawing: z, then ε of each stage.
        draws_first: draw stage one's image, enlarged to S.
    """

    samples = 1  # images of one forward pass of a caption: others take other noise

    def __init__(
        self,
        embedding_dim: int = 1024,
        image_size: int = 256,
        first_size: int = 64,
        width: int = 128,
        text_width: int = 128,
        z_dim: int = 100,
        whitened_dim: int | None = None,
        stage_two: bool = True,
    ) -> None:
        super().__init__()
        _check_sizes(first_size, image_size, stage_two)
        self.embedding_dim, self.image_size, self.first_size = embedding_dim, image_size, first_size
        self.width, self.text_width, self.z_dim = width, text_width, z_dim
        self.whitened_dim, self.stage_two = whitened_dim, stage_two
        self.noise_dim = z_dim + (1 + stage_two) * text_width
        self.draws_first = not stage_two
        self.whitening = whitening_layer(embedding_dim, whitened_dim)
        code_dim = whitened_dim or embedding_dim
        self.first = StageOneGenerator(code_dim, first_size, width, text_width, z_dim)
        self.second = (
            StageTwoGenerator(code_dim, first_size, image_size, width, text_width)
            if stage_two
            else None
        )

    def forward(self, embeddings: Tensor, noise: Tensor) -> Tensor:
        """Draw one image for each caption.

        Args:
            embeddings: φ_t, ``(batch, embedding_dim)``.
            noise: ``(batch, noise_dim)``.

        Returns:
            Images in [−1, 1], ``(batch, 3, image_size, image_size)``.
        """
        codes, (z, *condition_noise) = self.whitening(embeddings), self.split(noise)
        images = self.first(codes, z, condition_noise[0])[0]
        if self.second is not None and not self.draws_first:
            return self.second(images, codes, condition_noise[1])[0]
        if images.shape[-1] == self.image_size:
            return images
        sides = (self.image_size, self.image_size)
        return functional.interpolate(images.float(), sides, mode="bicubic").clamp(-1, 1)

    def split(self, noise: Tensor) -> tuple[Tensor, ...]:
        """Noise (batch, noise_dim) as z and the ε of each stage."""
        return noise.split([self.z_dim] + (1 + self.stage_two) * [self.text_width], dim=1)

    def train(self, mode: bool = True) -> "StackGanGenerator":
        """Training mode of the stage that draws: below stage two the first one stands still."""
        super().train(mode)
        if not self.draws_first:
            self.first.eval()
        return self

    def pixels(self, embeddings: Tensor, noise: Tensor | None = None) -> Tensor:
        """One image of each caption as bytes: (batch, 1, 3, image_size, image_size) uint8."""
        return drawn_pixels(self, embeddings, noise)

    @property
    def settings(self) -> dict[str, Any]:
        """What makes a generator of the same shape."""
        names = ("embedding_dim", "image_size", "first_size", "width", "text_width", "z_dim")
        return {name: getattr(self, name) for name in (*names, "whitened_dim", "stage_two")}

    def reset_parameters(self, seed: int) -> None:
        """The authors' initial laws, drawn from ``seed`` alone: see `gan_blocks.initialise`."""
        initialise(self, seed, stackgan=True)


class StageOneDiscriminator(GanIntClsDiscriminator):
    """D(x, t) of the first images: GAN-INT-CLS's, without a normalisation of the text.

    Args:
        embedding_dim: width of the text embedding φ_t.
        image_size: s, height and width of the image, a power of two from 16 on.
        width: channels of the first map, that of s/2; 4×4 has up to 8 times as many.
        text_width: channels to which φ_t is compressed.
        whitened_dim: width of the whitened embedding that is compressed (the authors': none).
    """

    def __init__(
        self,
        embedding_dim: int = 1024,
        image_size: int = 64,
        width: int = 64,
        text_width: int = 128,
        whitened_dim: int | None = None,
    ) -> None:
        super().__init__(
            embedding_dim, image_size, width, text_width, text_norm=False, whitened_dim=whitened_dim
        )

    def reset_parameters(self, seed: int) -> None:
        """The authors' initial laws, drawn from ``seed`` alone: see `gan_blocks.initialise`."""
        initialise(self, seed, stackgan=True)


class StageTwoDiscriminator(CaptionJudge):
    """D(x, t) of the larger images.

    Args:
        embedding_dim: width of the text embedding φ_t.
        image_size: S, height and width of the image, a power of two from 32 on.
        width: channels of the first map, that of S/2; they double until 4×4, and are then halved
            until 8 times as many are left.
        text_width: channels to which φ_t is compressed.
        whitened_dim: width of the whitened embedding that is compressed (the authors': none).
    """

    def __init__(
        self,
        embedding_dim: int = 1024,
        image_size: int = 256,
        width: int = 64,
        text_width: int = 128,
        whitened_dim: int | None = None,
    ) -> None:
        widths = [width << place for place in range(halvings(image_size))]
        layers: list[nn.Module] = [Down(3, widths[0]), leaky()]
        for above, below in pairwise(widths):
            layers += [Down(above, below), nn.BatchNorm2d(below), leaky()]
        seen = widths[-1]
        while seen > _MOST_WIDTHS * width:
            narrow = nn.Conv2d(seen, seen // 2, 1, bias=False)
            layers += [narrow, nn.BatchNorm2d(seen // 2), leaky()]
            seen //= 2
        layers[-1] = Bottleneck(seen, seen // _NARROWING, leaky)  # no activation goes before it
        super().__init__(
            nn.Sequential(*layers),
            seen,
            embedding_dim=embedding_dim,
            text_width=text_width,
            text_norm=False,
            whitened_dim=whitened_dim,
        )

    def reset_parameters(self, seed: int) -> None:
        """The authors' initial laws, drawn from ``seed`` alone: see `gan_blocks.initialise`."""
        initialise(self, seed, stackgan=True)


def _check_sizes(first_size: int, image_size: int, stage_two: bool) -> None:
    for name, size in (("first_size", first_size), ("image_size", image_size)):
        if size < SMALLEST_FIRST or size & (size - 1):
            raise ValueError(
                f"{name}: found {size}, expected a power of two, {SMALLEST_FIRST} or more"
            )
    if (image_size > first_size) != stage_two or image_size < first_size:
        relation = "above" if stage_two else "equal to"
        raise ValueError(
            f"image_size: found {image_size}, expected it {relation} first_size, {first_size}"
        )


def least_width(first_size: int, image_size: int) -> int:
    """With fewer channels stage two would halve its last maps to none."""
    return max(1, 2 ** _doublings(first_size, image_size) // 4)


def _down(wide: int, wider: int) -> tuple[nn.Module, ...]:
    return Down(wide, wider), nn.BatchNorm2d(wider), rectifier()


def _doublings(first_size: int, image_size: int) -> int:
    """How often the map that stage two makes of the first image is doubled until it is an image."""
    return (image_size * _ENCODED // first_size).bit_length() - 1
