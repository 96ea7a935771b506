"""The 320 species of the embedded data set: their palette, their attributes and their split."""

from dataclasses import dataclass

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


PAIRS = 8  # of centre colour and background, for each petal colour


def _species(petal: int, pair: int, count: int) -> Species:
    """The species of the places of its petal colour, of its pair and of its petal count.

    Whole numbers spread all attributes evenly and apart from each other: over the eight pairs of a
    petal colour and count each shape comes with each size once.
    """
    petal_color = list(PETAL_COLORS)[petal]
    centers = [color for color in CENTER_COLORS if color != petal_color]
    return Species(
        petal_color=petal_color,
        center_color=centers[(pair + petal) % len(centers)],
        background=list(BACKGROUNDS)[(2 * pair + petal + pair // 5) % len(BACKGROUNDS)],
        petal_count=PETAL_COUNTS[count],
        petal_shape=PETAL_SHAPES[(pair + petal + count) % len(PETAL_SHAPES)],
        size=SIZES[(pair // 4 + petal + count) % len(SIZES)],
    )


# Eight petal colours, eight pairs of centre colour and background each, and every petal count of
# each of them: species differ by count, shape and size as often as by colours.
SPECIES: dict[int, Species] = {
    (petal * PAIRS + pair) * len(PETAL_COUNTS) + count + 1: _species(petal, pair, count)
    for petal in range(len(PETAL_COLORS))
    for pair in range(PAIRS)
    for count in range(len(PETAL_COUNTS))
}
# One pair of each petal colour, in all its counts: every two colours of a test species (petals,
# centre, background) are seen together in training, the three never. Every colour is among them.
_TEST_PAIRS = (0, 0, 0, 0, 0, 5, 5, 6)
TEST_CLASSES: tuple[int, ...] = tuple(
    number
    for number in SPECIES
    if _TEST_PAIRS[(number - 1) // len(PETAL_COUNTS) // PAIRS]
    == (number - 1) // len(PETAL_COUNTS) % PAIRS
)
TRAIN_CLASSES: tuple[int, ...] = tuple(sorted(SPECIES.keys() - set(TEST_CLASSES)))


def class_name(class_id: int) -> str:
    """The name of a species in the class lists, which is also the name of its folder."""
    return f"species_{class_id:03d}"
