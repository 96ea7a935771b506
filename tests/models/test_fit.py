import numpy as np
import pytest
import torch
from torch import nn

from sdn_ray.errors import UserError
from sdn_ray.models.fit import FitSettings, _Classifier, fit_teacher
from sdn_ray.models.plan import Plan

COLOURS = np.array([[200, 60, 60], [60, 200, 60], [60, 60, 200]])


def coloured(per_class=40, size=8):
    """Noise about one of three colours; classes 3, 5 and 9, mixed."""
    draws = np.random.default_rng(0)
    labels = draws.permutation(np.repeat(np.arange(3), per_class))
    noise = draws.normal(0, 40, (len(labels), size, size, 3))
    images = (COLOURS[labels][:, None, None] + noise).clip(0, 255).astype(np.uint8)
    return images, np.array([3, 5, 9])[labels]


def fit(seed=0, plan="6,M,8", epochs=4, batch_size=12, **options):
    seen = []
    settings = FitSettings(epochs, batch_size=batch_size, learning_rate=0.02, seed=seed)
    teacher = fit_teacher(*coloured(), Plan.parse(plan), settings, on_epoch=seen.append, **options)
    return teacher, seen


def test_folding_batch_norm_changes_no_feature():
    torch.manual_seed(0)
    plan = Plan.parse("5,6,M,7,M,8")
    model = _Classifier(plan, 4, grid=1).eval()
    for layer in model.features:
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.weight, 1, 0.5)
            nn.init.normal_(layer.bias)
            nn.init.normal_(layer.running_mean)
            nn.init.uniform_(layer.running_var, 0.1, 3)
    teacher = model.folded(plan)
    images = torch.randn(2, 3, 16, 16)
    expected, x = [], images
    for layer in model.features:
        x = layer(x)
        if isinstance(layer, nn.ReLU):
            expected.append(x)
    found = teacher(images)
    assert len(found) == len(expected) == 4
    for own, reference in zip(found, expected, strict=True):
        torch.testing.assert_close(own, reference, rtol=1e-5, atol=1e-5)
    assert not any(parameter.requires_grad for parameter in teacher.parameters())


def test_learns_colours():
    teacher, seen = fit(epochs=6)
    assert [(e.epoch, e.epochs) for e in seen] == [(n, 6) for n in range(1, 7)]
    assert seen[-1].held_out_accuracy > 0.9  # chance: a third
    assert seen[-1].loss < 0.5 * np.log(3)
    assert teacher.plan == Plan.parse("6,M,8")
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert all(parameter.isfinite().all() for parameter in teacher.parameters())


def test_the_seed_settles_every_bit():
    torch.manual_seed(1)
    first, epochs = fit(epochs=2)
    torch.manual_seed(2)
    second, same = fit(epochs=2)
    other, _ = fit(seed=1, epochs=2)
    assert epochs == same
    for name, value in first.state_dict().items():
        assert torch.equal(second.state_dict()[name], value), name
        assert not torch.equal(other.state_dict()[name], value), name


def test_a_grid_tells_apart_what_differs_in_layout():
    """One bright square on black, in the upper or in the lower half: its mean is the same."""
    draws = np.random.default_rng(0)
    labels = np.repeat([0, 1], 60)
    images = np.zeros((120, 32, 32, 3), np.uint8)
    for image, label in zip(images, labels, strict=True):
        row, column = 9 + 12 * label + draws.integers(-1, 2), draws.integers(12, 18)
        image[row : row + 3, column : column + 3] = 255
    accuracy = {}
    for grid in (1, 2):
        seen = []
        settings = FitSettings(8, batch_size=12, learning_rate=0.02, grid=grid)
        teacher = fit_teacher(images, labels, Plan.parse("6,M,6"), settings, on_epoch=seen.append)
        accuracy[grid] = seen[-1].held_out_accuracy
        assert teacher.plan == Plan.parse("6,M,6")
    assert accuracy[2] == 1.0
    assert accuracy[1] < 0.8


def test_a_grid_has_no_more_parts_than_the_maps_have_pixels():
    """Images of 8 pixels and two pools: the last maps have 2."""
    images, labels = coloured(size=8)
    found = [
        fit_teacher(
            images, labels, Plan.parse("6,M,8,M"), FitSettings(1, 12, 0.02, grid=grid)
        ).state_dict()
        for grid in (2, 8)
    ]
    for name, value in found[0].items():
        assert torch.equal(found[1][name], value), name


def test_one_class_is_too_few():
    images, _ = coloured(4)
    with pytest.raises(UserError, match="found 1 training classes, expected at least 2"):
        fit_teacher(
            images,
            np.zeros(12, dtype=int),
            Plan.parse("4"),
            FitSettings(epochs=1, batch_size=2, learning_rate=0.01),
        )


def test_a_batch_of_more_images_than_there_are():
    # 4 of each class's 40 images are held out.
    with pytest.raises(UserError, match="batch_size: found 109, expected at most the 108 images"):
        fit(batch_size=109)
