import numpy as np
import pytest
import torch

from sdn_ray.distillation.layer_weights import (
    LayerWeights,
    check_factors,
    layer_weights,
    mean_feature_sizes,
)
from sdn_ray.errors import UserError
from sdn_ray.models.plan import Plan
from sdn_ray.models.teacher import Teacher

PLAN = Plan.parse("4,5,M,6,M,7")  # at 8×8: 4·64, 5·64, 6·16 and 7·4 elements
ELEMENTS = [256, 320, 96, 28]


def test_paper_weights_are_all_one():
    assert layer_weights("paper", {}, PLAN, 8) == LayerWeights((1.0, 1.0, 1.0, 1.0), 1.0)


def test_mean_weights_make_mean_absolute_errors():
    found = layer_weights("mean", {}, PLAN, 8)
    assert found.layers == pytest.approx([1 / n for n in ELEMENTS], rel=1e-12)
    assert found.image == pytest.approx(1 / (3 * 8 * 8), rel=1e-12)


def test_balanced_weights_divide_by_feature_size_and_number_of_layers():
    sizes = [0.5, 2.0, 0.25, 10.0]
    found = layer_weights("balanced", {}, PLAN, 8, torch.tensor(sizes))
    expected = [1 / (n * size * 4) for n, size in zip(ELEMENTS, sizes, strict=True)]
    assert found.layers == pytest.approx(expected, rel=1e-12)
    assert found.image == pytest.approx(1 / 192, rel=1e-12)


def test_balanced_features_of_zeros_add_up_to_one():
    """With G's features at zero, ‖φ_l^D − 0‖₁ is the layer's own size: the sum is one."""
    torch.manual_seed(0)
    teacher, images = Teacher(PLAN), torch.randn(5, 3, 8, 8)
    found = layer_weights("balanced", {}, PLAN, 8, mean_feature_sizes(teacher, images))
    sums = [feature.abs().sum((1, 2, 3)).mean().item() for feature in teacher(images)]
    assert sum(w * s for w, s in zip(found.layers, sums, strict=True)) == pytest.approx(1, rel=1e-5)


def test_a_silent_layer_has_a_finite_weight():
    found = layer_weights("balanced", {}, PLAN, 8, torch.tensor([1.0, 0.0, 1.0, 1.0]))
    assert np.isfinite(found.layers).all()


def test_factors_by_layer_group_and_image_multiply():
    factors = {"conv1": 3, "conv1_2": 5, "conv3_1": 0, "image": 7}
    assert layer_weights("paper", factors, PLAN, 8) == LayerWeights((3.0, 15.0, 1.0, 0.0), 7.0)
    found = layer_weights("mean", factors, PLAN, 8)
    assert found.layers == pytest.approx([3 / 256, 15 / 320, 1 / 96, 0], rel=1e-12)
    assert found.image == pytest.approx(7 / 192, rel=1e-12)


@pytest.mark.parametrize("name", ["conv4", "conv1_3", "conv3_2", "fc6", "Image", ""])
def test_an_unknown_factor(name):
    with pytest.raises(UserError, match=r"weight_factors: found .*expected one of") as caught:
        layer_weights("paper", {"conv1": 1, name: 1}, PLAN, 8)
    assert repr(name) in str(caught.value)
    known = "image, conv1, conv2, conv3, conv1_1, conv1_2, conv2_1, conv3_1"
    assert known in str(caught.value)


@pytest.mark.parametrize("factor", [-0.1, float("inf"), float("nan")])
def test_a_factor_that_is_no_weight(factor):
    message = rf"weight_factors\.conv2: found {factor}, expected a finite number >= 0"
    with pytest.raises(UserError, match=message):
        check_factors(PLAN, {"conv2": factor})


def test_factors_of_the_plan_are_accepted():
    names = ["image", "conv1", "conv2", "conv3", "conv1_1", "conv1_2", "conv2_1", "conv3_1"]
    check_factors(PLAN, dict.fromkeys(names, 0.0))


def test_mean_feature_sizes_do_not_depend_on_the_batches():
    torch.manual_seed(0)
    teacher, images = Teacher(PLAN), torch.randn(7, 3, 8, 8)
    expected = [np.abs(feature.numpy()).astype(np.float64).mean() for feature in teacher(images)]
    for batch_size in (1, 3, 7, 32):
        found = mean_feature_sizes(teacher, images, batch_size)
        assert found.shape == (4,)
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5)
