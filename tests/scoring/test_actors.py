import numpy as np
import pytest
from PIL import Image

from sdn_ray.metrics.fsim import fsim
from sdn_ray.metrics.ssim import ssim
from sdn_ray.scoring.actors import ScoringActor

SIZE = 24


@pytest.fixture
def rows(tmp_path):
    """Two pairs: smooth drawn images of 16×16 and of 48×48, and a photograph of 40×30 of each."""
    random = np.random.default_rng(0)
    rows = []
    for index, side in enumerate((16, 48)):
        for name, shape in (("drawn", (side, side)), ("real", (40, 30))):
            coarse = Image.fromarray(random.integers(0, 255, (6, 6, 3), dtype=np.uint8))
            coarse.resize(shape, Image.Resampling.BILINEAR).save(tmp_path / f"{name}{index}.png")
        pair = {"real": str(tmp_path / f"real{index}.png"), "drawn_from_it": [index]}
        row = {"set": 0, "index": index, "row": None, "sample": 0, "caption": f"caption {index}"}
        path = str(tmp_path / f"drawn{index}.png")
        rows.append(row | pair | {"path": path, "pair_caption": row["caption"]})
    return rows


def at(path, side):
    return np.array(Image.open(path).resize((side, side), Image.Resampling.BICUBIC))


def scored(rows, **options):
    return ScoringActor([2], [None], None, splits=1, seed=0, **options)(rows)[1]


def test_pairs_are_compared_at_one_size_where_one_is_given(rows):
    found = scored(rows, compare_size=SIZE)
    pairs = [(at(row["real"], SIZE), at(row["path"], SIZE)) for row in rows]
    assert found.ssim == pytest.approx([ssim(*pair) for pair in pairs])
    assert found.fsim == pytest.approx([fsim(*pair) for pair in pairs], abs=1e-6)
    for picture, (real, drawn) in zip(found.pictures, pairs, strict=True):
        assert (picture.real == real).all()
        assert (picture.drawn == drawn).all()
    assert found.size == (16, 16)  # of the images themselves


def test_without_a_size_each_pair_has_that_of_its_image(rows):
    sides = (16, 48)
    pairs = [
        (at(r["real"], side), at(r["path"], side)) for r, side in zip(rows, sides, strict=True)
    ]
    expected = [ssim(*pair) for pair in pairs]
    assert scored(rows).ssim == pytest.approx(expected)
    own = scored(rows[:1], compare_size=16)
    assert own.ssim == pytest.approx(expected[:1])
    assert scored(rows, compare_size=SIZE).ssim != pytest.approx(expected, abs=0.01)
