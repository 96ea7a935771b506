import pytest
import torch
from scipy import stats
from torch import nn
from torch.nn import functional

from sdn_ray.models.gan_blocks import (
    Bottleneck,
    Down,
    Nup,
    Residual,
    Tup,
    initialise,
    leaky,
    rectifier,
)


class Everything(nn.Module):
    """One layer of each kind, large enough for its law to be seen."""

    def __init__(self):
        super().__init__()
        self.down, self.tup, self.nup = Down(32, 40), Tup(24, 32), Nup(16, 64)
        self.maps, self.linear = nn.BatchNorm2d(2000), nn.Linear(400, 300)
        self.vectors = nn.BatchNorm1d(3000)
        self.bottleneck, self.residual = Bottleneck(64, 32, leaky), Residual(32, rectifier)


def randomised(block):
    """Weights, scales and shifts all told apart, and running statistics too."""
    random = torch.Generator().manual_seed(0)
    for parameter in block.parameters():
        parameter.data.normal_(generator=random)
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(generator=random)
            module.running_var.uniform_(0.5, 2, generator=random)
    return block


def normalised(maps, norm):
    """Batch normalisation in training, by its formula, with ε 1e-5."""
    mean = maps.mean((0, 2, 3), keepdim=True)
    variance = ((maps - mean) ** 2).mean((0, 2, 3), keepdim=True)
    scale, shift = (p.view(1, -1, 1, 1) for p in (norm.weight, norm.bias))
    return scale * (maps - mean) / (variance + 1e-5).sqrt() + shift


def relu(maps):
    return maps.clamp(min=0)


def leaky_relu(maps):
    return torch.where(maps > 0, maps, 0.2 * maps)


ACTIVATIONS = [(rectifier, relu), (leaky, leaky_relu)]


@pytest.mark.parametrize(("activation", "formula"), ACTIVATIONS)
def test_activations_by_hand(activation, formula):
    values = torch.tensor([-3.0, -0.5, 0.0, 2.0])
    torch.testing.assert_close(activation()(values.clone()), formula(values))


def test_down_halves_and_tup_doubles():
    maps = torch.randn(2, 3, 8, 8)
    down, tup = Down(3, 5), Tup(3, 5)
    assert down(maps).shape == (2, 5, 4, 4)
    assert tup(maps).shape == (2, 5, 16, 16)
    torch.testing.assert_close(
        down(maps), functional.conv2d(maps, down.weight, stride=2, padding=1)
    )
    torch.testing.assert_close(
        tup(maps), functional.conv_transpose2d(maps, tup.weight, stride=2, padding=1)
    )
    assert down.weight.shape == (5, 3, 4, 4)
    assert tup.weight.shape == (3, 5, 4, 4)


def test_nup_repeats_pixels_before_its_convolution():
    maps, nup = torch.randn(2, 3, 4, 4), Nup(3, 5)
    nearest = maps.repeat_interleave(2, 2).repeat_interleave(2, 3)
    (weight,) = nup.parameters()
    assert weight.shape == (5, 3, 3, 3)
    torch.testing.assert_close(nup(maps), functional.conv2d(nearest, weight, padding=1))


@pytest.mark.parametrize(("activation", "formula"), ACTIVATIONS)
def test_bottleneck_by_hand(activation, formula):
    block, maps = randomised(Bottleneck(6, 4, activation)), torch.randn(3, 6, 5, 5)
    kept = maps.clone()
    first, norm1, _, second, norm2, _, third, norm3 = block.body
    assert [p.weight.shape for p in (first, second, third)] == [
        (4, 6, 1, 1),
        (4, 4, 3, 3),
        (6, 4, 3, 3),
    ]
    inner = formula(normalised(functional.conv2d(maps, first.weight), norm1))
    inner = formula(normalised(functional.conv2d(inner, second.weight, padding=1), norm2))
    inner = normalised(functional.conv2d(inner, third.weight, padding=1), norm3)
    torch.testing.assert_close(block(maps), formula(maps + inner), rtol=1e-4, atol=1e-4)
    assert torch.equal(maps, kept)


@pytest.mark.parametrize(("activation", "formula"), ACTIVATIONS)
def test_residual_by_hand(activation, formula):
    block, maps = randomised(Residual(6, activation)), torch.randn(3, 6, 5, 5)
    first, norm1, _, second, norm2 = block.body
    assert first.weight.shape == second.weight.shape == (6, 6, 3, 3)
    inner = formula(normalised(functional.conv2d(maps, first.weight, padding=1), norm1))
    inner = normalised(functional.conv2d(inner, second.weight, padding=1), norm2)
    torch.testing.assert_close(block(maps), formula(maps + inner), rtol=1e-4, atol=1e-4)


def test_convolutions_have_no_bias_and_statistics_move_by_a_tenth():
    for module in Everything().modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            assert module.bias is None
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            assert (module.eps, module.momentum) == (1e-5, 0.1)


def test_initial_laws():
    """Kolmogorov–Smirnov against each law; a wrong one has a p-value of 0."""
    network = Everything()
    initialise(network, 1)
    normal, scale = stats.norm(0, 0.02), stats.norm(1, 0.02)
    uniform = stats.uniform(-1 / 20, 2 / 20)  # 1/√400
    seen = [
        (network.down.weight, normal),
        (network.tup.weight, normal),
        (network.nup[1].weight, normal),
        (network.bottleneck.body[3].weight, normal),
        (network.residual.body[0].weight, normal),
        (network.maps.weight, scale),
        (network.vectors.weight, scale),
        (network.linear.weight, uniform),
        (network.linear.bias, uniform),
    ]
    for parameter, law in seen:
        values = parameter.detach().numpy().ravel()
        assert stats.kstest(values, law.cdf).pvalue > 1e-6
    assert network.linear.weight.abs().max() <= 1 / 20
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            assert not module.bias.any()


def bits(network):
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def test_a_seed_gives_the_same_bits_whatever_was_before():
    torch.manual_seed(0)
    first = Everything()
    initialise(first, 5)
    torch.manual_seed(1)
    second = randomised(Everything())
    before = torch.get_rng_state()
    initialise(second, 5)
    assert torch.equal(torch.get_rng_state(), before)  # it draws from a generator of its own
    other = Everything()
    initialise(other, 6)
    for name, tensor in bits(first).items():
        assert torch.equal(tensor, bits(second)[name])
        is_drawn = name.endswith("weight") or name == "linear.bias"
        assert torch.equal(tensor, bits(other)[name]) is not is_drawn
