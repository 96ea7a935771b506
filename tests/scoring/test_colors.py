import numpy as np
import pytest
from PIL import Image

from sdn_ray.errors import UserError
from sdn_ray.runs.terminal import Display
from sdn_ray.scoring.colors import fit_colors

RED, BLUE = (220, 30, 30), (40, 40, 220)


@pytest.fixture
def images(tmp_path):
    """Paths of five red and five blue images, and one that is broken."""
    colors = {}
    for number in range(10):
        name, rgb = [("red", RED), ("blue", BLUE)][number % 2]
        path = tmp_path / f"{number}.png"
        Image.new("RGB", (32, 32), rgb).save(path)
        colors[str(path)] = name
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    return colors | {str(broken): "red"}


def test_a_broken_training_image_is_named(images):
    with pytest.raises(UserError, match=r"broken\.png: does not decode.*--skip_bad"):
        fit_colors(images, skip_bad=False, workers=None, display=Display())


def test_or_left_out(images):
    colors = fit_colors(images, skip_bad=True, workers=None, display=Display())
    assert colors.images == 10
    plain = [np.full((48, 48, 3), rgb, np.uint8) for rgb in (RED, BLUE)]
    assert colors(plain) == ["red", "blue"]
