import numpy as np
import pytest
from PIL import Image

from sdn_ray.data.scaled import smaller_images, write_smaller


def new_images(count, height=12, width=16):
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def resized(image, side):
    """By Pillow, channel by channel in floating point."""
    channels = [Image.fromarray(channel) for channel in (image / 127.5 - 1).transpose(2, 0, 1)]
    small = [one.resize((side, side), Image.Resampling.BICUBIC) for one in channels]
    return np.stack([np.asarray(one) for one in small], axis=2).clip(-1, 1)


def test_smaller_images_are_those_of_another_library():
    images = new_images(5)
    images[0] = 255
    found = smaller_images(images, 4)
    assert (found.shape, found.dtype) == ((2, 5, 4, 4, 3), np.float32)
    mirrored = images[:, :, ::-1]
    expected = [[resized(image.astype(np.float32), 4) for image in o] for o in (images, mirrored)]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert found[:, 0] == pytest.approx(1.0)


def test_sharp_edges_stay_within_what_images_can_be():
    stripes = np.zeros((1, 8, 16, 3), np.uint8)
    stripes[:, :, 6:] = 255
    found = smaller_images(stripes, 8)[0]
    assert found.min() == -1
    assert found.max() == 1


def test_smaller_images_do_not_depend_on_those_beside_them():
    images = new_images(5)
    np.testing.assert_array_equal(smaller_images(images[2:4], 4), smaller_images(images, 4)[:, 2:4])


def test_many_images_are_made_smaller_in_parts(tmp_path):
    np.save(tmp_path / "images.npy", new_images(37))
    images, told = np.load(tmp_path / "images.npy", mmap_mode="r"), []
    write_smaller(images, 4, tmp_path / "small.npy", lambda *done: told.append(done))
    np.testing.assert_array_equal(np.load(tmp_path / "small.npy"), smaller_images(images, 4))
    assert told == [(16, 37), (32, 37), (37, 37)]
