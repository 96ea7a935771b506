"""GAWWN (Reed et al., "Learning What and Where to Draw", NIPS 2016): what draws.

An image is drawn from a caption and locations. Parts that are not given are generated from the
caption first, as in the authors' demonstration; of boxes, which nothing generates, one of the
training images is taken.
"""

import colorsys
from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from sdn_ray.models.gan_blocks import drawn_pixels, initialise
from sdn_ray.models.gawwn_boxes import BoxImageGenerator
from sdn_ray.models.gawwn_keypoints import KeypointImageGenerator
from sdn_ray.models.keypoint_generator import KeypointGenerator
from sdn_ray.models.locations import part_maps, visible
from sdn_ray.models.whitening import whitening_layer

Locations = Literal["keypoints", "boxes", "none"]
KEYPOINTS, BOXES, NONE = get_args(Locations)


_KEPT_BOXES = 256  # of training images, one of which is drawn in where none is given
_GREY = -0.5  # behind parts that are shown as dots


class GawwnGenerator(nn.Module):
    """Generator of images, and of their keypoints.

    Args:
        embedding_dim: width of the text embedding φ_t.
        image_size: S, height and width of the image: 32, 64 or 128.
        width: a unit of channels, see `KeypointImageGenerator` and `BoxImageGenerator`.
        z_dim: how many normal numbers z is made of, one and the same for keypoints and image.
        whitened_dim: width of the whitened embedding (the authors': none).
        parts: names of the n parts of an image; boxes do without.
        locations: what an image is drawn from beside its caption. "none": no part is visible ever,
            which the authors found to draw nothing plausible.

    Raises:
        ValueError: when there is no plan of ``image_size``, no such locations, or no part.

    Attributes:
        noise_dim: normal numbers of a drawing: z and, with boxes, one that chooses a box.
        images: of images.
        keypoints: of parts; None but with locations "keypoints".
        draws_keypoints: draw parts as dots, by which one sees how their generator is learning.
    """

    samples = 1  # images of one forward pass of a caption: others take other noise

    def __init__(
        self,
        embedding_dim: int = 1024,
        image_size: int = 128,
        width: int = 128,
        z_dim: int = 100,
        whitened_dim: int | None = None,
        parts: Sequence[str] = (),
        locations: Locations = "keypoints",
    ) -> None:
        super().__init__()
        _check_locations(locations, len(parts))
        self.embedding_dim, self.image_size, self.width = embedding_dim, image_size, width
        self.z_dim, self.whitened_dim = z_dim, whitened_dim
        self.noise_dim = z_dim + (locations == BOXES)
        self.parts, self.locations = tuple(parts), locations
        self.draws_keypoints = False
        self.whitening = whitening_layer(embedding_dim, whitened_dim)
        code_dim, n = whitened_dim or embedding_dim, len(parts)
        self.images: KeypointImageGenerator | BoxImageGenerator = (
            BoxImageGenerator(code_dim, image_size, width, z_dim)
            if locations == BOXES
            else KeypointImageGenerator(code_dim, image_size, width, z_dim, n)
        )
        self.keypoints = (
            KeypointGenerator(code_dim, n, width, z_dim) if locations == KEYPOINTS else None
        )
        self.boxes: Tensor | None
        whole = torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(_KEPT_BOXES, -1).clone()
        self.register_buffer("boxes", whole if locations == BOXES else None)

    def forward(self, embeddings: Tensor, noise: Tensor, locations: Tensor | None = None) -> Tensor:
        """Draw one image for each caption.

        Args:
            embeddings: φ_t, ``(batch, embedding_dim)``.
            noise: ``(batch, noise_dim)``.
            locations: parts (x, y, visible) ``(batch, n, 3)``, of which those that are visible are
                taken and the others generated; or boxes (x, y, w, h) ``(batch, 4)``. In fractions
                of the image. None: all are generated, or boxes of training images.

        Returns:
            Images in [−1, 1], ``(batch, 3, image_size, image_size)``.
        """
        if self.locations == BOXES:
            places = self._some_boxes(noise) if locations is None else locations
        else:
            places = self.drawn_parts(embeddings, noise, locations)
        if self.draws_keypoints:
            return self._dots(places)
        return self.images(self.whitening(embeddings), noise[:, : self.z_dim], places)

    def drawn_parts(self, embeddings: Tensor, noise: Tensor, given: Tensor | None = None) -> Tensor:
        """The parts with which an image is drawn.

        Args:
            embeddings: φ_t, ``(batch, embedding_dim)``.
            noise: z, ``(batch, noise_dim)``.
            given: parts (x, y, visible), ``(batch, n, 3)``; None: all are generated.

        Returns:
            (x, y, visible), ``(batch, n, 3)`` float32: visible is 0 or 1, and a part that is not is
            all zero, as all are with locations "none".

        Raises:
            ValueError: when images are drawn from boxes.
        """
        if self.locations == BOXES:
            raise ValueError(
                "locations: found boxes, expected keypoints, since boxes have no parts"
            )
        none = noise.new_zeros(len(noise), len(self.parts), 3, dtype=torch.float32)
        if self.keypoints is None:
            return none
        drawn = self.keypoints(self.whitening(embeddings), noise, none if given is None else given)
        seen = visible(drawn)[..., None]
        return torch.cat([drawn[..., :2], torch.ones_like(drawn[..., 2:])], -1) * seen

    def train(self, mode: bool = True) -> "GawwnGenerator":
        """Training mode of the network that draws: the other one stands still."""
        super().train(mode)
        if self.draws_keypoints:
            self.images.eval()
        elif self.keypoints is not None:
            self.keypoints.eval()
        return self

    @torch.no_grad()
    def keep_boxes(self, boxes: Tensor) -> None:
        """Keep boxes of training images (images, 4), evenly spread over these, to draw with."""
        assert self.boxes is not None
        places = torch.linspace(0, len(boxes) - 1, _KEPT_BOXES).long()
        self.boxes.copy_(boxes[places])

    def pixels(
        self, embeddings: Tensor, noise: Tensor | None = None, locations: Tensor | None = None
    ) -> Tensor:
        """One image of each caption as bytes: (batch, 1, 3, image_size, image_size) uint8."""
        return drawn_pixels(self, embeddings, noise, locations)

    @property
    def settings(self) -> dict[str, Any]:
        """What makes a generator of the same shape."""
        names = ("embedding_dim", "image_size", "width", "z_dim", "whitened_dim", "locations")
        return {name: getattr(self, name) for name in names} | {"parts": list(self.parts)}

    def reset_parameters(self, seed: int) -> None:
        """The authors' initial laws, drawn from ``seed`` alone: see `gan_blocks.initialise`."""
        initialise(self, seed)

    def _some_boxes(self, noise: Tensor) -> Tensor:
        """Of the kept boxes one for each row of noise, all equally likely."""
        assert self.boxes is not None
        share = torch.special.ndtr(noise[:, self.z_dim].float())
        return self.boxes[(share * _KEPT_BOXES).long().clamp(max=_KEPT_BOXES - 1)]

    def _dots(self, parts: Tensor) -> Tensor:
        """Parts as dots, each in its own colour: (batch, 3, image_size, image_size)."""
        n = len(self.parts)
        colors = torch.tensor([colorsys.hsv_to_rgb(place / n, 1, 1) for place in range(n)])
        maps = part_maps(parts, self.images.cells)
        dots = torch.einsum("bnyx,nc->bcyx", maps, 2 * colors.to(maps) - 1 - _GREY) + _GREY
        sides = (self.image_size, self.image_size)
        return functional.interpolate(dots.clamp(-1, 1), sides, mode="nearest")


def _check_locations(locations: str, parts: int) -> None:
    if locations not in get_args(Locations):
        expected = ", ".join(get_args(Locations))
        raise ValueError(f"locations: found {locations}, expected one of {expected}")
    if not parts and locations != BOXES:
        raise ValueError(f"parts: found none with locations {locations}, expected their names")
