"""GAWWN's networks of keypoints: images from captions and parts, and their discriminator.

Layer for layer the authors' code (reedscot/nips2016, the script for birds), whose transposed
convolutions 3×3 are ordinary ones here: they differ in the order of their weights alone.
"""

import torch
from torch import Tensor, nn

from sdn_ray.models.caption_judge import SMALLEST_MAP
from sdn_ray.models.gan_blocks import Bottleneck, Tup, rectifier
from sdn_ray.models.gan_int_cls import halvings
from sdn_ray.models.gawwn_plan import doubled, doublings, halved, location_cells, normalised
from sdn_ray.models.location_judge import LocationJudge, replicated
from sdn_ray.models.locations import mask, part_maps


class KeypointImageGenerator(nn.Module):
    """G(z, t, k): noise, a caption and parts to an image (section 4.2 of the paper).

    Args:
        code_dim: width of the embedding, whitened where it is.
        image_size: S, height and width of the image: 32, 64 or 128.
        width: channels of the narrowest map; the widest have 4 times as many.
        noise_dim: how many normal numbers z is made of.
        parts: n, of an image.

    Raises:
        ValueError: when there is no plan of ``image_size``.
    """

    def __init__(
        self, code_dim: int, image_size: int, width: int, noise_dim: int, parts: int
    ) -> None:
        super().__init__()
        self.cells = location_cells(image_size)
        wide, steps = 4 * width, halvings(self.cells)
        places, everywhere = [parts, width, 2 * width], [wide, 2 * width, width]
        places, everywhere = places[: steps + 1], everywhere[: steps + 1]
        self.noise, self.text = nn.Linear(noise_dim, wide), nn.Linear(code_dim, wide)
        self.activation = rectifier()
        self.region_code = nn.Sequential(*normalised(nn.Linear(2 * wide, wide), rectifier))
        self.region = nn.Sequential(*_flat(wide, wide))
        self.places = nn.Sequential(
            *halved(places, rectifier),
            *normalised(nn.Conv2d(places[-1], wide, SMALLEST_MAP, bias=False), rectifier),
            nn.Flatten(),
        )
        self.global_code = nn.Sequential(*normalised(nn.Linear(2 * wide, wide), rectifier))
        first = nn.ConvTranspose2d(2 * wide, wide, SMALLEST_MAP, bias=False)
        self.global_path = nn.Sequential(
            nn.Unflatten(1, (2 * wide, 1, 1)),
            *normalised(first, rectifier),
            *doubled(everywhere, rectifier),
        )
        widths = [wide, 2 * width, width][: doublings(image_size)]
        self.image = nn.Sequential(
            *_flat(everywhere[-1] + wide + parts, wide),
            *_flat(wide, wide)[:-1],  # no activation goes before a bottleneck
            Bottleneck(wide, width, rectifier),
            *doubled(widths, rectifier),
            Tup(widths[-1], 3, bias=True),
            nn.Tanh(),
        )

    def forward(self, codes: Tensor, noise: Tensor, parts: Tensor) -> Tensor:
        """Draw one image for each caption.

        Args:
            codes: ``(batch, code_dim)``.
            noise: z ~ N(0, I), ``(batch, noise_dim)``.
            parts: (x, y, visible) in fractions of the image, ``(batch, n, 3)``.

        Returns:
            Images in [−1, 1], ``(batch, 3, S, S)``.
        """
        asked = self.activation(torch.cat([self.noise(noise), self.text(codes)], 1))
        maps = part_maps(parts, self.cells).to(asked.dtype)
        region = self.region(self.region_code(asked)[:, :, None, None] * mask(maps))
        wholly = self.global_path(torch.cat([self.global_code(asked), self.places(maps)], 1))
        return self.image(torch.cat([wholly, region, maps], 1))


class KeypointImageDiscriminator(LocationJudge):
    """D(x, k, t): whether an image is real and shows what the caption says, its parts in place.

    Its locations are parts (x, y, visible) in fractions of the image, ``(batch, n, 3)``.

    Args:
        embedding_dim: width of the text embedding φ_t.
        image_size: S, height and width of the image: 32, 64 or 128.
        width: channels of the first map.
        text_width: channels to which φ_t is compressed.
        whitened_dim: width of the whitened embedding that is compressed (the authors': none).
        parts: n, of an image.

    Raises:
        ValueError: when there is no plan of ``image_size``.
    """

    def __init__(
        self,
        embedding_dim: int = 1024,
        image_size: int = 128,
        width: int = 128,
        text_width: int = 128,
        whitened_dim: int | None = None,
        parts: int = 15,
    ) -> None:
        super().__init__(
            embedding_dim=embedding_dim,
            image_size=image_size,
            width=width,
            text_width=text_width,
            whitened_dim=whitened_dim,
            region_channels=parts,
            said_channels=text_width,
        )

    def _region_of(self, maps: Tensor, locations: Tensor) -> Tensor:
        parts = part_maps(locations, self.cells).to(maps.dtype)
        return torch.cat([maps * mask(parts), parts], 1)

    def _said_at(self, said: Tensor, locations: Tensor) -> Tensor:
        return replicated(said, SMALLEST_MAP)


def _flat(wide: int, wider: int) -> tuple[nn.Module, ...]:
    return normalised(nn.Conv2d(wide, wider, 3, padding=1, bias=False), rectifier)
