from unittest.mock import Mock

import numpy as np
import pytest

from sdn_ray.cluster.tasks import run_locally
from sdn_ray.data.prepared import PreparedImages
from sdn_ray.data.rows import CaptionedDataset
from sdn_ray.data.scaled import smaller_images
from sdn_ray.errors import UserError
from sdn_ray.files import read_array
from sdn_ray.preparation.smaller import prepare_smaller
from sdn_ray.training.build import smaller_sides
from tests.training.configs import adversarial, config_of, gan, gawwn, stackgan


def prepared(cache, key="key"):
    images = np.random.default_rng(len(key)).integers(0, 256, (20, 16, 16, 3), dtype=np.uint8)
    path = cache / f"images-{key}" / "images.npy"
    path.parent.mkdir(parents=True)
    np.save(path, images)
    return PreparedImages(key, CaptionedDataset("toy", ()), path)


def refuse(*_):
    raise AssertionError("made again")


def test_smaller_images_are_made_once_for_each_size(tmp_path):
    images, terminal = prepared(tmp_path), Mock()
    paths = prepare_smaller(images, [4, 8], run_locally, terminal)
    assert paths.keys() == {4, 8}
    for side, path in paths.items():
        assert path.parent == tmp_path
        np.testing.assert_array_equal(np.load(path), smaller_images(images.images(), side))
    assert terminal.progress.call_args_list[-1].args == ("smaller images", 20, 20)
    assert prepare_smaller(images, [8, 4], refuse, Mock()) == paths
    other = prepare_smaller(prepared(tmp_path, "another"), [4], run_locally, Mock())
    assert other[4] != paths[4]
    assert prepare_smaller(images, [], refuse, Mock()) == {}


def test_an_end_half_way_leaves_nothing_in_the_cache(tmp_path):
    terminal = Mock()
    terminal.progress.side_effect = KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        prepare_smaller(prepared(tmp_path), [4], run_locally, terminal)
    assert [path.name for path in tmp_path.iterdir()] == ["images-key"]


def test_a_damaged_file_is_named(tmp_path):
    (path,) = prepare_smaller(prepared(tmp_path), [4], run_locally, Mock()).values()
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match=f"{path}: cannot be read .* made again"):
        read_array(path)


@pytest.mark.parametrize(
    ("config", "sides"),
    [
        (stackgan(64, 16), [16]),
        (stackgan(256, 64), [64]),
        (stackgan(32, 32, two=0), []),
        (config_of(), []),
        (adversarial(), []),
        (gan(), []),
        (gawwn(), []),
    ],
)
def test_only_the_first_of_two_sizes_is_made(config, sides):
    assert smaller_sides(config) == sides
