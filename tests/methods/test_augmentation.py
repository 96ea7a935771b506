import numpy as np
import pytest
import torch

from sdn_ray.methods.augmentation import DRAWS, augmented

MIDDLE = {"brightness": 0.5, "saturation": 0.5, "contrast": 0.5, "down": 0.5, "across": 0.5}
PLACES = [*MIDDLE, "hole_down", "hole_across"]


def normals(batch=1, **uniforms):
    """Normal numbers that are these uniform ones; the hole is in the upper left corner."""
    uniforms = MIDDLE | {"hole_down": 1e-6, "hole_across": 1e-6} | uniforms
    row = torch.tensor([uniforms[place] for place in PLACES], dtype=torch.float64)
    return torch.special.ndtri(row).float().expand(batch, DRAWS)


def images_of(batch=1, height=8, width=8, seed=0):
    random = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 3, height, width, generator=random)


def test_in_the_middle_only_the_hole_changes():
    images = images_of(2)
    found = augmented(images, torch.zeros(2, DRAWS))
    assert found.dtype == torch.float32
    expected = images.clone()
    expected[:, :, 2:6, 2:6] = 0
    assert torch.equal(found, expected)


def in_light(image, brightness=0.5, saturation=0.5, contrast=0.5):
    image = image + (2 * brightness - 1)
    grey = image.mean(0)
    image = grey + 2 * saturation * (image - grey)
    return image.mean() + (0.5 + contrast) * (image - image.mean())


@pytest.mark.parametrize(
    "light",
    [
        {"brightness": 0.75},
        {"brightness": 0.1},
        {"saturation": 0.2},
        {"saturation": 0.95},
        {"contrast": 0.9},
        {"contrast": 0.05},
        {"brightness": 0.8, "saturation": 0.3, "contrast": 0.7},
    ],
    ids=str,
)
def test_light_by_hand(light):
    images = images_of()
    found = augmented(images, normals(**light))[0].numpy()
    expected = in_light(images[0].numpy().astype(np.float64), **light)
    expected[:, :2, :2] = 0  # the corner of the hole that is within the image
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_without_saturation_a_picture_is_grey():
    found = augmented(images_of(), normals(saturation=1e-6))[0]
    torch.testing.assert_close(found, found.mean(0).expand(3, 8, 8), rtol=0, atol=1e-4)


@pytest.mark.parametrize("down", range(-2, 3))
@pytest.mark.parametrize("across", range(-1, 2))
def test_a_bright_pixel_moves_by_whole_pixels(down, across):
    """Up to an eighth of 16 rows and of 8 columns, every distance as often as any other."""
    image, expected = torch.zeros(1, 3, 16, 8), torch.zeros(1, 3, 16, 8)
    image[0, 1, 9, 5] = 4
    expected[0, 1, 9 + down, 5 + across] = 4
    for within in (0.01, 0.5, 0.99):
        uniforms = {"down": (2 - down + within) / 5, "across": (1 - across + within) / 3}
        assert torch.equal(augmented(image, normals(**uniforms)), expected)


@pytest.mark.parametrize(("end", "shift"), [(-20.0, 1), (20.0, -1)])
def test_the_ends_of_the_normal_law(end, shift):
    draws = torch.zeros(1, DRAWS)
    draws[:, 3:] = end
    image = images_of()
    expected = image.roll((shift, shift), (2, 3))
    outside = 0 if shift > 0 else -1  # where the hole is, too
    corner = slice(0, 2) if shift > 0 else slice(6, 8)
    expected[:, :, outside] = expected[:, :, :, outside] = 0
    expected[:, :, corner, corner] = 0
    assert torch.equal(augmented(image, draws), expected)


def test_what_comes_in_from_outside_is_the_mean_colour():
    ones = torch.ones(1, 3, 8, 8)
    found = augmented(ones, normals(down=0.9, hole_down=1 - 1e-6))[0, 0]
    assert found[-1].tolist() == [0] * 8
    assert found[:4].tolist() == [[1] * 8] * 4


@pytest.mark.parametrize(("down", "across"), [(0.5, 0.5), (0.3, 0.7), (0.05, 0.6), (0.99, 0.01)])
def test_the_place_and_size_of_the_hole(down, across):
    found = augmented(torch.ones(1, 3, 16, 8), normals(hole_down=down, hole_across=across))
    rows = [abs(row + 0.5 - 16 * down) <= 4 for row in range(16)]
    columns = [abs(column + 0.5 - 8 * across) <= 2 for column in range(8)]
    expected = 1.0 - np.outer(rows, columns)
    assert 0 < (expected == 0).sum() <= 8 * 4
    for channel in found[0].numpy():
        np.testing.assert_array_equal(channel, expected)


def test_what_is_done_to_one_image_does_not_depend_on_the_others():
    images = images_of(5, seed=1)
    draws = torch.randn(5, DRAWS, generator=torch.Generator().manual_seed(0))
    together = augmented(images, draws)
    for place in range(5):
        one = slice(place, place + 1)
        alone = augmented(images[one], draws[one])
        torch.testing.assert_close(together[one], alone, rtol=0, atol=1e-6)
    shown = augmented(images[:1].expand(5, 3, 8, 8), draws)
    assert not any(torch.allclose(shown[0], other) for other in shown[1:])


def test_gradients_pass_but_through_the_hole():
    images = images_of().requires_grad_()
    augmented(images, torch.zeros(1, DRAWS)).sum().backward()
    expected = torch.ones(1, 3, 8, 8)
    expected[:, :, 2:6, 2:6] = 0
    assert torch.equal(images.grad, expected)


def test_gradients_by_finite_differences():
    images = images_of(2, 4, 4).double().requires_grad_()
    draws = torch.randn(2, DRAWS, generator=torch.Generator().manual_seed(1)).double()
    assert torch.autograd.gradcheck(lambda x: augmented(x, draws), images)
