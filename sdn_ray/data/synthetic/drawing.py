"""Draws one image of a species with Pillow: super-sampled polygons, then light and noise."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from sdn_ray.data.synthetic.species import BACKGROUNDS, CENTER_COLORS, PETAL_COLORS, Species

SUPER_SAMPLING = 4
# Lengths are fractions of the image side.
RADIUS = {"small": 0.31, "large": 0.42}
CENTER_RADIUS = 0.29  # of the flower's radius
_POSITION_JITTER = 0.02
_SCALE_JITTER = 0.04
_TURN_JITTER = math.radians(4)  # from the first petal pointing up
_LEAST_TILTED = 0.94  # how much a tilt shortens at most
_PAINTED_SIDE = 128  # backgrounds are out of focus: they are painted this small at most

# Points (points, 2) to x, y, x, y … in pixels.
Place = Callable[[np.ndarray], list[float]]


@dataclass(frozen=True)
class DrawnFlower:
    """An image, and where in it the flower is, in pixels: x to the right, y down."""

    image: Image.Image  # RGB, square
    box: tuple[float, float, float, float]  # left, top, width and height of the whole flower
    center: tuple[float, float]
    tips: tuple[tuple[float, float], ...]  # of the petals, from the one that points up clockwise


def draw_flower(species: Species, rng: np.random.Generator, image_size: int) -> DrawnFlower:
    """A photograph-like image of one flower, ``image_size`` pixels square.

    The first petal points up. Small differences in position, turn, scale and tilt, the colours, the
    background and the light come from ``rng``.
    """
    position = 0.5 + rng.uniform(-_POSITION_JITTER, _POSITION_JITTER, 2)
    radius = RADIUS[species.size] * rng.uniform(1 - _SCALE_JITTER, 1 + _SCALE_JITTER)
    background = _draw_background(species.background, rng, image_size, position)
    petals = _Petals(species, rng)
    place = _placement(rng, position * image_size, radius * image_size)
    flower, cover = _paint_flower(species, petals, rng, image_size, place)

    shadow = _shadow(cover, image_size, rng)
    pixels = background * (1 - 0.4 * shadow)
    alpha = np.asarray(cover, np.float32)[..., None] / 255
    pixels = pixels * (1 - alpha) + flower * alpha

    pixels *= _light(rng, image_size)
    pixels += rng.normal(0, 2.5, pixels.shape)
    image = Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))
    return _annotated(image, petals, place)


def _shadow(cover: Image.Image, image_size: int, rng: np.random.Generator) -> np.ndarray:
    """How much shadow the flower throws on each pixel, (height, width, 1) in [0, 1]."""
    blurred = cover.filter(ImageFilter.GaussianBlur(image_size * 0.03))
    down = round(image_size * 0.04)
    right = round(image_size * rng.uniform(-0.03, 0.03))
    return np.roll(np.asarray(blurred, np.float32), (down, right), (0, 1))[..., None] / 255


def _light(rng: np.random.Generator, image_size: int) -> np.ndarray:
    """Brightness of each pixel: exposure, and a slope across the image from a random side."""
    across = np.linspace(-1, 1, image_size, dtype=np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    slope = np.cos(angle) * across[None, :] + np.sin(angle) * across[:, None]
    return (rng.uniform(0.93, 1.06) * (1 + 0.08 * slope))[..., None]


def flower_cover(species: Species, rng: np.random.Generator, image_size: int) -> np.ndarray:
    """How much of each pixel a flower in the middle of its image covers.

    Returns:
        (image_size, image_size) float32 in [0, 1].
    """
    petals = _Petals(species, rng)
    middle = np.full(2, image_size / 2)
    place = _placement(rng, middle, RADIUS[species.size] * image_size)
    side = image_size * SUPER_SAMPLING
    cover = Image.new("L", (side, side), 0)
    draw = ImageDraw.Draw(cover)
    for part in [*petals.whole, _disc()]:
        draw.polygon([SUPER_SAMPLING * value for value in place(part)], fill=255)
    return np.asarray(cover.reduce(SUPER_SAMPLING), np.float32) / 255


class _Petals:
    """The outlines of a flower's petals in its own coordinates: middle 0, radius about 1."""

    def __init__(self, species: Species, rng: np.random.Generator) -> None:
        self.outline = _petal_outline(species.petal_shape, species.petal_count)
        count = species.petal_count
        turn = rng.uniform(-_TURN_JITTER, _TURN_JITTER) - np.pi / 2
        jitter = rng.uniform(-0.04, 0.04, count)
        self.angles = turn + 2 * np.pi * (np.arange(count) + jitter) / count
        self.lengths = rng.uniform(0.95, 1.03, count)
        self.whole = [  # each petal as (points, 2)
            _turned(self.outline * length, angle)
            for angle, length in zip(self.angles, self.lengths, strict=True)
        ]

    def tips(self) -> np.ndarray:
        """How far each petal reaches along its axis, (petals, 2)."""
        return self.outline[:, 0].max() * self.lengths[:, None] * _directions(self.angles)


def _annotated(image: Image.Image, petals: _Petals, place: Place) -> DrawnFlower:
    """The image with the places of the flower's parts."""
    edges = np.array(place(np.concatenate(petals.whole))).reshape(-1, 2)
    # The disc reaches further than the petals where there is none.
    disc = np.array(place(_disc())).reshape(-1, 2)
    everything = np.concatenate([edges, disc])
    (left, top), (right, bottom) = everything.min(axis=0), everything.max(axis=0)
    x, y = place(np.zeros((1, 2)))
    ends = np.array(place(petals.tips())).reshape(-1, 2).tolist()
    tips = tuple((end_x, end_y) for end_x, end_y in ends)
    return DrawnFlower(image, (left, top, right - left, bottom - top), (x, y), tips)


def _paint_flower(
    species: Species,
    petals: _Petals,
    rng: np.random.Generator,
    image_size: int,
    place: Place,
) -> tuple[np.ndarray, Image.Image]:
    """The flower as (height, width, 3) float colours, and how much of each pixel it covers (L)."""
    side = image_size * SUPER_SAMPLING
    petal = _jittered(PETAL_COLORS[species.petal_color], rng, 5)
    center = _jittered(CENTER_COLORS[species.center_color], rng, 5)

    # The canvas starts as the petals' edge colour, so that reducing it leaves no fringe.
    canvas = Image.new("RGB", (side, side), _rgb(petal * 0.8))
    cover = Image.new("L", (side, side), 0)
    colors, covers = ImageDraw.Draw(canvas), ImageDraw.Draw(cover)

    def on_canvas(points: np.ndarray) -> list[float]:
        return [SUPER_SAMPLING * value for value in place(points)]

    for angle, whole in zip(petals.angles, petals.whole, strict=True):
        tint = petal * rng.uniform(0.95, 1.03)
        covers.polygon(on_canvas(whole), fill=255)
        colors.polygon(on_canvas(whole), fill=_rgb(tint * 0.80))
        # A paler face inside the darker edge, and a darker throat: the petal looks curved.
        for shrink, width, shade in ((0.95, 0.86, 1.0), (0.62, 0.42, 0.93), (0.46, 0.22, 0.85)):
            part = _turned(petals.outline * (shrink, width), angle)
            colors.polygon(on_canvas(part), fill=_rgb(tint * shade))

    _draw_center(colors, covers, on_canvas, center, rng)
    return np.asarray(canvas.reduce(SUPER_SAMPLING), np.float32), cover.reduce(SUPER_SAMPLING)


def _draw_center(
    colors: ImageDraw.ImageDraw,
    covers: ImageDraw.ImageDraw,
    place: Place,
    center: np.ndarray,
    rng: np.random.Generator,
) -> None:
    """The disc in the middle: a darker rim, a lighter dome and a sprinkle of stamens."""
    disc = _disc()
    covers.polygon(place(disc), fill=255)
    for scale, shade in ((1.0, 0.78), (0.86, 1.0)):
        colors.polygon(place(disc * scale), fill=_rgb(center * shade))
    # The square root spreads the stamens evenly over the disc.
    distances = 0.8 * CENTER_RADIUS * np.sqrt(rng.uniform(size=(14, 1)))
    stamens = distances * _directions(rng.uniform(0, 2 * np.pi, 14))
    for index, stamen in enumerate(stamens):
        shade = 0.82 if index % 2 else 1.12
        colors.polygon(place(disc[::4] * 0.15 + stamen), fill=_rgb(center * shade))


def _disc() -> np.ndarray:
    """The outline of the middle of a flower, (24, 2)."""
    return CENTER_RADIUS * _directions(np.linspace(0, 2 * np.pi, 24, endpoint=False))


def _petal_outline(shape: str, count: int) -> np.ndarray:
    """A petal along the x axis, from 0 to the tip at 1, as (points, 2) coordinates."""
    # As wide as lets the petals of the flower just touch.
    width = min(0.44, 0.72 * np.tan(np.pi / count))
    along = np.linspace(0, 1, 15)
    if shape == "round":
        half = 0.9 * width * np.sin(np.pi * along**1.5) ** 0.5
    elif shape == "pointed":
        half = width * np.minimum(np.sin(np.pi * along**0.85), 1.5 * (1 - along))
    elif shape == "narrow":
        half = 0.42 * width * np.sin(np.pi * along**1.1) ** 0.4
    else:
        half = 0.8 * width * np.sin(np.pi * along**2.0) ** 0.7
        along = 0.97 * along
    upper = np.stack([along, half], axis=1)
    lower = np.stack([along, -half], axis=1)[::-1]
    if shape == "heart":
        # Leave out the tip and cut in between the two lobes.
        notch = np.array([[0.76, 0.0]])
        return np.concatenate([upper[:-1], notch, lower[1:]])
    return np.concatenate([upper, lower[1:-1]])


def _placement(rng: np.random.Generator, position: np.ndarray, radius: float) -> Place:
    """From flower coordinates (radius 1) to pixels, slightly tilted away from the viewer."""
    tilt = rng.uniform(0, np.pi)
    axis = np.array([np.cos(tilt), np.sin(tilt)])
    stretch = np.eye(2) - (1 - rng.uniform(_LEAST_TILTED, 1.0)) * np.outer(axis, axis)

    def place(points: np.ndarray) -> list[float]:
        return (points @ stretch * radius + position).ravel().tolist()

    return place


def _turned(points: np.ndarray, angle: float) -> np.ndarray:
    """Points (points, 2) turned about the origin."""
    cosine, sine = math.cos(angle), math.sin(angle)
    return points @ np.array([[cosine, sine], [-sine, cosine]])


def _directions(angles: np.ndarray) -> np.ndarray:
    """Unit vectors (angles, 2)."""
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _draw_background(
    kind: str, rng: np.random.Generator, image_size: int, position: np.ndarray
) -> np.ndarray:
    """Out-of-focus surroundings, (height, width, 3) float."""
    base = _jittered(BACKGROUNDS[kind], rng, 4)
    side = min(2 * image_size, _PAINTED_SIDE)
    clouds = base + rng.normal(0, 3, (5, 5, 3)) + rng.normal(0, 7, (5, 5, 1))
    painted = Image.fromarray(np.clip(clouds, 0, 255).astype(np.uint8)).resize(
        (side, side), Image.Resampling.BICUBIC
    )
    draw = ImageDraw.Draw(painted)
    _PAINTERS[kind](draw, rng, side, base)
    if kind == "sky":  # where nothing would hide it
        _paint_stem(draw, rng, side, position)
    painted = painted.filter(ImageFilter.GaussianBlur(side * 0.008))
    resized = painted.resize((image_size, image_size), Image.Resampling.BILINEAR)
    return np.asarray(resized, np.float32)


def _paint_leaves(
    draw: ImageDraw.ImageDraw, rng: np.random.Generator, side: int, base: np.ndarray
) -> None:
    for _ in range(16):
        shade = rng.uniform(0.65, 1.35)
        _paint_leaf(draw, rng.uniform(0, side, 2), rng.uniform(0.2, 0.42) * side, base * shade, rng)


def _paint_leaf(
    draw: ImageDraw.ImageDraw,
    start: np.ndarray,
    length: float,
    color: np.ndarray,
    rng: np.random.Generator,
) -> None:
    """One leaf with a paler midrib, in a random direction from ``start``."""
    leaf = _turned(_petal_outline("pointed", 8), rng.uniform(0, 2 * np.pi)) * length + start
    draw.polygon(leaf.ravel().tolist(), fill=_rgb(color))
    tip = leaf[len(leaf) // 2]
    draw.line(
        [*start.tolist(), *tip.tolist()], fill=_rgb(color * 1.2), width=max(1, int(length / 24))
    )


def _paint_soil(
    draw: ImageDraw.ImageDraw, rng: np.random.Generator, side: int, base: np.ndarray
) -> None:
    for _ in range(45):
        _paint_blob(draw, rng, side, (0.015, 0.05), base * rng.uniform(0.7, 1.3))


def _paint_night(
    draw: ImageDraw.ImageDraw, rng: np.random.Generator, side: int, base: np.ndarray
) -> None:
    for _ in range(7):
        _paint_blob(draw, rng, side, (0.04, 0.11), base * 1.25 + rng.uniform(0, 8, 3))


def _paint_stone(
    draw: ImageDraw.ImageDraw, rng: np.random.Generator, side: int, base: np.ndarray
) -> None:
    for _ in range(22):
        _paint_blob(draw, rng, side, (0.01, 0.035), base * rng.uniform(0.85, 1.1))
    for _ in range(2):
        crack = np.cumsum(rng.normal(0, 0.1, (6, 2)) + rng.uniform(-0.12, 0.12, 2), axis=0)
        points = (crack + rng.uniform(0.1, 0.9, 2)) * side
        draw.line(points.ravel().tolist(), fill=_rgb(base * 0.6), width=max(1, side // 64))


def _paint_sky(
    draw: ImageDraw.ImageDraw, rng: np.random.Generator, side: int, base: np.ndarray
) -> None:
    for _ in range(3):
        cloud = rng.uniform(0, 1, 2)
        white = base + (250 - base) * rng.uniform(0.4, 0.65)
        for _ in range(5):
            width, height = rng.uniform(0.06, 0.13), rng.uniform(0.03, 0.06)
            x, y = cloud + rng.normal(0, (0.08, 0.02))
            box = [(x - width) * side, (y - height) * side, (x + width) * side, (y + height) * side]
            draw.ellipse(box, fill=_rgb(white))


def _paint_stem(
    draw: ImageDraw.ImageDraw, rng: np.random.Generator, side: int, position: np.ndarray
) -> None:
    stem = np.array((70, 125, 45)) * rng.uniform(0.9, 1.1)
    foot = np.array((position[0] + rng.uniform(-0.08, 0.08), 1.02)) * side
    draw.line([*(position * side).tolist(), *foot.tolist()], fill=_rgb(stem), width=side // 24)
    _paint_leaf(draw, foot - (0, 0.1 * side), 0.16 * side, stem, rng)


def _paint_blob(
    draw: ImageDraw.ImageDraw,
    rng: np.random.Generator,
    side: int,
    radii: tuple[float, float],
    color: np.ndarray,
) -> None:
    x, y = rng.uniform(0, side, 2)
    width, height = rng.uniform(*radii, 2) * side
    draw.ellipse([x - width, y - height, x + width, y + height], fill=_rgb(color))


_PAINTERS = {
    "leaves": _paint_leaves,
    "soil": _paint_soil,
    "night": _paint_night,
    "stone": _paint_stone,
    "sky": _paint_sky,
}


def _jittered(color: tuple[int, int, int], rng: np.random.Generator, spread: float) -> np.ndarray:
    return np.clip(np.array(color) + rng.normal(0, spread, 3), 0, 255)


def _rgb(color: np.ndarray) -> tuple[int, int, int]:
    # Plain Python, because NumPy is slow on three numbers and this runs 70 times an image.
    red, green, blue = color.tolist()
    return _level(red), _level(green), _level(blue)


def _level(value: float) -> int:
    return min(255, max(0, round(value)))
