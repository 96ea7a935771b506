"""Does an image show what its caption says? Reads attributes of the embedded data set off pixels.

The flower is what differs from the background, which is measured in the corners. Colours are named
after the nearest one of the palette in CIELAB, where the measured colour may be partly mixed with
the background: generated images are soft, and petals bleed into what is around them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates
from skimage.color import rgb2lab

from sdn_ray.data.synthetic.captions import named_attributes
from sdn_ray.data.synthetic.drawing import flower_cover
from sdn_ray.data.synthetic.species import (
    BACKGROUNDS,
    CENTER_COLORS,
    PETAL_COLORS,
    PETAL_COUNTS,
    PETAL_SHAPES,
    RGB,
    SIZES,
    Species,
)

# Lightness depends on light and shadow more than the two colour axes do, so it counts for less.
_AXIS_WEIGHTS = np.array([0.6, 1.0, 1.0])
_LEAST_SHARE = 0.6  # of the palette's colour in a mixture with the background
_BATCH = 256  # images turned to CIELAB at once, to bound memory
_OWN_FREQUENCY = 0.35  # of the power of its double
_ANGLES = 120  # all petal counts divide it
_RINGS = np.linspace(0.14, 0.48, 24)  # of the side, from outside the centre
_SCALES = np.linspace(0.92, 1.08, 9)
_TEMPLATE_SIDE, _TEMPLATE_DRAWS = 64, 8  # pixels; flowers whose mean is a template


@dataclass(frozen=True)
class AttributeReadings:
    """What was read off n images: words of the palette, and numbers of petals."""

    petal_color: tuple[str, ...]
    center_color: tuple[str, ...]
    background: tuple[str, ...]
    petal_count: tuple[int, ...]
    petal_shape: tuple[str, ...]
    size: tuple[str, ...]


def measure_attributes(images: np.ndarray) -> AttributeReadings:
    """Read the six attributes of a species off each image.

    Args:
        images: uint8 RGB, (n, height, width, 3), square, as drawn for the embedded data set or
            generated from its captions.
    """
    readings = [
        _read(image)
        for start in range(0, len(images), _BATCH)
        for image in rgb2lab(images[start : start + _BATCH]) * _AXIS_WEIGHTS
    ]
    return AttributeReadings(*zip(*readings, strict=True))


ATTRIBUTES = tuple(spec.name for spec in fields(AttributeReadings))


@dataclass(frozen=True)
class Shown:
    """What an image is meant to show, and which of it its caption names."""

    species: Species
    named: frozenset[str]  # fields of `Species`

    @classmethod
    def of(cls, species: Species, caption: str) -> "Shown":
        """What a caption of a species asks for."""
        return cls(species, named_attributes(caption, species))


def agreement(readings: AttributeReadings, shown: Sequence[Shown]) -> dict[str, float]:
    """The fraction of images that show each attribute, of those whose caption names it.

    An attribute that no caption names has no fraction.

    Args:
        readings: of n images.
        shown: n, one for each image.
    """
    found = {}
    for name, read in vars(readings).items():
        right = [
            value == getattr(meant.species, name)
            for value, meant in zip(read, shown, strict=True)
            if name in meant.named
        ]
        if right:
            found[name] = float(np.mean(right))
    return found


def shuffled_agreement(
    readings: AttributeReadings, shown: Sequence[Shown], seed: int = 0
) -> dict[str, float]:
    """The agreement after dealing the captions to the images at random: the chance level."""
    order = np.random.default_rng(seed).permutation(len(shown))
    return agreement(readings, [shown[index] for index in order])


def _read(lab: np.ndarray) -> tuple[str, str, str, int, str, str]:
    """The readings of one image, (height, width, 3) in weighted CIELAB."""
    side = len(lab)
    smooth = gaussian_filter(lab, (side / 80, side / 80, 0))
    background = np.median(smooth[_corners(side)], axis=0)
    contrast = np.linalg.norm(smooth - background, axis=-1)
    position, radius = _find_flower(contrast)
    distance = np.hypot(*(np.indices(contrast.shape) - position[:, None, None])) / radius

    background_name = _nearest(background, _BACKGROUND_LAB)
    # Of the ring of petals, what differs most from the background: petals, not gaps.
    ring = (distance > 0.42) & (distance < 0.85)
    petals = ring & (contrast >= np.quantile(contrast[ring], 0.75))
    petal = np.median(smooth[petals], axis=0)
    petal_name = _nearest(petal, _PETAL_LAB, background)
    center = np.median(lab[distance < 0.18], axis=0)
    center_name = _nearest(center, _CENTER_LAB)

    # How far each pixel is from the background's colour to the petals': a stem is on another line.
    line = petal - background
    share = (smooth - background) @ line / max(line @ line, 1e-6)
    cover = _steeper(share)
    position = _middle(cover)
    count = _count_petals(cover, position, radius)
    shape, size = _shape_and_size(_profile(cover, position, count), count)
    return petal_name, center_name, background_name, count, shape, size


def _corners(side: int) -> np.ndarray:
    """The pixels, (side, side) bool, that are so far from the middle that no petal reaches them."""
    across = (np.arange(side) + 0.5) / side - 0.5
    return np.hypot(across[:, None], across[None, :]) > 0.53


def _find_flower(contrast: np.ndarray) -> tuple[np.ndarray, float]:
    """Middle (row, column) and radius in pixels of what stands out from the background."""
    side = len(contrast)
    mask = contrast >= 0.5 * np.quantile(contrast, 0.95)
    rows, columns = np.nonzero(mask)
    position = np.array([np.median(rows), np.median(columns)])  # whatever a stem adds
    radius = np.quantile(np.hypot(rows - position[0], columns - position[1]), 0.95)
    return position, max(float(radius), side / 16)


def _count_petals(cover: np.ndarray, position: np.ndarray, radius: float) -> int:
    """The petal count whose frequency is strongest along rings around the middle of the flower."""
    # Softened, or gaps that are sharp and narrow would count as twice as many.
    softened = gaussian_filter(cover, len(cover) / 54)
    rings = np.linspace(0.55, 1.1, 12)
    power = np.abs(np.fft.rfft(_around(softened, position, rings * radius))) ** 2
    strength = power.sum(axis=0)
    strongest = max(PETAL_COUNTS, key=lambda count: strength[count])
    # A petal with two lobes beats twice: then its own frequency is there as well.
    return next(
        count
        for count in PETAL_COUNTS
        if strongest % count == 0 and strength[count] >= _OWN_FREQUENCY * strength[strongest]
    )


def _around(values: np.ndarray, position: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """Values (side, side) along circles: (radii, angles), from the top clockwise."""
    angles = np.arange(_ANGLES) * 2 * np.pi / _ANGLES - np.pi / 2
    rings = radii[:, None]
    points = [position[0] + rings * np.sin(angles), position[1] + rings * np.cos(angles)]
    return map_coordinates(values, points, order=1)


def _middle(cover: np.ndarray) -> np.ndarray:
    """The middle (row, column) of what is covered, but for what lies at the edges."""
    side = len(cover)
    places = np.indices(cover.shape)
    near = np.hypot(*(places - (side - 1) / 2)) < 0.46 * side
    weights = np.where(near, cover, 1e-9)
    return (places * weights).sum((1, 2)) / weights.sum()


def _profile(cover: np.ndarray, position: np.ndarray, count: int) -> np.ndarray:
    """Mean cover of every ring, and how much of it comes and goes with the petals: (2, rings)."""
    waves = np.abs(np.fft.rfft(_around(cover, position, _RINGS * len(cover)), axis=1)) / _ANGLES
    return np.stack([waves[:, 0], 2 * waves[:, count]])


def _steeper(share: np.ndarray) -> np.ndarray:
    """From shares of the petals' colour to cover: the darker edge of a petal is petal, too."""
    return np.clip((share - 0.25) / 0.5, 0, 1)


def _shape_and_size(profile: np.ndarray, count: int) -> tuple[str, str]:
    """The shape and size whose profile, a little larger or smaller, is most like the one seen."""
    candidates = [key for key in _templates() if key[0] == count]
    differences = {
        key: np.abs(_templates()[key] - profile).mean((1, 2)).min() for key in candidates
    }
    _, shape, size = min(differences, key=lambda key: differences[key])
    return shape, size


@cache
def _templates() -> dict[tuple[int, str, str], np.ndarray]:
    """The profile of every count, shape and size, in some scales: (scales, 2, rings)."""
    found = {}
    for count in PETAL_COUNTS:
        for shape in PETAL_SHAPES:
            for size in SIZES:
                species = Species("red", "yellow", "leaves", count, shape, size)
                draws = np.random.default_rng(0)
                profiles = [_template(species, draws) for _ in range(_TEMPLATE_DRAWS)]
                mean = np.mean(profiles, axis=0)
                found[count, shape, size] = np.stack([_scaled(mean, scale) for scale in _SCALES])
    return found


def _template(species: Species, draws: np.random.Generator) -> np.ndarray:
    """The profile of one flower as it is drawn."""
    cover = flower_cover(species, draws, _TEMPLATE_SIDE)
    cover = _steeper(gaussian_filter(cover, _TEMPLATE_SIDE / 80))
    return _profile(cover, _middle(cover), species.petal_count)


def _scaled(profile: np.ndarray, scale: float) -> np.ndarray:
    """A profile as it would be if the flower were larger by a factor."""
    return np.stack([np.interp(_RINGS / scale, _RINGS, line) for line in profile])


def _nearest(
    color: np.ndarray, palette: Mapping[str, np.ndarray], background: np.ndarray | None = None
) -> str:
    """The palette colour, alone or mixed with a background, that is nearest to ``color``."""

    def distance(name: str) -> float:
        if background is None:
            return float(np.linalg.norm(color - palette[name]))
        # The nearest point on the line from the background to the palette's colour.
        line = palette[name] - background
        share = np.clip((color - background) @ line / (line @ line), _LEAST_SHARE, 1)
        return float(np.linalg.norm(color - background - share * line))

    return min(palette, key=distance)


def _palette_lab(palette: Mapping[str, RGB], shade: float) -> dict[str, np.ndarray]:
    """The palette in weighted CIELAB, as dark as ``shade`` makes it."""
    return {
        name: rgb2lab(np.array(color) * shade / 255) * _AXIS_WEIGHTS
        for name, color in palette.items()
    }


# Petals and centres are drawn with darker edges.
_PETAL_LAB = _palette_lab(PETAL_COLORS, 0.94)
_CENTER_LAB = _palette_lab(CENTER_COLORS, 0.96)
_BACKGROUND_LAB = _palette_lab(BACKGROUNDS, 1.0)
