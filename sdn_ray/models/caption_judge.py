"""The discriminator of GAN-INT-CLS and of both stages of StackGAN, but for what sees the image.

Layer for layer the authors' code (reedscot/icml2016; hanzhanggit/StackGAN).
"""

from collections.abc import Sequence
from typing import overload

import torch
from torch import Tensor, nn

from sdn_ray.models.gan_blocks import leaky
from sdn_ray.models.whitening import whitening_layer

SMALLEST_MAP = 4  # pixels a side of the map next to the text


class CaptionJudge(nn.Module):
    """D(x, t): whether an image is real and shows what the caption says, as a logit.

    Args:
        image: image (batch, 3, S, S) to a map (batch, seen, 4, 4).
        seen: channels of that map.
        embedding_dim: width of the text embedding φ_t.
        text_width: channels to which φ_t is compressed.
        text_norm: batch normalisation of the compressed text.
        whitened_dim: width of the whitened embedding that is compressed (the authors': none).
    """

    def __init__(
        self,
        image: nn.Module,
        seen: int,
        *,
        embedding_dim: int,
        text_width: int,
        text_norm: bool,
        whitened_dim: int | None,
    ) -> None:
        super().__init__()
        self.image = image
        self.whitening = whitening_layer(embedding_dim, whitened_dim)
        self.text = nn.Sequential(
            nn.Linear(whitened_dim or embedding_dim, text_width),
            nn.BatchNorm1d(text_width) if text_norm else nn.Identity(),
            leaky(),
        )
        self.head = nn.Sequential(
            nn.Conv2d(seen + text_width, seen, 1, bias=False),
            nn.BatchNorm2d(seen),
            leaky(),
            nn.Conv2d(seen, 1, SMALLEST_MAP, bias=False),
        )

    @overload
    def forward(self, images: Tensor, embeddings: Tensor) -> Tensor: ...
    @overload
    def forward(self, images: Sequence[Tensor], embeddings: Tensor) -> tuple[Tensor, ...]: ...
    def forward(
        self, images: Tensor | Sequence[Tensor], embeddings: Tensor
    ) -> Tensor | tuple[Tensor, ...]:
        """Judge a batch, or real, wrong and fake images of the same captions in one call.

        Each batch of a sequence is a pass and a batch normalisation batch of its own, as in the
        authors' code; one concatenated batch would be another algorithm. It is one call because
        DistributedDataParallel overwrites the running statistics at the start of each, which can
        make the backward pass of an earlier call fail (pytorch/pytorch#22095).

        Args:
            images: in [−1, 1], ``(batch, 3, S, S)``, or several such.
            embeddings: φ_t, ``(batch, embedding_dim)``.

        Returns:
            Logits ``(batch,)``, or as many such as there are batches of images.
        """
        if isinstance(images, Tensor):
            return self._logits(images, embeddings)
        return tuple(self._logits(batch, embeddings) for batch in images)

    def _logits(self, images: Tensor, embeddings: Tensor) -> Tensor:
        seen = self.image(images)
        said = self.text(self.whitening(embeddings))[:, :, None, None]
        said = said.expand(-1, -1, *seen.shape[2:])
        return self.head(torch.cat([seen, said], dim=1)).flatten()
