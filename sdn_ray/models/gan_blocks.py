"""The blocks that the compared GANs are built of, and how their weights begin.

The names, kernels and initial laws are those of the authors' code (reedscot/icml2016 for
GAN-INT-CLS, reedscot/nips2016 for GAWWN, hanzhanggit/StackGAN). No convolution has a bias, unless
GAWWN asks for one: the authors set every bias of a convolution to zero before each evaluation,
which comes to the same. Batch normalisation has
ε 1e-5 and a running momentum of 0.1, which PyTorch has too unless told otherwise.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

Activation = Callable[[], nn.Module]  # `rectifier` in generators, `leaky` in discriminators

_DEVIATION = 0.02  # of initial convolution weights, and of initial scales around 1


def rectifier() -> nn.Module:
    """What generators activate with."""
    return nn.ReLU(inplace=True)


def leaky() -> nn.Module:
    """What discriminators activate with, and the text layer of GAN-INT-CLS's generator."""
    return nn.LeakyReLU(0.2, inplace=True)


class Down(nn.Conv2d):
    """Halves a map: (batch, in, 2r, 2r) → (batch, out, r, r), by a convolution 4×4."""

    def __init__(self, in_channels: int, out_channels: int, bias: bool = False) -> None:
        super().__init__(in_channels, out_channels, 4, stride=2, padding=1, bias=bias)


class Tup(nn.ConvTranspose2d):
    """Doubles a map: (batch, in, r, r) → (batch, out, 2r, 2r), by a transposed convolution 4×4."""

    def __init__(self, in_channels: int, out_channels: int, bias: bool = False) -> None:
        super().__init__(in_channels, out_channels, 4, stride=2, padding=1, bias=bias)


class Nup(nn.Sequential):
    """Doubles a map: (batch, in, r, r) → (batch, out, 2r, 2r), each pixel four times, then 3×3."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(
            nn.Upsample(scale_factor=2, mode="nearest"),
            nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
        )


class Bottleneck(nn.Module):
    """act(x + body(x)), the body passing through fewer channels; its shape is its input's.

    Args:
        width: channels of the input.
        narrow: channels of the two inner maps.
        activation: of the network.
    """

    def __init__(self, width: int, narrow: int, activation: Activation) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, narrow, 1, bias=False),
            nn.BatchNorm2d(narrow),
            activation(),
            nn.Conv2d(narrow, narrow, 3, padding=1, bias=False),
            nn.BatchNorm2d(narrow),
            activation(),
            # 3×3 again, where a residual network would have 1×1: so the authors' code.
            nn.Conv2d(narrow, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )
        self.activation = activation()

    def forward(self, maps: Tensor) -> Tensor:
        """(batch, width, height, width) to the same shape."""
        return self.activation(maps + self.body(maps))


class Residual(nn.Module):
    """act(x + body(x)) with two convolutions 3×3; its shape is its input's.

    Args:
        width: channels of the input.
        activation: of the network.
    """

    def __init__(self, width: int, activation: Activation) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            activation(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )
        self.activation = activation()

    def forward(self, maps: Tensor) -> Tensor:
        """(batch, width, height, width) to the same shape."""
        return self.activation(maps + self.body(maps))


def drawn_pixels(
    generator: nn.Module, embeddings: Tensor, noise: Tensor | None, *more: Tensor | None
) -> Tensor:
    """One image of each caption as bytes, by a generator whose images are in [−1, 1].

    Args:
        generator: is called with all that follows.
        embeddings: φ_t, ``(batch, embedding_dim)``.
        noise: ``(batch, noise_dim)``.
        more: what else it takes.

    Returns:
        (batch, 1, 3, height, width) uint8.

    Raises:
        ValueError: there is no noise.
    """
    if noise is None:
        raise ValueError(f"noise: found none, expected (batch, {generator.noise_dim})")
    images = (generator(embeddings, noise, *more).float() + 1) * 127.5
    return images.round().clamp(0, 255).to(torch.uint8)[:, None]


@torch.no_grad()
def initialise(network: nn.Module, seed: int, *, stackgan: bool = False) -> None:
    """Give every weight of a network on the CPU its first value, drawn from ``seed`` alone.

    Convolutions N(0, 0.02²); batch normalisation scale N(1, 0.02²), shift 0; linear layers, whose
    weights the authors left to Torch, U(±1/√fan_in) for weights and biases. Running statistics
    begin anew.

    Args:
        network: whose weights are drawn.
        seed: of all of them.
        stackgan: the laws of that method's code: convolutions are cut off at two deviations, linear
            weights are N(0, 0.02²) and their biases 0.
    """
    random = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            if stackgan:
                most = 2 * _DEVIATION
                nn.init.trunc_normal_(module.weight, 0, _DEVIATION, -most, most, generator=random)
            else:
                module.weight.normal_(0, _DEVIATION, generator=random)
            if module.bias is not None:
                module.bias.zero_()
        elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.weight.normal_(1, _DEVIATION, generator=random)
            module.bias.zero_()
            module.reset_running_stats()
        elif isinstance(module, nn.Linear) and stackgan:
            module.weight.normal_(0, _DEVIATION, generator=random)
            module.bias.zero_()
        elif isinstance(module, nn.Linear):
            bound = module.in_features**-0.5
            for parameter in module.parameters():
                parameter.uniform_(-bound, bound, generator=random)
