import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from sdn_ray.data.synthetic.drawing import draw_flower
from sdn_ray.data.synthetic.species import PETAL_COLORS, SPECIES, TEST_CLASSES, Species
from sdn_ray.metrics.attributes import (
    AttributeReadings,
    Shown,
    agreement,
    measure_attributes,
    shuffled_agreement,
)

PER_SPECIES = 2
EVERYTHING = frozenset(
    ("petal_color", "center_color", "background", "petal_count", "petal_shape", "size")
)
SHOWN = [Shown(species, EVERYTHING) for species in SPECIES.values() for _ in range(PER_SPECIES)]


@pytest.fixture(scope="module")
def drawn() -> np.ndarray:
    """Images (species, image, 64, 64, 3)."""
    return np.array(
        [
            [draw_flower(species, np.random.default_rng([11, number, index]), 64).image
             for index in range(PER_SPECIES)]
            for number, species in SPECIES.items()
        ]
    )  # fmt: skip


def test_reads_drawn_images(drawn):
    readings = measure_attributes(drawn.reshape(-1, 64, 64, 3))
    scores = agreement(readings, SHOWN)
    assert scores["petal_color"] >= 0.98
    assert scores["center_color"] >= 0.98
    assert scores["background"] >= 0.98
    assert scores["petal_count"] >= 0.97
    assert scores["petal_shape"] >= 0.95
    assert scores["size"] >= 0.95


def test_reads_drawn_images_of_the_test_species(drawn):
    of_test = drawn[[number - 1 for number in TEST_CLASSES]]
    shown = [
        Shown(SPECIES[number], EVERYTHING) for number in TEST_CLASSES for _ in range(PER_SPECIES)
    ]
    scores = agreement(measure_attributes(of_test.reshape(-1, 64, 64, 3)), shown)
    assert scores["petal_color"] >= 0.98
    assert scores["petal_count"] >= 0.95


@pytest.mark.parametrize("image_size", [32, 96])
def test_reads_images_of_other_sizes(image_size):
    chosen = list(SPECIES.values())[::4]
    images = np.array(
        [
            draw_flower(species, np.random.default_rng([12, index]), image_size).image
            for index, species in enumerate(chosen)
        ]
    )
    scores = agreement(measure_attributes(images), [Shown(s, EVERYTHING) for s in chosen])
    assert min(scores.values()) >= 0.95


def test_reads_petal_color_off_blurred_images(drawn):
    blurred = gaussian_filter(drawn.reshape(-1, 64, 64, 3), (0, 2.5, 2.5, 0))
    assert agreement(measure_attributes(blurred), SHOWN)["petal_color"] >= 0.95


def test_reads_petal_color_off_average_images(drawn):
    averages = drawn.mean(axis=1).astype(np.uint8)
    shown = [Shown(species, EVERYTHING) for species in SPECIES.values()]
    scores = agreement(measure_attributes(averages), shown)
    assert scores["petal_color"] >= 0.95
    assert scores["center_color"] >= 0.95
    assert scores["petal_count"] >= 0.95  # petals are turned alike


@pytest.mark.parametrize("petal_color", PETAL_COLORS)
def test_reads_a_plain_soft_disc(petal_color):
    # Not drawn by the embedded data set: a disc of one colour that fades into grey.
    rows, columns = np.mgrid[:48, :48] - 23.5
    share = np.clip((20 - np.hypot(rows, columns)) / 8, 0, 1)[..., None]
    image = share * np.array(PETAL_COLORS[petal_color]) + (1 - share) * np.array([150, 150, 148])
    readings = measure_attributes(image.astype(np.uint8)[None])
    assert readings.petal_color == (petal_color,)
    assert readings.background == ("stone",)


@pytest.mark.parametrize("count", [4, 5, 6, 8, 12])
def test_counts_petals(count):
    rows, columns = np.mgrid[:96, :96] - 47.5
    angle = np.arctan2(rows, columns)
    petals = np.hypot(rows, columns) < 32 * (1 + 0.25 * np.cos(count * angle + 0.7))
    image = np.where(petals[..., None], (250, 216, 45), (22, 25, 36)).astype(np.uint8)
    assert measure_attributes(image[None]).petal_count == (count,)


def test_an_image_of_nothing_is_read_without_warning():
    with np.errstate(all="raise"):
        readings = measure_attributes(np.full((2, 32, 32, 3), 90, np.uint8))
    assert len(readings.petal_color) == 2


def species(petal: str, count: int) -> Species:
    return Species(petal, "green", "soil", count, "round", "small")


def test_agreement_is_the_fraction_of_equal_attributes():
    readings = AttributeReadings(
        petal_color=("red", "blue", "white", "white"),
        center_color=("green", "green", "green", "red"),
        background=("soil",) * 4,
        petal_count=(4, 5, 6, 12),
        petal_shape=("round", "round", "heart", "round"),
        size=("small",) * 4,
    )
    meant = [species("red", 4), species("blue", 6), species("pink", 5), species("red", 8)]
    assert agreement(readings, [Shown(one, EVERYTHING) for one in meant]) == {
        "petal_color": 0.5,
        "center_color": 0.75,
        "background": 1.0,
        "petal_count": 0.25,
        "petal_shape": 0.75,
        "size": 1.0,
    }


def test_agreement_counts_the_captions_that_name_the_attribute():
    readings = AttributeReadings(
        petal_color=("red", "blue", "white"),
        center_color=("green",) * 3,
        background=("soil",) * 3,
        petal_count=(4, 5, 6),
        petal_shape=("round",) * 3,
        size=("small",) * 3,
    )
    captions = [
        "this flower has four red petals and a green center.",
        "a small pink flower with a green center above brown soil.",
        "five round white petals surround a red center.",
    ]
    meant = [species("red", 4), species("pink", 5), species("white", 5)]
    shown = [Shown.of(one, caption) for one, caption in zip(meant, captions, strict=True)]
    assert agreement(readings, shown) == {
        "petal_color": 2 / 3,
        "center_color": 1.0,
        "background": 1.0,
        "petal_count": 0.5,  # of the first and the third
        "petal_shape": 1.0,
        "size": 1.0,
    }
    assert agreement(readings, [Shown(one, frozenset()) for one in meant]) == {}


def test_shuffled_agreement_is_chance():
    names = list(PETAL_COLORS) * 400
    readings = AttributeReadings(
        petal_color=tuple(names),
        center_color=("green",) * 3200,
        background=("soil",) * 3200,
        petal_count=(4,) * 3200,
        petal_shape=("round",) * 3200,
        size=("small",) * 3200,
    )
    shown = [Shown(species(name, 4), EVERYTHING) for name in names]
    chance = shuffled_agreement(readings, shown, seed=3)
    # 1/8, with a standard deviation of about 0.006
    assert chance["petal_color"] == pytest.approx(0.125, abs=0.025)
    assert chance["center_color"] == 1.0
    assert shuffled_agreement(readings, shown, seed=3) == chance
    assert shuffled_agreement(readings, shown, seed=4) != chance
