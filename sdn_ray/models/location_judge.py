"""What GAWWN's discriminators of keypoints and of boxes have in common.

Layer for layer the authors' code (reedscot/nips2016).
"""

from collections.abc import Sequence
from typing import overload

import torch
from torch import Tensor, nn

from sdn_ray.models.caption_judge import SMALLEST_MAP
from sdn_ray.models.gan_blocks import Down, initialise, leaky
from sdn_ray.models.gan_int_cls import halvings
from sdn_ray.models.gawwn_plan import doublings, halved, location_cells, normalised
from sdn_ray.models.whitening import whitening_layer


class LocationJudge(nn.Module):
    """D(x, l, t): whether an image is real and shows what the caption says at a location.

    Args:
        embedding_dim: width of the text embedding φ_t.
        image_size: S, height and width of the image: 32, 64 or 128.
        width: channels of the first map.
        text_width: channels to which φ_t is compressed.
        whitened_dim: width of the whitened embedding that is compressed (the authors': none).
        region_channels: of what `_region_of` adds to a map.
        said_channels: of what `_said_at` gives.

    Raises:
        ValueError: when there is no plan of ``image_size``.
    """

    def __init__(
        self,
        *,
        embedding_dim: int,
        image_size: int,
        width: int,
        text_width: int,
        whitened_dim: int | None,
        region_channels: int,
        said_channels: int,
    ) -> None:
        super().__init__()
        self.cells = location_cells(image_size)
        seen = 2 * width
        widths = [seen, 4 * width, 8 * width][: halvings(self.cells) + 1]
        self.whitening = whitening_layer(embedding_dim, whitened_dim)
        self.text = nn.Sequential(nn.Linear(whitened_dim or embedding_dim, text_width), leaky())
        self.image = _image_path(image_size, width)
        joined = nn.Conv2d(seen + text_width, seen, 3, padding=1, bias=False)
        self.joined = nn.Sequential(*normalised(joined, leaky))
        self.region = nn.Sequential(
            *normalised(nn.Conv2d(seen + region_channels, seen, 1, bias=False), leaky),
            nn.Conv2d(seen, width, 1),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            leaky(),
        )
        self.image_global = nn.Sequential(*halved(widths, leaky))
        together = nn.Conv2d(widths[-1] + said_channels, 4 * width, 1, bias=False)
        self.global_path = nn.Sequential(
            *normalised(together, leaky),
            *normalised(nn.Conv2d(4 * width, width, SMALLEST_MAP, bias=False), leaky),
            nn.Flatten(),
        )
        self.head = nn.Sequential(
            *normalised(nn.Linear(2 * width, width), leaky), nn.Linear(width, 1)
        )

    @overload
    def forward(self, images: Tensor, locations: Tensor, embeddings: Tensor) -> Tensor: ...
    @overload
    def forward(
        self, images: Sequence[Tensor], locations: Sequence[Tensor], embeddings: Tensor
    ) -> tuple[Tensor, ...]: ...
    def forward(
        self,
        images: Tensor | Sequence[Tensor],
        locations: Tensor | Sequence[Tensor],
        embeddings: Tensor,
    ) -> Tensor | tuple[Tensor, ...]:
        """Judge a batch, or real, wrong and fake images of the same captions in one call.

        Each batch of a sequence is a pass and a batch normalisation batch of its own: see
        `CaptionJudge.forward`.

        Args:
            images: in [−1, 1], ``(batch, 3, S, S)``, or several such.
            locations: those of the images, ``(batch, n, 3)`` or ``(batch, 4)``; as many such as
                there are batches of images.
            embeddings: φ_t, ``(batch, embedding_dim)``.

        Returns:
            Logits ``(batch,)``, or as many such as there are batches of images.

        Raises:
            ValueError: when there are not as many batches of locations as of images.
        """
        if isinstance(images, Tensor):
            assert isinstance(locations, Tensor)
            return self._logits(images, locations, embeddings)
        pairs = zip(images, locations, strict=True)
        return tuple(self._logits(batch, places, embeddings) for batch, places in pairs)

    def reset_parameters(self, seed: int) -> None:
        """The authors' initial laws, drawn from ``seed`` alone: see `gan_blocks.initialise`."""
        initialise(self, seed)

    def _logits(self, images: Tensor, locations: Tensor, embeddings: Tensor) -> Tensor:
        seen, said = self.image(images), self.text(self.whitening(embeddings))
        joined = self.joined(torch.cat([seen, replicated(said, self.cells)], 1))
        region = self.region(self._region_of(joined, locations))
        both = [self.image_global(seen), self._said_at(said, locations)]
        return self.head(torch.cat([region, self.global_path(torch.cat(both, 1))], 1)).flatten()

    def _region_of(self, maps: Tensor, locations: Tensor) -> Tensor:
        """What the region path is given of maps (batch, channels, K, K): of the same K."""
        raise NotImplementedError

    def _said_at(self, said: Tensor, locations: Tensor) -> Tensor:
        """What the global path is given of captions (batch, text_width): (batch, …, 4, 4)."""
        raise NotImplementedError


def replicated(codes: Tensor, cells: int) -> Tensor:
    """The same everywhere: (batch, width) → (batch, width, cells, cells)."""
    return codes[:, :, None, None].expand(-1, -1, cells, cells)


def _image_path(image_size: int, width: int) -> nn.Sequential:
    """From the image to a map of K×K, normalised from there on."""
    layers: list[nn.Module] = []
    channels = 3
    for _ in range(doublings(image_size) - 1):
        layers += [Down(channels, width, bias=True), leaky()]
        channels = width
    flat = nn.Conv2d(2 * width, 2 * width, 3, padding=1, bias=False)
    return nn.Sequential(*layers, *halved([width, 2 * width], leaky), *normalised(flat, leaky))
