"""The generator G (section 3.2): the mirror image of the teacher, text embedding to image."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from sdn_ray.models.plan import POOL, Plan

Upsampling = Literal["nearest", "bilinear"]


class GeneratorOutput(NamedTuple):
    """What a forward pass gives."""

    images: Tensor  # (batch, samples, 3, height, width), normalised as the teacher's input
    features: list[Tensor]  # φ_{l+1}^G, shaped and ordered as the teacher's features


class Whitening(nn.Module):
    """(φ_t − mean) · matrix: fixed statistics of training captions, see `text.whitening`.

    Args:
        embedding_dim: width of φ_t.
        dim: width of what g-fc8 is given.
    """

    def __init__(self, embedding_dim: int, dim: int) -> None:
        super().__init__()
        self.mean: Tensor
        self.matrix: Tensor
        self.register_buffer("mean", torch.zeros(embedding_dim))
        self.register_buffer("matrix", torch.zeros(embedding_dim, dim))

    def forward(self, embeddings: Tensor) -> Tensor:
        """(batch, embedding_dim) → (batch, dim)."""
        return (embeddings - self.mean) @ self.matrix


class MirrorConvolution(nn.Sequential):
    """The mirror of one convolution: 3×3, width(l) → width(l-1), ReLU unless it is the last."""

    def __init__(
        self, in_channels: int, out_channels: int, batch_norm: bool, last: bool = False
    ) -> None:
        normalise = batch_norm and not last
        # A bias before a batch normalisation would be taken away by it.
        layers: list[nn.Module] = [
            nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=not normalise)
        ]
        if normalise:
            layers.append(nn.BatchNorm2d(out_channels))
        if not last:
            layers.append(nn.ReLU(inplace=True))
        super().__init__(*layers)


class Generator(nn.Module):
    """The mirror of any plan (section 3.2; diverse synthesis: section 3.4).

    Args:
        plan: the teacher's plan, read here from its end: each pool becomes a ×2 up-sampling, each
            convolution its mirror.
        embedding_dim: width of the text embedding φ_t.
        image_size: height and width of the image, a multiple of 2^pools.
        fc_width: width of g-fc8 and g-fc7.
        samples: n, the images drawn for one caption.
        batch_norm: batch normalisation after every layer but the last (paper: none).
        upsampling: nearest, or bilinear, which is smoother and draws no lattice (the paper says
            "image resize", which is either).
        whitened_dim: width of the whitened embedding that g-fc8 is given; None gives it φ_t itself.

    Raises:
        UserError: when the pools cannot halve ``image_size``.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        embedding_dim: int,
        image_size: int,
        fc_width: int = 4096,
        samples: int = 1,
        batch_norm: bool = False,
        upsampling: Upsampling = "nearest",
        whitened_dim: int | None = None,
    ) -> None:
        super().__init__()
        plan.check_image_size(image_size)
        self.plan, self.samples, self.batch_norm = plan, samples, batch_norm
        self.embedding_dim, self.image_size, self.fc_width = embedding_dim, image_size, fc_width
        top = plan.convolutions[-1].out_channels
        side = image_size >> plan.pools
        self.upsampling, self.whitened_dim = upsampling, whitened_dim
        self.whitening = Whitening(embedding_dim, whitened_dim) if whitened_dim else nn.Identity()
        self.g_fc8 = _fully_connected(whitened_dim or embedding_dim, fc_width, batch_norm)
        self.g_fc7 = _fully_connected(fc_width, fc_width, batch_norm)
        self.g_fc6 = nn.Sequential(
            nn.Linear(fc_width, top * side * side),
            nn.Unflatten(1, (top, side, side)),
            nn.BatchNorm2d(top) if batch_norm else nn.Identity(),
            nn.ReLU(),
        )
        self.mirror = nn.ModuleDict(
            {
                f"g_{c.name}": MirrorConvolution(
                    c.out_channels,
                    c.in_channels if c.name != "conv1_1" else 3 * samples,
                    batch_norm,
                    last=c.name == "conv1_1",
                )
                for c in reversed(plan.convolutions)
            }
        )
        self.up = nn.Upsample(
            scale_factor=2,
            mode=upsampling,
            align_corners=False if upsampling == "bilinear" else None,
        )

    def forward(self, embeddings: Tensor) -> GeneratorOutput:
        """Embeddings (batch, embedding_dim) to images and the features for the teacher's."""
        activation = self.g_fc6(self.g_fc7(self.g_fc8(self.whitening(embeddings))))
        activation = activation.contiguous(memory_format=torch.channels_last)
        mirrors = iter(self.mirror.values())
        features = []
        for entry in reversed(self.plan.entries):
            if entry == POOL:
                activation = self.up(activation)
            else:
                # The pairing rule: what enters the mirror of convolution l is compared with
                # the teacher's output of convolution l.
                features.append(activation)
                activation = next(mirrors)(activation)
        return GeneratorOutput(activation.unflatten(1, (self.samples, 3)), features[::-1])

    def reset_parameters(self, seed: int) -> None:
        """He normal weights and zero biases, drawn from ``seed`` alone."""
        random = torch.Generator().manual_seed(seed)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=random)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def grow_samples(self, samples: int, noise: float, seed: int) -> None:
        """Widen the last layer from 3 to 3n channels (section 4.4).

        The n copies start as today's weights plus normal noise of ``noise`` times the weights'
        standard deviation: equal copies with one winner each would never part.
        """
        weight, bias = (p.detach() for p in self.mirror["g_conv1_1"].parameters())
        random = torch.Generator().manual_seed(seed)
        weight = weight.repeat(samples, 1, 1, 1)
        deviation = torch.randn(weight.shape, generator=random).to(weight) * weight.std()
        grown = MirrorConvolution(weight.shape[1], 3 * samples, self.batch_norm, last=True)
        grown_weight, grown_bias = grown.to(weight).parameters()
        grown_weight.data.copy_(weight + noise * deviation)
        grown_bias.data.copy_(bias.repeat(samples))
        self.mirror["g_conv1_1"] = grown.to(memory_format=torch.channels_last)
        self.samples = samples


def _fully_connected(in_features: int, out_features: int, batch_norm: bool) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Linear(in_features, out_features)]
    if batch_norm:
        layers.append(nn.BatchNorm1d(out_features))
    return nn.Sequential(*layers, nn.ReLU())
