import numpy as np
import pytest
import torch
from torch import nn

from sdn_ray.models.feature_heads import FeatureHeads, deviation_in_groups, last_of_each_group
from sdn_ray.models.plan import Plan

PLAN = Plan.parse("4,5,M,6,M,7")
LEVELS = ("conv1_2", "conv3_1")


def new_heads(size=8, levels=LEVELS, code_dim=3, seed=0, **options):
    heads = FeatureHeads(PLAN, size, code_dim, levels=levels, **{"most": 3} | options)
    heads.reset_parameters(seed)
    return heads


def features_of(size=8, batch=4, levels=LEVELS, seed=0):
    shapes = dict(zip(PLAN.names, PLAN.feature_shapes(size), strict=True))
    random = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, *shapes[name], generator=random) for name in levels]


def codes_of(sets=1, batch=4, dim=3, seed=1):
    return torch.randn(sets, batch, dim, generator=torch.Generator().manual_seed(seed))


def weights_of(heads):
    """The layers whose weights are normalised, by name."""
    return {n: m for n, m in heads.named_modules() if hasattr(m, "parametrizations")}


@pytest.mark.parametrize(
    ("size", "levels", "places"),
    [
        (16, ("conv1_2", "conv2_1", "conv3_1"), 3 * 16),
        (24, ("conv1_2",), 9),
        (24, ("conv3_1", "conv1_1"), 9 + 9),
        (8, ("conv3_1",), 4),  # smaller from the first
    ],
)
@pytest.mark.parametrize(("sets", "batch"), [(1, 4), (3, 8)])
def test_a_logit_for_each_place_of_a_small_map(size, levels, places, sets, batch):
    found = new_heads(size, levels)(features_of(size, batch, levels), codes_of(sets, batch))
    assert found.shape == (sets, batch, places)
    assert found.dtype == torch.float32


@pytest.mark.parametrize(
    ("size", "level", "expected"),
    [
        (32, "conv1_1", [(4, 4, 3, 1), (4, 8, 4, 2), (8, 11, 4, 2), (11, 11, 4, 2)]),
        (32, "conv2_1", [(6, 6, 3, 1), (6, 11, 4, 2), (11, 11, 4, 2)]),
        (32, "conv3_1", [(7, 7, 3, 1), (7, 11, 4, 2)]),
        (16, "conv3_1", [(7, 7, 3, 1)]),  # as small as a decision's map from the first
    ],
)
def test_maps_are_halved_and_channels_doubled_up_to_the_widest(size, level, expected):
    (head,) = new_heads(size, (level,), most=11).heads.values()
    maps = [layer for layer in head.body if isinstance(layer, nn.Conv2d)]
    found = [(m.in_channels, m.out_channels, m.kernel_size, m.stride) for m in maps]
    assert found == [(a, b, (side, side), (stride, stride)) for a, b, side, stride in expected]


def test_heads_see_the_features_of_their_levels():
    everything = list(range(4))
    assert new_heads(levels=("conv3_1", "conv1_2")).seen(everything) == [3, 1]


@pytest.mark.parametrize(
    ("plan", "expected"),
    [
        ("vgg19", "conv1_2 conv2_2 conv3_4 conv4_4 conv5_4"),
        (
            "16,16,M,32,32,M,64,64,64,64,M,128,128,128,128,M,128",
            "conv1_2 conv2_2 conv3_4 conv4_4 conv5_1",
        ),
    ],
)
def test_the_last_of_each_group(plan, expected):
    assert last_of_each_group(Plan.parse(plan)) == tuple(expected.split())


def deviation_by_hand(maps):
    groups = maps.reshape(-1, 4, *maps.shape[1:])
    apart = groups - groups.mean(1, keepdims=True)
    return np.sqrt((apart**2).mean(1) + 1e-8)


def test_the_deviation_within_each_group_of_four():
    maps = np.random.default_rng(0).normal(size=(8, 3, 2, 5)).astype(np.float32)
    maps[4:] *= 7
    found = deviation_in_groups(torch.from_numpy(maps))
    assert found.shape == (2, 3, 2, 5)
    np.testing.assert_allclose(found, deviation_by_hand(maps), rtol=1e-5)
    alike = deviation_in_groups(torch.ones(4, 3, 2, 2, dtype=torch.bfloat16))
    assert alike.dtype == torch.float32
    np.testing.assert_allclose(alike, 1e-4, rtol=1e-5)


def test_pictures_of_another_group_change_nothing():
    heads, features, codes = new_heads(), features_of(batch=8), codes_of(batch=8)
    heads(features, codes)  # the power iteration, in train mode alone
    before = heads.eval()(features, codes)
    for maps in features:
        maps[6] += 3
    after = heads(features, codes)
    assert torch.equal(after[:, :4], before[:, :4])
    for picture in range(4, 8):
        assert not torch.allclose(after[:, picture], before[:, picture])


@pytest.mark.parametrize("batch", [2, 6, 9])
def test_a_batch_that_is_no_multiple_of_four_is_refused(batch):
    with pytest.raises(RuntimeError):
        new_heads()(features_of(batch=batch), codes_of(batch=batch))


def test_heads_see_channels_of_mean_0_and_variance_1():
    heads, seen = new_heads(), []
    features = features_of(batch=12)
    for maps in features:
        channels = torch.arange(1.0, maps.shape[1] + 1)[:, None, None]
        maps.mul_(channels).add_(100 - 30 * channels)
    dead = features[1][:, 2].fill_(0.3)
    parts = [[maps[a:b] for maps in features] for a, b in ((0, 3), (3, 4), (4, 12))]
    heads.standardise(iter(parts))
    for head in heads.heads.values():
        head.body.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].double()))
    heads(features, codes_of(batch=12))
    for place, maps in enumerate(seen):
        moments = maps.mean((0, 2, 3)), maps.var((0, 2, 3), unbiased=False)
        ones = np.ones(maps.shape[1])
        if place == 1:
            assert dead.unique().numel() == 1
            ones[2] = 0
        np.testing.assert_allclose(moments[0], 0, atol=1e-5)
        np.testing.assert_allclose(moments[1], ones, rtol=1e-5)


def test_channels_that_hardly_speak_are_not_blown_up():
    """A thousandth of the level's largest deviation is the least that is divided by."""
    heads = new_heads(levels=("conv1_1",))
    maps = torch.zeros(2, 4, 8, 8)
    maps[:, 0] = torch.tensor([10.0, 30.0])[:, None, None]  # deviation 10
    maps[:, 1] = torch.tensor([5.0, 5.002])[:, None, None]  # 0.001
    heads.standardise([[maps]])
    (head,) = heads.heads.values()
    np.testing.assert_allclose(head.mean, [20, 5.001, 0, 0], rtol=1e-6)
    np.testing.assert_allclose(head.scale, [0.1, 100, 100, 100], rtol=1e-6)
    heads.standardise([[torch.zeros(2, 4, 8, 8)]])
    assert not head.scale.any()  # whatever some other picture makes of it
    for maps in (torch.zeros(4, 4, 8, 8), torch.ones(4, 4, 8, 8)):
        assert heads([maps], codes_of()).isfinite().all()


def convolved(maps, layer, stride=1, padding=1):
    weight, bias = (layer.weight.detach().numpy(), layer.bias.detach().numpy())
    around = [(0, 0), (0, 0), (padding, padding), (padding, padding)]
    size = weight.shape[2:]
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(maps, around), size, (2, 3))
    windows = windows[:, :, ::stride, ::stride]
    return np.einsum("bchwij,ocij->bohw", windows, weight) + bias[:, None, None]


def leaky(maps):
    return np.where(maps > 0, maps, 0.2 * maps)


def test_a_head_by_hand_and_the_caption_by_an_inner_product():
    heads = new_heads(levels=("conv1_2",))
    (head,) = heads.heads.values()
    (features,), codes = features_of(batch=8, levels=("conv1_2",)), codes_of(sets=2, batch=8)
    with torch.no_grad():
        for name, layer in weights_of(heads).items():
            if "caption" not in name:
                layer.bias.uniform_(-1, 1)
        head.mean.uniform_(-1, 1)
        head.scale.uniform_(0.5, 2)
    heads([features], codes)
    found = heads.eval()([features], codes).detach().numpy()

    mean, scale = (one.numpy()[:, None, None] for one in (head.mean, head.scale))
    seen = (features.numpy() - mean) * scale
    seen = leaky(convolved(seen, head.body[0]))
    assert seen.shape == (8, 3, 8, 8)
    seen = leaky(convolved(seen, head.body[2], stride=2))
    assert seen.shape == (8, 3, 4, 4)
    deviation = deviation_by_hand(seen).repeat(4, 0)
    seen = np.concatenate([seen, deviation], 1)
    seen = leaky(convolved(seen, head.among[0]))
    real = convolved(seen, head.real, padding=0)[:, 0]
    said = codes.numpy() / np.linalg.norm(codes.numpy(), axis=-1, keepdims=True) * 3**0.5
    said = said @ head.caption.weight.detach().numpy().T
    fitting = (seen * said[:, :, :, None, None]).sum(2) / 3**0.5
    np.testing.assert_allclose(found, (real + fitting).reshape(2, 8, 16), rtol=1e-4, atol=1e-5)
    apart = (seen * (said[0] - said[1])[:, :, None, None]).sum(1) / 3**0.5
    np.testing.assert_allclose(found[0] - found[1], apart.reshape(8, 16), rtol=1e-4, atol=1e-5)


def test_the_length_of_a_code_says_nothing():
    heads, features, codes = new_heads(), features_of(), codes_of()
    expected = heads(features, codes)
    heads.eval()
    for times in (1 / 30, torch.tensor([0.1, 1.0, 5.0, 70.0])[:, None]):
        torch.testing.assert_close(heads(features, codes * times), expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(heads(features, -codes), expected)


def test_every_first_weight_has_the_spectral_norm_1():
    heads = new_heads(16, ("conv1_2", "conv2_1"), most=9)
    with torch.no_grad():
        for parameter in heads.parameters():
            parameter.fill_(5)
    heads.reset_parameters(3)
    layers = weights_of(heads)
    assert len(layers) == 6 + 5
    for name, layer in layers.items():
        original = layer.parametrizations.weight.original.detach().flatten(1).numpy()
        values = np.linalg.svd(original, compute_uv=False)
        np.testing.assert_allclose(values, 1, rtol=1e-5, err_msg=name)
        used = layer.weight.detach().flatten(1).numpy()
        np.testing.assert_allclose(used, original, rtol=1e-5, atol=1e-6, err_msg=name)
        assert layer.bias is None or not layer.bias.any()


def test_larger_weights_are_divided_by_their_spectral_norm():
    heads = new_heads()
    random = np.random.default_rng(0)
    for layer in weights_of(heads).values():
        original = layer.parametrizations.weight.original
        with torch.no_grad():
            original.copy_(torch.from_numpy(random.normal(scale=3, size=original.shape)))
            for _ in range(200):
                used = layer.weight
        values = np.linalg.svd(used.flatten(1).numpy(), compute_uv=False)
        assert values[0] == pytest.approx(1, rel=1e-3)


def test_first_weights_depend_on_the_seed_alone():
    torch.manual_seed(1)
    first = new_heads().state_dict()
    torch.manual_seed(2)
    second, other = new_heads().state_dict(), new_heads(seed=1).state_dict()
    for name, value in second.items():
        assert torch.equal(value, first[name]), name
        fixed = name.endswith(("bias", "mean", "scale")) or value.numel() == 1
        assert fixed or not torch.equal(value, other[name]), name
