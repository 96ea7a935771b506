"""Discriminators that see a picture only through the frozen teacher: one head on each level.

Not of the SDN paper. A projected discriminator (Sauer et al., "Projected GANs Converge Faster",
NeurIPS 2021; Kumari et al., "Ensembling Off-the-shelf Models for GAN Training", CVPR 2022), to
which the caption speaks by projection (Miyato and Koyama, "cGANs with Projection Discriminator",
ICLR 2018). Spectral normalisation: Miyato et al., ICLR 2018.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm
from torch.nn.utils.parametrize import ParametrizationList

from sdn_ray.models.plan import Plan

_SMALLEST_MAP = 4  # pixels a side of the map on which a head decides
_LEAK = 0.2
GROUP = 4  # pictures that are compared with each other
_EPSILON = 1e-8
_FLOOR = 1e-3  # of a channel's deviation, in shares of its level's


def last_of_each_group(plan: Plan) -> tuple[str, ...]:
    """The highest convolution before each pool, and the last: conv1_2, conv2_2, … of a VGG19."""
    last = {c.group: c.name for c in plan.convolutions}
    return tuple(last.values())


class FeatureHead(nn.Module):
    """One head: the features of one convolution to logits, one for each place of a small map.

    Args:
        channels: of the features.
        side: height and width of the features.
        code_dim: width of the caption's code.
        most: channels of its widest map; as many as the features have, which are seen whole first,
            double with every halving of the map until they are so many.
    """

    def __init__(self, channels: int, side: int, code_dim: int, most: int) -> None:
        super().__init__()
        self.mean: Tensor
        self.scale: Tensor
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("scale", torch.ones(channels))
        width = min(channels, most)
        # The whole map: one that was halved at once would hide the finest octave, and leave a
        # lattice in it.
        first = nn.Conv2d(channels, width, 3, padding=1)
        layers: list[nn.Module] = [spectral_norm(first), nn.LeakyReLU(_LEAK, inplace=True)]
        while side > _SMALLEST_MAP:
            wider = min(2 * width, most)
            layers += [
                spectral_norm(nn.Conv2d(width, wider, 4, stride=2, padding=1)),
                nn.LeakyReLU(_LEAK, inplace=True),
            ]
            width, side = wider, side // 2
        self.body = nn.Sequential(*layers)
        self.among = nn.Sequential(
            spectral_norm(nn.Conv2d(2 * width, width, 3, padding=1)),
            nn.LeakyReLU(_LEAK, inplace=True),
        )
        self.real = spectral_norm(nn.Conv2d(width, 1, 1))
        self.caption = spectral_norm(nn.Linear(code_dim, width, bias=False))

    def forward(self, features: Tensor, codes: Tensor) -> Tensor:
        """Features (batch, channels, r, r), codes (sets, batch, code_dim): (sets, batch, places).

        The features pass once, however many sets of captions they are judged by.
        """
        shift, scale = -self.mean * self.scale, self.scale
        # In one pass over maps that are as large as the picture.
        seen = self.body(torch.addcmul(shift[:, None, None], features, scale[:, None, None]))
        # By the deviation pictures that are all alike are told from photographs (Karras et al.,
        # "Progressive Growing of GANs", ICLR 2018, section 3). Of each channel: their mean, which
        # that paper takes, is made up for by contrast and colours.
        deviation = deviation_in_groups(seen).to(seen.dtype)
        seen = self.among(torch.cat([seen, deviation.repeat_interleave(GROUP, 0)], 1))
        # Of one length, whether or not the embeddings are whitened.
        said = self.caption(functional.normalize(codes, dim=-1) * codes.shape[-1] ** 0.5)
        fitting = torch.einsum("bchw,sbc->sbhw", seen, said) * seen.shape[1] ** -0.5
        return (self.real(seen)[None, :, 0] + fitting).flatten(2)


def deviation_in_groups(maps: Tensor) -> Tensor:
    """How much pictures differ from the next ones, at each channel and place.

    Groups rather than the whole batch, so that it is the same on any number of workers.

    Args:
        maps: (batch, channels, height, width).

    Returns:
        The standard deviation within each group of `GROUP` pictures, (groups, channels, height,
        width) float32.

    Raises:
        RuntimeError: the batch is no multiple of `GROUP`.
    """
    groups = maps.float().unflatten(0, (-1, GROUP))
    # By hand: on a CPU `var` over this axis takes several times as long.
    variance = (groups - groups.mean(1, keepdim=True)).square().mean(1)
    return (variance + _EPSILON).sqrt()


class FeatureHeads(nn.Module):
    """All heads of a discriminator.

    Args:
        plan: of the teacher.
        image_size: height and width of the images.
        code_dim: width of the caption's code.
        levels: names of the convolutions that have a head.
        most: channels of the widest map of a head.
    """

    def __init__(
        self,
        plan: Plan,
        image_size: int,
        code_dim: int,
        *,
        levels: Sequence[str],
        most: int = 64,
    ) -> None:
        super().__init__()
        shapes = dict(zip(plan.names, plan.feature_shapes(image_size), strict=True))
        self.levels = tuple(levels)
        self._places = [plan.names.index(name) for name in levels]
        self.heads = nn.ModuleDict(
            {name: FeatureHead(shapes[name][0], shapes[name][1], code_dim, most) for name in levels}
        )

    def seen(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Those of the teacher's features, given from conv1_1 upwards, that have a head."""
        return [features[place] for place in self._places]

    def forward(self, features: Sequence[Tensor], codes: Tensor) -> Tensor:
        """Judge pictures.

        Args:
            features: what is `seen` of them.
            codes: of captions, (sets, batch, code_dim): each picture is judged by every set.

        Returns:
            Logits, (sets, batch, places of all heads), float32.
        """
        pairs = zip(self.heads.values(), features, strict=True)
        logits = [head(own, codes) for head, own in pairs]
        return torch.cat(logits, 2).float()

    @torch.no_grad()
    def standardise(self, batches: Iterable[Sequence[Tensor]]) -> None:
        """Have every head see channels of mean 0 and variance 1, as some real pictures have them.

        Args:
            batches: what is `seen` of batches of pictures.
        """
        moments = [torch.zeros(3, 1, dtype=torch.float64) for _ in self.levels]
        for features in batches:
            for place, maps in enumerate(features):
                own = maps.double().transpose(0, 1).flatten(1)
                count = torch.full((len(own),), own.shape[1], dtype=torch.float64)
                moments[place] = moments[place] + torch.stack(
                    [count, own.sum(1).cpu(), own.square().sum(1).cpu()]
                )
        for head, (count, total, squares) in zip(self.heads.values(), moments, strict=True):
            assert isinstance(head, FeatureHead)
            mean = total / count
            deviation = (squares / count - mean.square()).clamp_min(0).sqrt()
            least = max(float(deviation.max()) * _FLOOR, torch.finfo(torch.float32).tiny)
            head.mean.copy_(mean)
            # A level that says nothing of all these pictures is not listened to.
            head.scale.copy_(1 / deviation.clamp_min(least) if deviation.any() else 0 * deviation)

    def reset_parameters(self, seed: int) -> None:
        """Orthogonal first weights (whose spectral norm is 1), zero biases, from ``seed`` alone."""
        random = torch.Generator().manual_seed(seed)
        for module in self.modules():
            if isinstance(module, ParametrizationList):
                nn.init.orthogonal_(module.get_parameter("original"), generator=random)
                for vector in module.buffers():  # of the power iteration
                    vector.copy_(
                        functional.normalize(torch.randn(vector.shape, generator=random), dim=0)
                    )
            elif isinstance(module, nn.Conv2d) and module.bias is not None:
                nn.init.zeros_(module.bias)
