"""The generator G (section 3.2): the mirror image of the teacher, text embedding to image."""

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from sdn_ray.errors import UserError
from sdn_ray.models.pixels import to_uint8
from sdn_ray.models.plan import POOL, Plan
from sdn_ray.models.whitening import whitening_layer

Upsampling = Literal["nearest", "bilinear"]
Activation = Literal["relu", "leaky_relu"]

_LEAK = 0.2  # slope of a leaky ReLU below zero
_MODULATION = 0.5  # deviation of the first scales and shifts, for codes of mean square 1
_LAYOUT_SIDE = 8  # pixels a side of the largest maps that a code scales and shifts place by place
_LAYOUTS = 8  # independent patterns of places
MODULATED_BY = "g_fc7"  # whose output scales and shifts


class GeneratorOutput(NamedTuple):
    """What a forward pass gives."""

    images: Tensor  # (batch, samples, 3, height, width), normalised as the teacher's input
    features: list[Tensor]  # φ_{l+1}^G, shaped and ordered as the teacher's features


class ModulatedNorm(nn.Module):
    """Batch normalisation whose scale and shift a code gives: (1 + s(c)) · BN(x) + t(c).

    What batch normalisation takes from a picture, its caption and noise give back. Where the maps
    are small, place by place (as Park et al., "Semantic Image Synthesis with Spatially-Adaptive
    Normalization", CVPR 2019, do from a drawing): scales and shifts of whole channels are the
    easiest way to draw different pictures, and by them alone all stand on one layout, which the
    biases and the borders give. Of caption and noise themselves every layout were a weighted
    sum, so the code is what layers make of them (as the mapping network of Karras et al., "A
    Style-Based Generator Architecture", CVPR 2019).

    Args:
        channels: of the maps.
        code_dim: width of the code.
        side: height and width of the maps.
    """

    def __init__(self, channels: int, code_dim: int, side: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.modulation = nn.Linear(code_dim, 2 * channels)
        self.layout: nn.Sequential | None = None  # of each place
        if side <= _LAYOUT_SIDE:
            self.layout = nn.Sequential(
                nn.Linear(code_dim, _LAYOUTS * side * side),
                nn.Unflatten(1, (_LAYOUTS, side, side)),
                nn.Conv2d(_LAYOUTS, 2 * channels, 1, bias=False),
            )

    def forward(self, maps: Tensor, code: Tensor) -> Tensor:
        """Maps (batch, channels, height, width) and codes (batch, code_dim) to such maps."""
        given = self.modulation(code)[:, :, None, None]
        if self.layout is not None:
            given = given + self.layout(code)
        scale, shift = given.chunk(2, 1)
        return torch.addcmul(shift, self.norm(maps), 1 + scale)

    def reset_parameters(self, random: torch.Generator) -> None:
        """Scales around 1 and shifts around 0, by `_MODULATION` for codes of mean square 1.

        What an activation after batch normalisation gives has half of that.
        """
        first: list[tuple[nn.Module, float]] = [(self.modulation, _MODULATION)]
        if self.layout is not None:
            first += [(self.layout[0], 1.0), (self.layout[2], _MODULATION)]
        for layer, deviation in first:
            weight = layer.get_parameter("weight")
            std = deviation * weight[0].numel() ** -0.5
            nn.init.normal_(weight, std=std, generator=random)
            if layer.bias is not None:
                nn.init.zeros_(layer.get_parameter("bias"))


class MirrorConvolution(nn.Sequential):
    """The mirror of one convolution: 3×3, width(l) → width(l-1), activated unless it is the last.

    Args:
        in_channels: width(l).
        out_channels: width(l-1).
        batch_norm: batch normalisation after the convolution, unless it is the last.
        last: the one that gives the image.
        activation: after it.
        code_dim: width of the code that modulates the batch normalisation; None: its own weights.
        side: height and width of its maps, where a code modulates them.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        batch_norm: bool,
        last: bool = False,
        activation: Activation = "relu",
        code_dim: int | None = None,
        side: int = 0,
    ) -> None:
        normalise = batch_norm and not last
        # A bias before a batch normalisation would be taken away by it.
        layers: list[nn.Module] = [
            nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=not normalise)
        ]
        if normalise:
            layers.append(
                ModulatedNorm(out_channels, code_dim, side)
                if code_dim
                else nn.BatchNorm2d(out_channels)
            )
        if not last:
            layers.append(_activation(activation, inplace=True))
        super().__init__(*layers)

    def forward(self, maps: Tensor, code: Tensor | None = None) -> Tensor:
        """Maps (batch, in, height, width) to (batch, out, height, width); a code modulates them."""
        for layer in self:
            maps = layer(maps, code) if isinstance(layer, ModulatedNorm) else layer(maps)
        return maps


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
        noise_dim: how many normal numbers g-fc8 is given beside the embedding (paper: none).
        modulated: what g-fc7 makes of the embedding and the noise scales and shifts every batch
            normalisation of a mirror convolution, of small maps place by place.
        activation: of every layer but the last (paper: relu).

    Raises:
        UserError: when the pools cannot halve ``image_size``, or there is nothing to modulate.
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
        noise_dim: int = 0,
        modulated: bool = False,
        activation: Activation = "relu",
    ) -> None:
        super().__init__()
        plan.check_image_size(image_size)
        check_modulation(modulated, batch_norm)
        self.plan, self.samples, self.batch_norm = plan, samples, batch_norm
        self.embedding_dim, self.image_size, self.fc_width = embedding_dim, image_size, fc_width
        top = plan.convolutions[-1].out_channels
        side = image_size >> plan.pools
        self.upsampling, self.whitened_dim = upsampling, whitened_dim
        self.whitening = whitening_layer(embedding_dim, whitened_dim)
        self.noise_dim, self.modulated, self.activation = noise_dim, modulated, activation
        code_dim = (whitened_dim or embedding_dim) + noise_dim
        self.g_fc8 = _fully_connected(code_dim, fc_width, batch_norm, activation)
        self.g_fc7 = _fully_connected(fc_width, fc_width, batch_norm, activation)
        self.g_fc6 = nn.Sequential(
            nn.Linear(fc_width, top * side * side),
            nn.Unflatten(1, (top, side, side)),
            nn.BatchNorm2d(top) if batch_norm else nn.Identity(),
            _activation(activation),
        )
        shapes = plan.feature_shapes(image_size)
        self.mirror = nn.ModuleDict(
            {
                f"g_{c.name}": MirrorConvolution(
                    c.out_channels,
                    c.in_channels if c.name != "conv1_1" else 3 * samples,
                    batch_norm,
                    last=c.name == "conv1_1",
                    activation=activation,
                    code_dim=fc_width if modulated else None,
                    side=shape[1],
                )
                for c, shape in zip(reversed(plan.convolutions), reversed(shapes), strict=True)
            }
        )
        self.up = nn.Upsample(
            scale_factor=2,
            mode=upsampling,
            align_corners=False if upsampling == "bilinear" else None,
        )

    def forward(self, embeddings: Tensor, noise: Tensor | None = None) -> GeneratorOutput:
        """Draw.

        Args:
            embeddings: φ_t, (batch, embedding_dim).
            noise: z ~ N(0, I), (batch, noise_dim), where the generator takes noise.

        Returns:
            Images, and the features for the teacher's.
        """
        code = self.whitening(embeddings)
        if self.noise_dim:
            if noise is None:
                raise ValueError(f"noise: found none, expected (batch, {self.noise_dim})")
            code = torch.cat([code, noise], 1)
        code = self.g_fc7(self.g_fc8(code))
        activation = self.g_fc6(code)
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
                activation = next(mirrors)(activation, code)
        return GeneratorOutput(activation.unflatten(1, (self.samples, 3)), features[::-1])

    def pixels(self, embeddings: Tensor, noise: Tensor | None = None) -> Tensor:
        """All samples of each caption as bytes: (batch, samples, 3, height, width) uint8."""
        images = self(embeddings, noise).images
        return to_uint8(images.flatten(0, 1)).unflatten(0, images.shape[:2])

    @property
    def settings(self) -> dict[str, Any]:
        """What makes a generator of the same shape."""
        modulated_by = {"modulated_by": MODULATED_BY} if self.modulated else {}
        return modulated_by | {
            "plan": str(self.plan),
            "embedding_dim": self.embedding_dim,
            "image_size": self.image_size,
            "fc_width": self.fc_width,
            "samples": self.samples,
            "batch_norm": self.batch_norm,
            "upsampling": self.upsampling,
            "whitened_dim": self.whitened_dim,
            "noise_dim": self.noise_dim,
            "modulated": self.modulated,
            "activation": self.activation,
        }

    def reset_parameters(self, seed: int) -> None:
        """He normal weights and zero biases, drawn from ``seed`` alone."""
        random = torch.Generator().manual_seed(seed)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=random)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for module in self.modules():
            if isinstance(module, ModulatedNorm):
                module.reset_parameters(random)

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


def check_modulation(modulated: bool, batch_norm: bool) -> None:
    """Refuse to modulate what is not there.

    Raises:
        UserError: names ``generator.modulated``.
    """
    if modulated and not batch_norm:
        raise UserError(
            "generator.modulated: found true beside generator.batch_norm false; what is modulated "
            "is batch normalisation, expected both"
        )


def _activation(name: Activation, inplace: bool = False) -> nn.Module:
    return nn.LeakyReLU(_LEAK, inplace) if name == "leaky_relu" else nn.ReLU(inplace)


def _fully_connected(
    in_features: int, out_features: int, batch_norm: bool, activation: Activation
) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Linear(in_features, out_features)]
    if batch_norm:
        layers.append(nn.BatchNorm1d(out_features))
    return nn.Sequential(*layers, _activation(activation))
