from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image

from sdn_ray.data.readers.oxford_flowers import read_oxford_flowers
from sdn_ray.errors import UserError
from sdn_ray.preparation.images import prepare_images

pytestmark = pytest.mark.usefixtures("ray_cluster")


def prepared(root, tmp_path, **options):
    terminal = Mock()
    images = prepare_images(
        read_oxford_flowers(root),
        32,
        tmp_path / "cache",
        terminal,
        **options,
    )
    return images, [call.args for call in terminal.progress.call_args_list]


def test_images_are_decoded_whole_and_once(photographs, tmp_path):
    odd = photographs / "jpg" / "image_00001.jpg"
    Image.linear_gradient("L").resize((90, 30)).save(odd)  # grey, and not square
    images, seen = prepared(photographs, tmp_path)
    array = images.images()
    assert array.shape == (60, 32, 32, 3)
    assert array.dtype == np.uint8
    for place in (0, 17, 59):
        with Image.open(images.dataset.rows[place].image_path) as image:
            expected = image.convert("RGB").resize((32, 32), Image.Resampling.BICUBIC)
        assert (array[place] == np.asarray(expected)).all()
    assert seen[-1] == ("decoding images", 60, 60)
    again, seen = prepared(photographs, tmp_path)
    assert again.key == images.key
    assert not seen
    Image.new("RGB", (8, 8), "red").save(odd)
    assert prepared(photographs, tmp_path)[0].key != images.key


def test_an_image_that_does_not_decode_is_named_or_left_out(photographs, tmp_path):
    bad = photographs / "jpg" / "image_00007.jpg"
    bad.write_bytes(bad.read_bytes()[:400])
    with pytest.raises(UserError, match=r"image_00007\.jpg.*skip_bad"):
        prepared(photographs, tmp_path)
    images, _ = prepared(photographs, tmp_path, skip_bad=True)
    assert [item.path for item in images.dataset.bad_items] == [bad]
    assert len(images.dataset.rows) == len(images.images()) == 59
    assert (images.images()[6] != 0).any()
    with Image.open(images.dataset.rows[6].image_path) as image:
        expected = image.convert("RGB").resize((32, 32), Image.Resampling.BICUBIC)
    assert (images.images()[6] == np.asarray(expected)).all()
