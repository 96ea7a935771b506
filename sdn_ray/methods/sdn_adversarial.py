"""The third stage of SDN, which is ours and not the paper's: the teacher judges.

Stages one and two ask for the features of one photograph, and so for the mean of all that a caption
allows, which is blur. Here heads learn to tell the teacher's features of photographs from those of
drawn pictures, on several levels and with the caption in view, and the generator learns to be
mistaken for a photograph.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sdn_ray.data.batches import Batch
from sdn_ray.distillation.adversarial import (
    SCORES,
    TERMS,
    drawn_loss,
    heads_loss,
)
from sdn_ray.methods.augmentation import DRAWS, augmented
from sdn_ray.methods.method import (
    RATE_FACTOR,
    Noise,
    Step,
    update,
    with_noise,
)
from sdn_ray.methods.workers import data_parallel
from sdn_ray.models.feature_heads import GROUP, FeatureHeads
from sdn_ray.models.generator import Generator
from sdn_ray.models.pixels import normalise
from sdn_ray.models.teacher import Teacher

BETAS = (0.0, 0.99)  # of both Adams
STAGE_THREE_TERMS = (*TERMS, *SCORES)  # those of `TERMS` add up to the loss


@dataclass(frozen=True)
class Adversary:
    """The heads, and how they learn.

    Args:
        heads: with their first weights.
        rate_factor: their learning rate, in the generator's.
        wrong_weight: share of wrong captions in what they are to refuse.
        augment: show them pictures in other light, moved, and with a hole.
    """

    heads: FeatureHeads
    rate_factor: float = 2.0
    wrong_weight: float = 0.5
    augment: bool = True

    def optimizers(self, generator: Generator, rate: float) -> dict[str, torch.optim.Optimizer]:
        """Two Adams."""
        own = {"params": list(self.heads.parameters()), RATE_FACTOR: self.rate_factor}
        return {
            "heads": torch.optim.Adam([own], lr=rate, betas=BETAS, fused=True),
            "generator": torch.optim.Adam(generator.parameters(), lr=rate, betas=BETAS, fused=True),
        }

    def steps(
        self,
        generator: Generator,
        teacher: Teacher,
        optimizers: dict[str, torch.optim.Optimizer],
        autocast: Callable[[], torch.autocast],
    ) -> Step:
        """One update of the heads, then one of the generator against the new ones."""
        generator.train()
        self.heads.train()
        drawing, judge = data_parallel(generator), data_parallel(self.heads)

        def step(batch: Batch, noise: Noise) -> Tensor:
            assert batch.wrong_embeddings is not None
            with torch.no_grad(), autocast():
                real = self._seen(teacher, normalise(batch.images), noise)
            with autocast():
                images = drawing(*with_noise(batch.embeddings, generator.noise_dim, noise)).images
                # Once, for both updates: the heads see it without its gradient.
                fake = self._seen(teacher, images[:, 0].float(), noise)
            captions = torch.stack([batch.embeddings, batch.wrong_embeddings])
            codes = generator.whitening(captions)
            with autocast():
                both = [torch.cat([a, b.detach()]) for a, b in zip(real, fake, strict=True)]
                logits = judge(both, codes.repeat(1, 2, 1))
            (right, drawn), (wrong, _) = (one.chunk(2) for one in logits)
            loss = heads_loss(right, wrong, drawn, self.wrong_weight)
            update(optimizers["heads"], loss.total)
            # The heads themselves, and frozen: their gradients are nobody's, no worker sends them.
            self.heads.requires_grad_(False)
            with autocast():
                wish = drawn_loss(self.heads(fake, codes[:1])[0])
            update(optimizers["generator"], wish)
            self.heads.requires_grad_(True)
            scores = torch.stack([one.detach().mean() for one in (right, wrong, drawn)])
            return torch.cat([loss.terms, wish.detach()[None], scores])

        return step

    def _seen(self, teacher: Teacher, images: Tensor, noise: Noise) -> list[Tensor]:
        if self.augment:
            # Pictures that are compared with each other alike: of four that are moved and cut each
            # in its own way, the heads cannot see that one layout stands behind them.
            draws = noise(len(images) // GROUP, DRAWS).repeat_interleave(GROUP, 0)
            images = augmented(images, draws)
        return self.heads.seen(teacher(images.contiguous(memory_format=torch.channels_last)))
