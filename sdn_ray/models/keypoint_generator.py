"""GAWWN's small GAN of keypoints: where a caption's parts are (section 4.3 of the paper).

Layer for layer the authors' code (reedscot/nips2016).
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import overload

import torch
from torch import Tensor, nn

from sdn_ray.models.gan_blocks import Activation, initialise, leaky, rectifier
from sdn_ray.models.gawwn_plan import normalised
from sdn_ray.models.whitening import whitening_layer

_NUMBERS = 3  # of a part: x, y, visible


class KeypointGenerator(nn.Module):
    """G_k(z, t, k, s): noise, a caption and the parts that are given to all parts.

    Args:
        code_dim: width of the embedding, whitened where it is.
        parts: n, of an image.
        width: a quarter of the width of z's and the caption's codes.
        noise_dim: how many normal numbers z is made of.
    """

    def __init__(self, code_dim: int, parts: int, width: int, noise_dim: int) -> None:
        super().__init__()
        wide = 4 * width
        self.noise = nn.Sequential(nn.Linear(noise_dim, wide), rectifier())
        self.text = nn.Sequential(nn.Linear(code_dim, wide), rectifier())
        self.given = _code([_NUMBERS * parts, wide, 2 * width], rectifier)
        self.generated = nn.Sequential(
            *_code([10 * width, 8 * width, wide, 2 * width], rectifier),
            nn.Linear(2 * width, _NUMBERS * parts),
            nn.Unflatten(1, (parts, _NUMBERS)),
        )

    def forward(self, codes: Tensor, noise: Tensor, given: Tensor) -> Tensor:
        """Generate the parts that are not given.

        Args:
            codes: ``(batch, code_dim)``.
            noise: z ~ N(0, I), ``(batch, noise_dim)``.
            given: (x, y, s) in fractions of the image, ``(batch, n, 3)``: s is 1 for a part that is
                given, and visible by that; the others have s 0, and their places do not count.

        Returns:
            s · given + (1 − s) · generated, (x, y, visible) in [0, 1], ``(batch, n, 3)`` float32.
        """
        switch = given[..., 2:].float()
        kept = switch * given
        seen = [self.noise(noise), self.text(codes), self.given(kept.flatten(1))]
        # In float32, since a place in bf16 would be a 256th of the image off.
        generated = self.generated(torch.cat(seen, 1)).float().sigmoid()
        return kept + (1 - switch) * generated


class KeypointDiscriminator(nn.Module):
    """D_k(k, t): whether parts are real ones of an image that shows what the caption says.

    Args:
        embedding_dim: width of the text embedding φ_t.
        parts: n, of an image.
        width: half of the width of the codes of parts and of the caption.
        whitened_dim: width of the whitened embedding (the authors': none).
    """

    def __init__(
        self,
        embedding_dim: int = 1024,
        parts: int = 15,
        width: int = 128,
        whitened_dim: int | None = None,
    ) -> None:
        super().__init__()
        wide = 4 * width
        self.whitening = whitening_layer(embedding_dim, whitened_dim)
        self.places = _code([_NUMBERS * parts, wide, 2 * width], leaky)
        self.text = _code([whitened_dim or embedding_dim, wide, 2 * width], leaky)
        self.head = nn.Sequential(*_code([wide, 2 * width], leaky), nn.Linear(2 * width, 1))

    @overload
    def forward(self, parts: Tensor, embeddings: Tensor) -> Tensor: ...
    @overload
    def forward(self, parts: Sequence[Tensor], embeddings: Tensor) -> tuple[Tensor, ...]: ...
    def forward(
        self, parts: Tensor | Sequence[Tensor], embeddings: Tensor
    ) -> Tensor | tuple[Tensor, ...]:
        """Judge a batch, or real and fake parts of the same captions in one call.

        Each batch of a sequence is a pass and a batch normalisation batch of its own: see
        `CaptionJudge.forward`.

        Args:
            parts: (x, y, visible) in fractions of the image, hidden ones all zero,
                ``(batch, n, 3)``, or several such.
            embeddings: φ_t, ``(batch, embedding_dim)``.

        Returns:
            Logits ``(batch,)``, or as many such as there are batches of parts.
        """
        if isinstance(parts, Tensor):
            return self._logits(parts, embeddings)
        return tuple(self._logits(batch, embeddings) for batch in parts)

    def reset_parameters(self, seed: int) -> None:
        """The authors' initial laws, drawn from ``seed`` alone: see `gan_blocks.initialise`."""
        initialise(self, seed)

    def _logits(self, parts: Tensor, embeddings: Tensor) -> Tensor:
        codes = [self.places(parts.flatten(1)), self.text(self.whitening(embeddings))]
        return self.head(torch.cat(codes, 1)).flatten()


def _code(widths: Sequence[int], activation: Activation) -> nn.Sequential:
    """Linear layers, each normalised, whose widths are given from the input's on."""
    layers: list[nn.Module] = []
    for wide, narrow in pairwise(widths):
        layers += normalised(nn.Linear(wide, narrow), activation)
    return nn.Sequential(*layers)
