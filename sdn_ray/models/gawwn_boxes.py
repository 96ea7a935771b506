"""GAWWN's networks of boxes: images from captions and a bounding box, and their discriminator.

Layer for layer the authors' code (reedscot/nips2016, the script for birds and boxes), but that the
discriminator's map of the caption is pasted into the box, as the generator's is and as the paper
masks it: their code crops it, and the crop of a map that is the same everywhere tells no place.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn

from sdn_ray.models.caption_judge import SMALLEST_MAP
from sdn_ray.models.gan_blocks import Bottleneck, Tup, rectifier
from sdn_ray.models.gan_int_cls import halvings
from sdn_ray.models.gawwn_plan import doubled, doublings, halved, location_cells, normalised
from sdn_ray.models.location_judge import LocationJudge, replicated
from sdn_ray.models.locations import crop, paste

_NARROWING = 4  # of a bottleneck; of the channels before the image, too: 32 of 128


class BoxImageGenerator(nn.Module):
    """G(z, t, b): noise, a caption and a box to an image (section 4.1 of the paper).

    Args:
        code_dim: width of the embedding, whitened where it is.
        image_size: S, height and width of the image: 32, 64 or 128.
        width: a unit of channels: the widest maps have 8 times as many, the last a quarter.
        noise_dim: how many normal numbers z is made of.

    Raises:
        ValueError: when there is no plan of ``image_size``.
    """

    def __init__(self, code_dim: int, image_size: int, width: int, noise_dim: int) -> None:
        super().__init__()
        self.cells = location_cells(image_size)
        wide, steps = 4 * width, halvings(self.cells)
        widths = [8 * width, wide, 2 * width][: steps + 1]
        self.text = nn.Linear(code_dim, wide)
        # Two, as in the authors' code, which shares the caption's layer alone.
        self.global_noise, self.region_noise = (nn.Linear(noise_dim, wide) for _ in range(2))
        self.activation = rectifier()
        self.said = nn.Sequential(
            *halved([wide] * (steps + 1), rectifier),
            *normalised(nn.Conv2d(wide, wide, SMALLEST_MAP, bias=False), rectifier),
            nn.Flatten(),
        )
        self.global_path = nn.Sequential(
            *_first(2 * wide, widths[0]), rectifier(), *doubled(widths, rectifier)
        )
        # No activation goes before a bottleneck, and none before the last map is pasted.
        layers = _first(2 * wide, widths[0])
        for below, above in pairwise(widths):
            narrower = Bottleneck(below, below // _NARROWING, rectifier)
            layers += [narrower, Tup(below, above), nn.BatchNorm2d(above)]
        self.region = nn.Sequential(*layers)
        last = [2 * width, width, width // _NARROWING][: doublings(image_size)]
        both = nn.Conv2d(2 * widths[-1], 2 * width, 3, padding=1, bias=False)
        self.image = nn.Sequential(
            *normalised(both, rectifier),
            *doubled(last, rectifier),
            Tup(last[-1], 3, bias=True),
            nn.Tanh(),
        )

    def forward(self, codes: Tensor, noise: Tensor, boxes: Tensor) -> Tensor:
        """Draw one image for each caption.

        Args:
            codes: ``(batch, code_dim)``.
            noise: z ~ N(0, I), ``(batch, noise_dim)``.
            boxes: (x, y, w, h) in fractions of the image, ``(batch, 4)``.

        Returns:
            Images in [−1, 1], ``(batch, 3, S, S)``.
        """
        text = self.text(codes)
        said = self.said(paste(replicated(text, self.cells), boxes))
        wholly = torch.cat([self.activation(self.global_noise(noise)), said], 1)
        asked = self.activation(torch.cat([self.region_noise(noise), text], 1))
        region = self.activation(paste(self.region(asked), boxes))
        return self.image(torch.cat([self.global_path(wholly), region], 1))


class BoxImageDiscriminator(LocationJudge):
    """D(x, b, t): whether an image is real and shows what the caption says in the box.

    Its locations are boxes (x, y, w, h) in fractions of the image, ``(batch, 4)``.

    Args:
        embedding_dim: width of the text embedding φ_t.
        image_size: S, height and width of the image: 32, 64 or 128.
        width: channels of the first map.
        text_width: channels to which φ_t is compressed.
        whitened_dim: width of the whitened embedding that is compressed (the authors': none).

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
    ) -> None:
        steps = halvings(location_cells(image_size))
        widths = [text_width, 4 * width, width][: steps + 1]
        super().__init__(
            embedding_dim=embedding_dim,
            image_size=image_size,
            width=width,
            text_width=text_width,
            whitened_dim=whitened_dim,
            region_channels=0,
            said_channels=widths[-1],
        )
        # Not leaky, unlike all else here: so the authors' code.
        self.said = nn.Sequential(*halved(widths, rectifier))

    def _region_of(self, maps: Tensor, locations: Tensor) -> Tensor:
        return crop(maps, locations)

    def _said_at(self, said: Tensor, locations: Tensor) -> Tensor:
        return self.said(paste(replicated(said, self.cells), locations))


def _first(code_width: int, width: int) -> list[nn.Module]:
    """From a code to a map of 4×4, normalised."""
    return [
        nn.Unflatten(1, (code_width, 1, 1)),
        nn.ConvTranspose2d(code_width, width, SMALLEST_MAP, bias=False),
        nn.BatchNorm2d(width),
    ]
