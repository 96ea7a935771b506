"""The sizes of GAWWN's networks, and rows of layers that several of them have.

The plan at 128 pixels is that of the authors' scripts for birds (reedscot/nips2016), at 64 that of
their script for human poses; at 32 the grid of locations has 8×8 cells instead of 16×16. The
smaller plans leave out steps, a step being a halving or doubling with all that goes with it:

- at 64 and 32 one between the grid and the image: a generator's last doubling but one, and the
  discriminator's halving that keeps the width;
- at 32 one between the grid and 4×4, in every path the last, whether it halves or doubles.

The other layers keep their widths; the one that follows takes what it is given. The networks of
boxes have no smaller plan in the authors' code, and are shortened by the same rule.
"""

from collections.abc import Iterable
from itertools import pairwise

from torch import nn

from sdn_ray.models.gan_blocks import Activation, Down, Tup

CELLS = {32: 8, 64: 16, 128: 16}  # K, of a side of the grid of locations, by the image's side


def location_cells(image_size: int) -> int:
    """K, of a side of the grid of locations.

    Raises:
        ValueError: when ``image_size`` is none of 32, 64 and 128.
    """
    if image_size not in CELLS:
        sizes = ", ".join(map(str, CELLS))
        raise ValueError(f"image_size: found {image_size}, expected one of {sizes}")
    return CELLS[image_size]


def doublings(image_size: int) -> int:
    """How often the grid of locations is doubled until it is the image."""
    return (image_size // location_cells(image_size)).bit_length() - 1


def normalised(
    layer: nn.Linear | nn.Conv2d | nn.ConvTranspose2d, activation: Activation
) -> tuple[nn.Module, ...]:
    """A layer, the normalisation of what it gives, and an activation."""
    if isinstance(layer, nn.Linear):
        return layer, nn.BatchNorm1d(layer.out_features), activation()
    return layer, nn.BatchNorm2d(layer.out_channels), activation()


def halved(widths: Iterable[int], activation: Activation) -> list[nn.Module]:
    """Halvings of a map, whose widths are given from that of the first one's input on."""
    return [
        layer
        for above, below in pairwise(widths)
        for layer in normalised(Down(above, below), activation)
    ]


def doubled(widths: Iterable[int], activation: Activation) -> list[nn.Module]:
    """Doublings of a map, whose widths are given from that of the first one's input on."""
    return [
        layer
        for below, above in pairwise(widths)
        for layer in normalised(Tup(below, above), activation)
    ]
