"""Does an image show what its caption says? Reads attributes of the embedded data set off pixels.

The flower is what differs from the background, which is measured in the corners. Colours are named
after the nearest one of the palette in CIELAB, where the measured colour may be partly mixed with
the background: generated images are soft, and petals bleed into what is around them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates
from skimage.color import rgb2lab

from sdn_ray.data.synthetic.species import (
    BACKGROUNDS,
    CENTER_COLORS,
    PETAL_COLORS,
    PETAL_COUNTS,
    RGB,
    Species,
)

# Lightness depends on light and shadow more than the two colour axes do, so it counts for less.
_AXIS_WEIGHTS = np.array([0.6, 1.0, 1.0])
_LEAST_SHARE = 0.6  # of the palette's colour in a mixture with the background
_BATCH = 256  # images turned to CIELAB at once, to bound memory
_ANGLES = 120


@dataclass(frozen=True)
class AttributeReadings:
    """What was read off n images: colour names of the palette, and numbers of petals."""

    petal_color: tuple[str, ...]
    center_color: tuple[str, ...]
    background: tuple[str, ...]
    petal_count: tuple[int, ...]


def measure_attributes(images: np.ndarray) -> AttributeReadings:
    """Read petal, centre and background colour and the petal count off each image.

    Args:
        images: uint8 RGB, (n, height, width, 3), square, as drawn for the embedded data set or
            generated from its captions.
    """
    readings = [
        _read(image)
        for start in range(0, len(images), _BATCH)
        for image in rgb2lab(images[start : start + _BATCH]) * _AXIS_WEIGHTS
    ]
    petal, center, background, count = zip(*readings, strict=True)
    return AttributeReadings(petal, center, background, count)


def agreement(readings: AttributeReadings, species: Sequence[Species]) -> dict[str, float]:
    """The fraction of images that show each attribute of the species they are meant to show.

    Args:
        readings: of n images.
        species: n species, one for each image.
    """
    return {
        name: float(np.mean([a == getattr(b, name) for a, b in zip(read, species, strict=True)]))
        for name, read in vars(readings).items()
    }


def shuffled_agreement(
    readings: AttributeReadings, species: Sequence[Species], seed: int = 0
) -> dict[str, float]:
    """The agreement after dealing the species to the images at random: the chance level."""
    order = np.random.default_rng(seed).permutation(len(species))
    return agreement(readings, [species[index] for index in order])


def _read(lab: np.ndarray) -> tuple[str, str, str, int]:
    """The four readings of one image, (height, width, 3) in weighted CIELAB."""
    side = len(lab)
    smooth = gaussian_filter(lab, (side / 80, side / 80, 0))
    background = np.median(smooth[_corners(side)], axis=0)
    contrast = np.linalg.norm(smooth - background, axis=-1)
    position, radius = _find_flower(contrast)
    distance = np.hypot(*(np.indices(contrast.shape) - position[:, None, None])) / radius

    background_name = _nearest(background, _BACKGROUND_LAB)
    # Of the ring of petals, the half that differs most from the background: petals, not gaps.
    ring = (distance > 0.42) & (distance < 0.85)
    petals = ring & (contrast >= np.median(contrast[ring]))
    petal = np.median(smooth[petals], axis=0)
    petal_name = _nearest(petal, _PETAL_LAB, background)
    center = np.median(lab[distance < 0.18], axis=0)
    center_name = _nearest(center, _CENTER_LAB)
    return petal_name, center_name, background_name, _count_petals(contrast, position, radius)


def _corners(side: int) -> np.ndarray:
    """The pixels, (side, side) bool, that are so far from the middle that no petal reaches them."""
    across = (np.arange(side) + 0.5) / side - 0.5
    return np.hypot(across[:, None], across[None, :]) > 0.53


def _find_flower(contrast: np.ndarray) -> tuple[np.ndarray, float]:
    """Middle (row, column) and radius in pixels of what stands out from the background."""
    side = len(contrast)
    mask = contrast >= 0.5 * np.quantile(contrast, 0.95)
    rows, columns = np.nonzero(mask)
    position = np.array([rows.mean(), columns.mean()])
    radius = np.quantile(np.hypot(rows - position[0], columns - position[1]), 0.95)
    return position, max(float(radius), side / 16)


def _count_petals(contrast: np.ndarray, position: np.ndarray, radius: float) -> int:
    """The petal count whose frequency is strongest along rings around the middle of the flower."""
    angles = np.arange(_ANGLES) * 2 * np.pi / _ANGLES
    rings = np.linspace(0.55, 1.1, 12)[:, None] * radius
    points = [position[0] + rings * np.sin(angles), position[1] + rings * np.cos(angles)]
    # Softened, or gaps that are sharp and narrow would count as twice as many.
    contrast = gaussian_filter(contrast, len(contrast) / 45)
    power = np.abs(np.fft.rfft(map_coordinates(contrast, points, order=1))) ** 2
    strength = power.sum(axis=0)
    return max(PETAL_COUNTS, key=lambda count: strength[count])


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
