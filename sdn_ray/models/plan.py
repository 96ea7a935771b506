"""VGG plans: one line of text from which every shape of teacher and generator follows."""

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal

from sdn_ray.errors import UserError

POOL: Final = "M"

VGG_PLANS = {
    "vgg11": "64,M,128,M,256x2,M,512x2,M,512x2,M",
    "vgg13": "64x2,M,128x2,M,256x2,M,512x2,M,512x2,M",
    "vgg16": "64x2,M,128x2,M,256x3,M,512x3,M,512x3,M",
    "vgg19": "64x2,M,128x2,M,256x4,M,512x4,M,512x4,M",
}

Entry = int | Literal["M"]  # the width of a convolution, or a pool

# Larger than any VGG by far, and small enough to be drawn up: a plan is read before its weights.
_WIDEST, _MOST_LAYERS = 65_536, 256
_ENTRY = re.compile(r"(\d{1,9})(?:[x×](\d{1,9}))?")


@dataclass(frozen=True)
class Convolution:
    """A 3×3 convolution of the teacher, and so of its mirror."""

    name: str  # conv1_1 … conv5_4
    in_channels: int
    out_channels: int
    pools_before: int  # 2×2 max pools between the image and this convolution

    @property
    def group(self) -> str:
        """The name without the place in its group: ``conv3`` for ``conv3_2``."""
        return self.name.partition("_")[0]


@dataclass(frozen=True)
class Plan:
    """The convolutions and 2×2 max pools of a VGG, in order.

    Example:
        >>> plan = Plan.parse("16,16,M,32")
        >>> [c.name for c in plan.convolutions]
        ['conv1_1', 'conv1_2', 'conv2_1']
        >>> plan.feature_shapes(64)
        [(16, 64, 64), (16, 64, 64), (32, 32, 32)]
    """

    entries: tuple[Entry, ...]

    @classmethod
    def parse(cls, text: str) -> "Plan":
        """Read ``64,64,M,128×4,M`` or a name (vgg11, vgg13, vgg16, vgg19).

        Raises:
            UserError: when an entry is neither a width, a repeated width nor ``M``.
        """
        entries: list[Entry] = []
        for entry in VGG_PLANS.get(text, text).split(","):
            entry = entry.strip()
            if entry == POOL and len(entries) < _MOST_LAYERS:
                entries.append(POOL)
                continue
            match = _ENTRY.fullmatch(entry)
            if match is None or int(match[2] or 1) < 1 or not 1 <= int(match[1]) <= _WIDEST:
                raise UserError(
                    f"teacher plan {text[:100]!r}: found entry {entry[:40]!r}, expected a "
                    f"width such as 64 (at most {_WIDEST}), a repeated width such as 256x4, M for "
                    "a pool, or one of " + ", ".join(VGG_PLANS)
                )
            repeats = int(match[2] or 1)
            if repeats > _MOST_LAYERS - len(entries):
                raise UserError(
                    f"teacher plan {text[:100]!r}: found {entry!r}, expected at most "
                    f"{_MOST_LAYERS} layers in all"
                )
            entries += [int(match[1])] * repeats
        if not entries or entries[0] == POOL:
            raise UserError(f"teacher plan {text!r}: expected it to begin with a convolution")
        return cls(tuple(entries))

    def __str__(self) -> str:
        """The plan as text that `parse` reads."""
        return ",".join(str(entry) for entry in self.entries)

    @property
    def pools(self) -> int:
        """The number of 2×2 max pools."""
        return self.entries.count(POOL)

    @cached_property
    def convolutions(self) -> tuple[Convolution, ...]:
        """The convolutions, from the image upwards."""
        convolutions, group, place, channels, pools = [], 1, 1, 3, 0
        for entry in self.entries:
            if entry == POOL:
                group, place, pools = group + 1, 1, pools + 1
            else:
                convolutions.append(Convolution(f"conv{group}_{place}", channels, entry, pools))
                channels, place = entry, place + 1
        return tuple(convolutions)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the convolutions, from the image upwards."""
        return tuple(convolution.name for convolution in self.convolutions)

    def check_image_size(self, image_size: int) -> None:
        """Refuse an image size that the pools of this plan cannot halve.

        Raises:
            UserError: when ``image_size`` is not a positive multiple of 2^pools.
        """
        if image_size < 1 or image_size % 2**self.pools:
            raise UserError(
                f"dataset.image_size: found {image_size}, expected a multiple of {2**self.pools}, "
                f"since the teacher plan {self} halves the image {self.pools} times"
            )

    def feature_shapes(self, image_size: int) -> list[tuple[int, int, int]]:
        """The (channels, height, width) of every convolution's output, from the image upwards.

        Raises:
            UserError: when the pools cannot halve ``image_size``.
        """
        self.check_image_size(image_size)
        return [
            (c.out_channels, image_size >> c.pools_before, image_size >> c.pools_before)
            for c in self.convolutions
        ]
