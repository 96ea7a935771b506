"""The 80 species of the embedded data set: their palette, their attributes and their split."""

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


# Ten species of each petal colour; the tenth is a test species. Its single attributes are all seen
# in training, its triple of petal colour, centre colour and background never.
_SPECIES_BY_PETAL_COLOR: dict[str, tuple[tuple[str, str, int, str, str], ...]] = {
    "red": (
        ("green", "sky", 5, "heart", "large"),
        ("black", "stone", 6, "narrow", "large"),
        ("green", "leaves", 4, "heart", "small"),
        ("yellow", "soil", 8, "narrow", "small"),
        ("white", "night", 8, "round", "small"),
        ("white", "sky", 12, "pointed", "large"),
        ("yellow", "leaves", 4, "round", "large"),
        ("black", "night", 12, "pointed", "small"),
        ("white", "stone", 6, "round", "large"),
        ("white", "soil", 8, "pointed", "small"),
    ),
    "orange": (
        ("black", "stone", 5, "heart", "small"),
        ("red", "soil", 5, "pointed", "small"),
        ("white", "sky", 4, "round", "small"),
        ("green", "leaves", 4, "round", "small"),
        ("red", "night", 8, "narrow", "small"),
        ("yellow", "leaves", 12, "narrow", "large"),
        ("yellow", "sky", 6, "heart", "large"),
        ("white", "soil", 12, "pointed", "large"),
        ("black", "night", 6, "narrow", "large"),
        ("green", "sky", 6, "heart", "large"),
    ),
    "yellow": (
        ("black", "leaves", 8, "pointed", "large"),
        ("red", "sky", 5, "round", "large"),
        ("green", "stone", 12, "pointed", "small"),
        ("white", "soil", 6, "narrow", "large"),
        ("green", "night", 4, "heart", "large"),
        ("white", "leaves", 4, "round", "small"),
        ("black", "sky", 5, "narrow", "small"),
        ("red", "soil", 12, "heart", "small"),
        ("white", "stone", 6, "round", "small"),
        ("black", "night", 8, "narrow", "large"),
    ),
    "pink": (
        ("yellow", "stone", 6, "round", "large"),
        ("red", "night", 6, "pointed", "small"),
        ("green", "leaves", 5, "heart", "large"),
        ("red", "sky", 8, "narrow", "large"),
        ("black", "soil", 6, "heart", "large"),
        ("white", "leaves", 4, "round", "small"),
        ("green", "sky", 12, "pointed", "small"),
        ("yellow", "night", 4, "narrow", "small"),
        ("white", "soil", 5, "heart", "large"),
        ("black", "stone", 12, "narrow", "small"),
    ),
    "magenta": (
        ("green", "sky", 8, "narrow", "large"),
        ("green", "stone", 12, "narrow", "large"),
        ("yellow", "soil", 5, "heart", "large"),
        ("white", "stone", 6, "round", "large"),
        ("black", "night", 8, "pointed", "small"),
        ("red", "leaves", 4, "pointed", "small"),
        ("red", "sky", 4, "heart", "small"),
        ("yellow", "leaves", 12, "round", "small"),
        ("black", "soil", 5, "narrow", "large"),
        ("white", "leaves", 5, "round", "large"),
    ),
    "purple": (
        ("white", "leaves", 5, "heart", "small"),
        ("green", "sky", 4, "round", "large"),
        ("yellow", "night", 6, "round", "large"),
        ("red", "stone", 8, "narrow", "small"),
        ("red", "soil", 8, "pointed", "small"),
        ("black", "sky", 12, "pointed", "large"),
        ("green", "night", 4, "narrow", "large"),
        ("yellow", "leaves", 5, "heart", "small"),
        ("black", "stone", 6, "round", "large"),
        ("green", "soil", 5, "pointed", "small"),
    ),
    "blue": (
        ("white", "soil", 12, "pointed", "small"),
        ("red", "leaves", 5, "heart", "small"),
        ("yellow", "stone", 12, "pointed", "large"),
        ("black", "night", 8, "narrow", "small"),
        ("black", "stone", 6, "round", "small"),
        ("green", "sky", 4, "round", "large"),
        ("red", "sky", 8, "heart", "large"),
        ("white", "leaves", 5, "narrow", "large"),
        ("green", "night", 6, "pointed", "small"),
        ("yellow", "night", 4, "heart", "small"),
    ),
    "white": (
        ("red", "night", 4, "heart", "large"),
        ("yellow", "stone", 8, "narrow", "large"),
        ("black", "night", 12, "pointed", "small"),
        ("green", "soil", 8, "pointed", "small"),
        ("yellow", "soil", 5, "heart", "small"),
        ("red", "sky", 6, "round", "large"),
        ("green", "leaves", 12, "narrow", "small"),
        ("black", "stone", 4, "round", "large"),
        ("yellow", "leaves", 5, "heart", "small"),
        ("red", "leaves", 6, "round", "large"),
    ),
}

SPECIES: dict[int, Species] = dict(
    enumerate(
        (
            Species(petal_color, *attributes)
            for petal_color, rows in _SPECIES_BY_PETAL_COLOR.items()
            for attributes in rows
        ),
        start=1,
    )
)
TEST_CLASSES: tuple[int, ...] = tuple(number for number in SPECIES if number % 10 == 0)
TRAIN_CLASSES: tuple[int, ...] = tuple(number for number in SPECIES if number % 10 != 0)


def class_name(class_id: int) -> str:
    """The name of a species in the class lists, which is also the name of its folder."""
    return f"species_{class_id:02d}"
