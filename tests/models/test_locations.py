"""Maps of parts, and cropping and pasting, against NumPy."""

import numpy as np
import pytest
import torch

from sdn_ray.models.locations import crop, mask, part_maps, paste, visible

# Corners and sides at cells of a grid of 16, whose outermost ones are 15 steps apart.
ALIGNED = [[3 / 15, 5 / 15, 6 / 15, 9 / 15], [0, 0, 1, 1], [9 / 15, 0, 6 / 15, 3 / 15]]


def maps_of(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def boxes_of(count, seed=0):
    random = np.random.default_rng(seed)
    sides = random.uniform(0.1, 0.9, (count, 2))
    corners = random.uniform(0, 1 - sides)
    return np.concatenate([corners, sides], 1).astype(np.float32)


def sampled(image, rows, columns):
    """One map at fractional rows and columns, bilinearly, with zeros around it."""
    padded = np.pad(image, 2)
    rows, columns = (np.clip(places + 2, 0, len(padded) - 1.5) for places in (rows, columns))
    top, left = rows.astype(int), columns.astype(int)
    down, right = (rows - top)[:, None], (columns - left)[None]
    upper, lower = (
        padded[row][:, left] * (1 - right) + padded[row][:, left + 1] * right
        for row in (top, top + 1)
    )
    return upper * (1 - down) + lower * down


def cropped(image, box):
    """The box fills the grid: its corners are those of the map, whose cells are their middles."""
    last = len(image) - 1
    places = np.linspace(0, 1, len(image))
    x, y, w, h = box
    return sampled(image, (y + h * places) * last, (x + w * places) * last)


def pasted(image, box):
    """The grid shrinks into the box."""
    last = len(image) - 1
    places = np.linspace(0, 1, len(image))
    x, y, w, h = box
    return sampled(image, (places - y) / h * last, (places - x) / w * last)


@pytest.mark.parametrize("cells", [8, 16])
def test_part_maps_by_hand(cells):
    random = np.random.default_rng(0)
    parts = random.uniform(-0.2, 1.2, (5, 4, 3)).astype(np.float32)
    parts[0, 0] = 1, 0, 1  # on the very edge
    parts[..., 2] = parts[..., 2] > 0.4
    expected = np.zeros((5, 4, cells, cells), np.float32)
    for image, part in np.ndindex(5, 4):
        x, y, seen = parts[image, part]
        column, row = (min(max(int(np.floor(place * cells)), 0), cells - 1) for place in (x, y))
        expected[image, part, row, column] = seen
    found = part_maps(torch.from_numpy(parts), cells)
    assert found.dtype == torch.float32
    np.testing.assert_array_equal(found.numpy(), expected)
    assert 0 < expected.sum() < 20


def test_a_part_is_in_the_row_of_its_y():
    maps = part_maps(torch.tensor([[[0.99, 0.0, 1.0], [0.5, 0.26, 0.51]]]), 4)
    assert maps[0, 0, 0, 3] == maps[0, 1, 1, 2] == 1
    assert maps.sum() == 2


def test_hidden_parts_are_nowhere():
    parts = torch.tensor([[[0.3, 0.4, 0.0], [0.3, 0.4, 0.5], [0.3, 0.4, 1.0]]])
    assert visible(parts).tolist() == [[False, False, True]]
    assert part_maps(parts, 8).sum((2, 3)).tolist() == [[0, 0, 1]]


def test_the_mask_is_where_any_part_is():
    parts = torch.tensor([[[0.1, 0.1, 1], [0.1, 0.1, 1], [0.9, 0.4, 1], [0.5, 0.5, 0]]])
    found = mask(part_maps(parts, 4))
    assert found.shape == (1, 1, 4, 4)
    expected = torch.zeros(4, 4)
    expected[0, 0] = expected[1, 3] = 1  # one, where two parts are
    assert torch.equal(found[0, 0], expected)


@pytest.mark.parametrize(("function", "by_hand"), [(crop, cropped), (paste, pasted)])
@pytest.mark.parametrize("cells", [8, 16])
def test_crop_and_paste_by_hand(function, by_hand, cells):
    maps, boxes = maps_of(6, 2, cells, cells), boxes_of(6)
    found = function(maps, torch.from_numpy(boxes)).numpy()
    for image, channel in np.ndindex(6, 2):
        expected = by_hand(maps[image, channel].numpy(), boxes[image].astype(float))
        np.testing.assert_allclose(found[image, channel], expected, atol=1e-4)


def test_a_bright_pixel_is_pasted_into_the_box():
    maps = torch.zeros(1, 1, 16, 16)
    maps[0, 0, 15, 0] = 1  # lower left
    found = paste(maps, torch.tensor([[3 / 15, 5 / 15, 6 / 15, 9 / 15]]))
    assert torch.argmax(found.flatten()) == (5 + 9) * 16 + 3
    torch.testing.assert_close(found.max(), torch.tensor(1.0))


def test_paste_is_zero_outside_the_box():
    boxes = torch.from_numpy(boxes_of(40))
    found = paste(torch.ones(40, 1, 16, 16), boxes)[:, 0].numpy()
    places = np.arange(16) / 15
    inside = np.zeros_like(found, dtype=bool)
    near = np.zeros_like(inside)
    for image, (x, y, w, h) in enumerate(boxes.numpy()):
        # The edge of the map fades over one of its own cells, which is w / 15 wide here.
        for where, margin in ((inside, 0), (near, 1 / 15)):
            across, along = (
                (places >= corner - side * margin) & (places <= corner + side * (1 + margin))
                for corner, side in ((x, w), (y, h))
            )
            where[image] = along[:, None] & across[None]
    np.testing.assert_allclose(found[inside], 1, atol=1e-4)
    assert not found[~near].any()
    assert inside.any()
    assert (~near).any()


def test_a_crop_of_a_constant_is_constant():
    found = crop(torch.full((40, 2, 8, 8), 3.0), torch.from_numpy(boxes_of(40)))
    torch.testing.assert_close(found, torch.full_like(found, 3.0), rtol=1e-4, atol=1e-4)


def test_paste_then_crop_with_one_box_returns_the_map():
    """A ramp is what shrinking does not blur, where the box is at cells of the grid."""
    rows, columns = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    ramp = (2 + columns - 3 * rows).expand(3, 2, 16, 16)
    boxes = torch.tensor(ALIGNED)
    torch.testing.assert_close(crop(paste(ramp, boxes), boxes), ramp, rtol=1e-4, atol=1e-3)


def test_the_whole_image_as_a_box_changes_nothing():
    maps, boxes = maps_of(2, 3, 8, 8), torch.tensor([[0.0, 0, 1, 1]] * 2)
    torch.testing.assert_close(crop(maps, boxes), maps, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(paste(maps, boxes), maps, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("function", [crop, paste])
def test_small_boxes_keep_their_middle(function):
    maps = maps_of(2, 1, 16, 16)
    small = torch.tensor([[0.5, 0.3, 0.0, 0.25], [0.9, 0.9, 0.01, 0.02]])
    least = 1 / 16
    large = torch.tensor(
        [
            [0.5 - least / 2, 0.3, least, 0.25],
            [0.905 - least / 2, 0.91 - least / 2, least, least],
        ]
    )
    found, expected = function(maps, small), function(maps, large)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    assert found.isfinite().all()
    assert found[0].any()


@pytest.mark.parametrize("function", [crop, paste])
def test_precision_of_maps_and_gradients(function):
    """Under autocast places stay exact, and the result is as precise as the maps."""
    maps, boxes = maps_of(4, 2, 16, 16).bfloat16(), torch.from_numpy(boxes_of(4))
    with torch.autocast("cpu", torch.bfloat16):
        found = function(maps, boxes)
        exact = function(maps.float(), boxes)
    assert found.dtype == torch.bfloat16
    assert exact.dtype == torch.float32
    assert torch.equal(exact, function(maps.float(), boxes))
    assert torch.equal(found, exact.bfloat16())
    maps = maps.float().requires_grad_()
    function(maps, boxes).square().sum().backward()
    assert maps.grad.isfinite().all()
    assert maps.grad.any()
