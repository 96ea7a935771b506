"""The 320 species of the embedded data set: their palette, their attributes and their split."""

from dataclasses import dataclass
from itertools import product

RGB = tuple[int, int, int]

# Hues are chosen so that the nearest colour is still the right one after blurring and averaging.
PETAL_COLORS: dict[str, RGB] = {
    "red": (208, 28, 32),
    "orange": (248, 128, 18),
    "yellow": (250, 216, 45),
    "pink": (250, 160, 194),
    "magenta": (214, 22, 146),
    "purple": (122, 52, 190),
    "blue": (40, 104, 228),
    "white": (247, 245, 240),
}
CENTER_COLORS: dict[str, RGB] = {
    "yellow": (250, 205, 50),
    "white": (246, 244, 236),
    "black": (38, 28, 26),
    "green": (112, 172, 48),
    "red": (186, 26, 36),
}
# The mean colour of each kind of background.
BACKGROUNDS: dict[str, RGB] = {
    "leaves": (62, 112, 48),
    "soil": (116, 80, 52),
    "night": (22, 25, 36),
    "stone": (150, 150, 148),
    "sky": (158, 202, 236),
}
PETAL_COUNTS = (4, 5, 6, 8, 12)
PETAL_SHAPES = ("round", "pointed", "heart", "narrow")
SIZES = ("small", "large")


@dataclass(frozen=True)
class Species:
    """What all images of one species have in common; every value is a key of the palette above."""

    petal_color: str
    center_color: str
    background: str
    petal_count: int
    petal_shape: str
    size: str


_TESTED = 5  # species of each petal colour, one of each petal count


def _species_of(petal: int) -> tuple[list[Species], list[Species]]:
    """The training and the test species of a petal colour.

    Together they have every petal count with every shape and size once. Centre and background go
    round apart from these, so that no attribute tells another.
    """
    color = list(PETAL_COLORS)[petal]
    centers = [center for center in CENTER_COLORS if center != color]
    backgrounds = list(BACKGROUNDS)
    built = list(product(PETAL_COUNTS, PETAL_SHAPES, SIZES))
    pairs = list(product(centers, backgrounds))
    tested_built = [built[8 * count + (3 * count + petal) % 8] for count in range(_TESTED)]
    tested_pairs = [
        (centers[(place + petal) % len(centers)], backgrounds[(2 * place + petal) % 5])
        for place in range(_TESTED)
    ]
    kept_built = [one for one in built if one not in tested_built]
    kept_pairs = [pair for pair in pairs if pair not in tested_pairs]
    around = [kept_pairs[(7 * place + petal) % len(kept_pairs)] for place in range(len(kept_built))]
    train, test = (
        [
            Species(color, center, background, count, shape, size)
            for (center, background), (count, shape, size) in zip(colors, others, strict=True)
        ]
        for colors, others in ((around, kept_built), (tested_pairs, tested_built))
    )
    return train, test


# Forty species of each petal colour. The last five are test species: their single attributes and
# every two of their colours are seen together in training, their triple of petal colour, centre
# colour and background never.
_BY_PETAL_COLOR = [_species_of(petal) for petal in range(len(PETAL_COLORS))]
SPECIES: dict[int, Species] = dict(
    enumerate((one for train, test in _BY_PETAL_COLOR for one in (*train, *test)), start=1)
)
TEST_CLASSES: tuple[int, ...] = tuple(
    number
    for number, species in SPECIES.items()
    if any(species in test for _, test in _BY_PETAL_COLOR)
)
TRAIN_CLASSES: tuple[int, ...] = tuple(sorted(SPECIES.keys() - set(TEST_CLASSES)))


def class_name(class_id: int) -> str:
    """The name of a species in the class lists, which is also the name of its folder."""
    return f"species_{class_id:03d}"
