import numpy as np
import pytest
from PIL import Image

from sdn_ray.pictures import captioned_grid, loss_curves

CAPTIONS = [
    "a yellow flower with a red center and many thin petals",
    "blue",
    "",
    "φ → 花",
    "x" * 99,
]


def flat(value, size=128):
    """An image of one colour, which no text has."""
    return np.full((size, size, 3), (value, 0, 200), dtype=np.uint8)


def places(path, value):
    """Where the sheet shows `flat(value)`: the corners, and the number of pixels."""
    sheet = np.asarray(Image.open(path).convert("RGB"))
    found = np.argwhere((sheet == (value, 0, 200)).all(2))
    return found.min(0), found.max(0) + 1, len(found)


@pytest.mark.parametrize("headers", [(), ("real", "generated")])
def test_a_grid_shows_every_image(tmp_path, headers):
    pairs = [(flat(10 + 20 * i), flat(20 + 20 * i)) for i in range(5)]
    captioned_grid(tmp_path / "grid.png", CAPTIONS, pairs, headers, columns=2)
    corners = []
    for value in range(10, 110, 10):
        first, last, pixels = places(tmp_path / "grid.png", value)
        assert (last - first).tolist() == [128, 128]
        assert pixels == 128 * 128
        corners.append(first)
    for real, generated in zip(corners[::2], corners[1::2], strict=True):
        assert generated[0] == real[0]
        assert generated[1] > real[1]
    rows = [corner[0] for corner in corners[::2]]  # of cells, two a row
    assert rows[0] == rows[1] < rows[2] == rows[3] < rows[4]
    assert corners[0][1] == corners[4][1] == corners[8][1] < corners[2][1]
    assert [path.name for path in tmp_path.iterdir()] == ["grid.png"]


def test_small_images_are_enlarged_and_large_ones_not(tmp_path):
    captioned_grid(tmp_path / "small.png", ["a"], [[flat(50, 16)]])
    captioned_grid(tmp_path / "large.png", ["a"], [[flat(50, 200)]])
    for name, side in (("small", 128), ("large", 200)):
        assert places(tmp_path / f"{name}.png", 50)[2] == side**2


def test_loss_curves(tmp_path):
    epochs = [
        {"loss": 3.0, "validation/ssim": 0.1},
        {"loss": 2.0},
        {"loss": 9.0, "validation/ssim": 0.2, "validation/score": 2.0, "validation/score_std": 0.1},
    ]
    loss_curves(tmp_path / "one.png", epochs[:1], ["stage_one"])
    loss_curves(tmp_path / "two.png", epochs, ["stage_one", "stage_one", "stage_two"])
    heights = [Image.open(tmp_path / name).height for name in ("one.png", "two.png")]
    assert heights == [round(2.2 * panels * 110) for panels in (2, 3)]
