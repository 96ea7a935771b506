"""The networks of StackGAN, layer by layer."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn
from torch.nn import functional

from sdn_ray.models.gan_blocks import Bottleneck, Residual
from sdn_ray.models.stackgan import (
    ConditioningAugmentation,
    StackGanGenerator,
    StageOneDiscriminator,
    StageTwoDiscriminator,
    StageTwoGenerator,
    least_width,
)

# The plans of 64 and 256 pixels, whose widths are those of the page by 4 and 128: 1024 is 32.
FIRST = """
Linear 8
LeakyReLU 8
Linear 512
BatchNorm1d 512
Unflatten 32x4x4
Bottleneck 32x4x4
Upsample 32x8x8
Conv2d 16x8x8
BatchNorm2d 16x8x8
Bottleneck 16x8x8
Upsample 16x16x16
Conv2d 8x16x16
BatchNorm2d 8x16x16
ReLU 8x16x16
Upsample 8x32x32
Conv2d 4x32x32
BatchNorm2d 4x32x32
ReLU 4x32x32
Upsample 4x64x64
Conv2d 3x64x64
Tanh 3x64x64
"""
SECOND = """
Linear 8
LeakyReLU 8
Conv2d 4x64x64
ReLU 4x64x64
Down 8x32x32
BatchNorm2d 8x32x32
ReLU 8x32x32
Down 16x16x16
BatchNorm2d 16x16x16
ReLU 16x16x16
Conv2d 16x16x16
BatchNorm2d 16x16x16
ReLU 16x16x16
Residual 16x16x16
Residual 16x16x16
Residual 16x16x16
Residual 16x16x16
Upsample 16x32x32
Conv2d 8x32x32
BatchNorm2d 8x32x32
ReLU 8x32x32
Upsample 8x64x64
Conv2d 4x64x64
BatchNorm2d 4x64x64
ReLU 4x64x64
Upsample 4x128x128
Conv2d 2x128x128
BatchNorm2d 2x128x128
ReLU 2x128x128
Upsample 2x256x256
Conv2d 1x256x256
BatchNorm2d 1x256x256
ReLU 1x256x256
Conv2d 3x256x256
Tanh 3x256x256
"""
SECOND_JUDGE = """
Down 2x128x128
LeakyReLU 2x128x128
Down 4x64x64
BatchNorm2d 4x64x64
LeakyReLU 4x64x64
Down 8x32x32
BatchNorm2d 8x32x32
LeakyReLU 8x32x32
Down 16x16x16
BatchNorm2d 16x16x16
LeakyReLU 16x16x16
Down 32x8x8
BatchNorm2d 32x8x8
LeakyReLU 32x8x8
Down 64x4x4
BatchNorm2d 64x4x4
LeakyReLU 64x4x4
Conv2d 32x4x4
BatchNorm2d 32x4x4
LeakyReLU 32x4x4
Conv2d 16x4x4
BatchNorm2d 16x4x4
Bottleneck 16x4x4
Linear 6
LeakyReLU 6
Conv2d 16x4x4
BatchNorm2d 16x4x4
LeakyReLU 16x4x4
Conv2d 1x1x1
"""


def new_generator(size=256, first=64, seed=0, **options):
    shape = {"embedding_dim": 5, "width": 4, "text_width": 4, "z_dim": 3} | options
    generator = StackGanGenerator(image_size=size, first_size=first, **shape)
    generator.reset_parameters(seed)
    return generator


def normals(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def count(network):
    return sum(parameter.numel() for parameter in network.parameters())


def layers_passed(network, *inputs):
    """The layers in the order in which a pass goes through them, with their outputs' shapes."""
    passed = []
    blocks = [m for m in network.modules() if isinstance(m, Bottleneck | Residual)]
    inside = {id(m) for block in blocks for m in block.modules()} - {id(b) for b in blocks}

    def note(module, inputs, output):
        shape = "x".join(map(str, output.shape[1:]))
        passed.append(f"{type(module).__name__} {shape}")

    for module in network.modules():
        is_leaf = not list(module.children()) and not isinstance(module, nn.Identity)
        if id(module) not in inside and (is_leaf or module in blocks):
            module.register_forward_hook(note)
    network(*inputs)
    return passed


def test_parameters_of_the_published_sizes():
    with torch.device("meta"):
        generator = StackGanGenerator()
        assert count(generator.first) == 14_264_192
        assert count(generator.second) == 26_290_080
        assert count(StageOneDiscriminator()) == 4_029_824
        assert count(StageTwoDiscriminator()) == 48_603_520


def test_parameters_of_a_small_plan_by_hand():
    """16 to 32 pixels, widths 4: the products of the page's tables, written out."""
    generator = new_generator(32, 16)
    augmentation = 5 * 8 + 8
    bottlenecks = [w * w // 4 + 9 * (w // 4) ** 2 + 9 * w * w // 4 + 3 * w for w in (8, 4)]
    first = (4 + 3) * 8 * 16 + 3 * 8 * 16 + sum(bottlenecks) + 9 * (8 * 4 + 4 * 3) + 2 * 4
    assert count(generator.first) == augmentation + first
    seen = 9 * 3 * 4 + 16 * (4 * 8 + 8 * 16) + 2 * (8 + 16)
    joined = 9 * (16 + 4) * 16 + 2 * 16 + 4 * (2 * 9 * 16 * 16 + 4 * 16)
    doublings = 9 * (16 * 8 + 8 * 4 + 4 * 2) + 2 * (8 + 4 + 2) + 9 * 2 * 3
    assert count(generator.second) == augmentation + seen + joined + doublings


@pytest.mark.parametrize(
    ("network", "inputs", "expected"),
    [
        (lambda: new_generator().first, [(2, 5), (2, 3), (2, 4)], FIRST),
        (lambda: new_generator().second, [(2, 3, 64, 64), (2, 5), (2, 4)], SECOND),
        (
            lambda: StageTwoDiscriminator(5, width=2, text_width=6),
            [(2, 3, 256, 256), (2, 5)],
            SECOND_JUDGE,
        ),
    ],
    ids=["stage one", "stage two", "discriminator of stage two"],
)
def test_layers(network, inputs, expected):
    found = layers_passed(network(), *(normals(*shape) for shape in inputs))
    assert found == expected.strip().splitlines()


@pytest.mark.parametrize(("first", "size"), [(16, 32), (16, 64), (32, 64), (32, 128), (64, 64)])
def test_shapes_of_other_plans(first, size):
    two = size > first
    generator = new_generator(size, first, stage_two=two)
    assert generator.noise_dim == 3 + (4 + 4 if two else 4)
    images = generator(normals(2, 5), normals(2, generator.noise_dim))
    assert images.shape == (2, 3, size, size)
    assert images.abs().max() <= 1
    pixels = generator.pixels(normals(2, 5), normals(2, generator.noise_dim))
    assert (pixels.shape, pixels.dtype) == ((2, 1, 3, size, size), torch.uint8)
    judge = StageTwoDiscriminator(5, size, width=2, text_width=3)
    assert judge(images, normals(2, 5)).shape == (2,)
    assert len(judge([images, images], normals(2, 5))) == 2


@pytest.mark.parametrize(
    ("first", "size", "two"),
    [(8, 32, True), (16, 48, True), (64, 64, True), (64, 32, True), (16, 32, False), (64, 2, True)],
)
def test_sizes_that_do_not_fit(first, size, two):
    with pytest.raises(ValueError, match="expected"):
        new_generator(size, first, stage_two=two)


@pytest.mark.parametrize(("first", "size", "least"), [(16, 32, 2), (64, 256, 4), (16, 256, 16)])
def test_the_fewest_channels_that_can_be_halved_so_often(first, size, least):
    assert least_width(first, size) == least
    assert StageTwoGenerator(3, first, size, least, 2).image[-2].in_channels == 1


def test_a_code_is_drawn_around_its_mean():
    condition = ConditioningAugmentation(3, 2)
    codes, noise = normals(4, 3), normals(4, 2, seed=1)
    linear = condition.moments[0]
    both = codes.numpy() @ linear.weight.detach().numpy().T + linear.bias.detach().numpy()
    both = np.where(both > 0, both, 0.2 * both)
    expected = both[:, :2], both[:, 2:]
    drawn, mean, log_deviation = (one.detach().numpy() for one in condition(codes, noise))
    np.testing.assert_allclose(mean, expected[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(log_deviation, expected[1], rtol=1e-5, atol=1e-6)
    by_hand = expected[0] + np.exp(expected[1]) * noise.numpy()
    np.testing.assert_allclose(drawn, by_hand, rtol=1e-5, atol=1e-6)


def test_a_drawing_is_stage_two_of_stage_one():
    generator = new_generator(64, 16).eval()
    embeddings, noise = normals(3, 5), normals(3, 11)
    found = generator(embeddings, noise)
    first = generator.first(embeddings, noise[:, :3], noise[:, 3:7])[0]
    assert first.shape == (3, 3, 16, 16)
    assert torch.equal(found, generator.second(first, embeddings, noise[:, 7:])[0])
    generator.draws_first = True
    enlarged = functional.interpolate(first, (64, 64), mode="bicubic").clamp(-1, 1)
    assert torch.equal(generator(embeddings, noise), enlarged)


def test_stage_one_stands_still_where_stage_two_draws():
    generator = new_generator(32, 16)
    generator.train()
    assert not any(module.training for module in generator.first.modules())
    assert all(module.training for module in generator.second.modules())
    generator.draws_first = True
    assert all(module.training for module in generator.train().modules())
    assert not any(module.training for module in generator.eval().modules())


def test_initial_laws():
    """Kolmogorov–Smirnov against each law; a wrong one has a p-value of 0."""
    generator = new_generator(64, 16, width=32, text_width=16)
    judge = StageOneDiscriminator(50, 16, width=32, text_width=40)
    judge.reset_parameters(1)
    truncated, scale = stats.truncnorm(-2, 2, 0, 0.02), stats.norm(1, 0.02)
    seen = [
        (generator.second.joined[0].weight, truncated),
        (generator.first.image[1][1].weight, truncated),
        (judge.head[0].weight, truncated),
        (generator.first.first[0].weight, stats.norm(0, 0.02)),
        (judge.text[0].weight, stats.norm(0, 0.02)),
        (generator.first.first[1].weight, scale),
    ]
    for parameter, law in seen:
        values = parameter.detach().numpy().ravel()
        assert stats.kstest(values, law.cdf).pvalue > 1e-6
    for network in (generator, judge):
        for module in network.modules():
            if isinstance(module, nn.Linear | nn.BatchNorm1d | nn.BatchNorm2d):
                assert not module.bias.any()
            if isinstance(module, nn.Conv2d):
                assert module.bias is None
                assert module.weight.abs().max() <= 0.04
