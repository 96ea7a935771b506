"""StackGAN (Zhang et al., ICCV 2017) as a method of the loop: two GANs, one after the other."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sdn_ray.data.batches import Batch, Rows
from sdn_ray.data.scaled import scaled
from sdn_ray.methods.adversarial_losses import (
    condition_divergence,
    discriminator_loss,
    generator_loss,
)
from sdn_ray.methods.method import Noise, Step, update
from sdn_ray.methods.sdn import Computing
from sdn_ray.methods.staged_gan import GanStage, StagedGan
from sdn_ray.methods.workers import data_parallel
from sdn_ray.models.caption_judge import CaptionJudge
from sdn_ray.models.stackgan import Drawn, StackGanGenerator

STAGE_ONE, STAGE_TWO = "stage_one", "stage_two"
_MOST_DIVERGENCE = 100.0  # of captions' codes; beyond it their deviations explode


@dataclass(frozen=True)
class StackStage(GanStage):
    """One of the two stages; the defaults are those of the authors' first one.

    Args:
        side: of its images, where they are smaller than those that are prepared.
    """

    halving_epochs: int = 50
    side: int | None = None

    @property
    def rate_options(self) -> str:
        """Where the configuration has its learning rate."""
        return f"stackgan.{self.name}.learning_rate"

    @property
    def rows(self) -> Rows:
        """A wrong image, and several captions."""
        return Rows(wrong=True, captions=self.captions, side=self.side)


class StackGan(StagedGan[StackGanGenerator, StackStage]):
    """A generator of small images, then one that makes them large; each has a discriminator.

    Args:
        generator: both, with their first weights.
        discriminators: of each stage by its name, with their first weights.
        stages: what is trained.
        kl_weight: of the divergence of captions' codes in L_G.
        seed: of the noise with which an average's statistics are measured.
        computing: how; the steps are not compiled.
    """

    name = "stackgan"
    first_stage, draws_first = STAGE_ONE, "draws_first"

    def __init__(
        self,
        generator: StackGanGenerator,
        discriminators: Mapping[str, CaptionJudge],
        stages: tuple[StackStage, ...],
        *,
        kl_weight: float = 2.0,
        seed: int = 0,
        computing: Computing | None = None,
    ) -> None:
        super().__init__(generator, discriminators, stages, seed=seed, computing=computing)
        self.kl_weight = kl_weight

    def terms(self, stage: StackStage) -> tuple[str, ...]:
        """L_D's terms, L_G's, D's mean probabilities, and the size of the codes: E|μ| and E σ."""
        losses = ("d_real", "d_wrong", "d_fake", "g", "kl")
        seen = ("probability_real", "probability_wrong", "probability_fake")
        return (*losses, *seen, "condition_mean", "condition_deviation")

    def losses(self, stage: StackStage) -> int:
        """L_D's and L_G's."""
        return 5

    def steps(self, stage: StackStage, optimizers: dict[str, torch.optim.Optimizer]) -> Step:
        """One update of the discriminator, then one of the generator against the new one."""
        self.generator.train()
        discriminator = self.discriminators[stage.name].train()
        draw, judge = self._drawing(stage), data_parallel(discriminator)

        def step(batch: Batch, noise: Noise) -> Tensor:
            assert batch.wrong is not None
            real, wrong = batch.images, batch.wrong
            if stage.side is None:
                real, wrong = scaled(real), scaled(wrong)
            with torch.no_grad(), self.computing.autocast():
                fake = draw(batch.embeddings, noise)[0]
            with self.computing.autocast():
                logits = judge([real, wrong, fake], batch.embeddings)
            loss = discriminator_loss(*logits)
            update(optimizers["discriminator"], loss.total)
            # Frozen, and without its workers: its gradients are nobody's.
            discriminator.requires_grad_(False)
            with self.computing.autocast():
                images, mean, log_deviation = draw(batch.embeddings, noise)
                wish = generator_loss(discriminator(images, batch.embeddings))
            discriminator.requires_grad_(True)
            divergence = condition_divergence(mean, log_deviation)
            update(optimizers["generator"], wish + self.kl_weight * divergence)
            with torch.no_grad():
                # Told as infinite, by which the loop knows that the training has diverged.
                kl = (self.kl_weight * divergence).masked_fill(
                    divergence > _MOST_DIVERGENCE, torch.inf
                )
                seen = [one.float().sigmoid().mean() for one in logits]
                codes = [mean.abs().mean(), log_deviation.exp().mean()]
                return torch.cat([loss.terms, torch.stack([wish.detach(), kl, *seen, *codes])])

        return step

    def _own(self, stage: StackStage) -> nn.Module:
        """The generator that a stage trains."""
        if stage.name == STAGE_ONE:
            return self.generator.first
        assert self.generator.second is not None
        return self.generator.second

    def _drawing(self, stage: StackStage) -> Callable[[Tensor, Noise], Drawn]:
        """From embeddings and fresh noise to a stage's images, their μ and log σ."""
        own, generator = data_parallel(self._own(stage)), self.generator

        def draw(embeddings: Tensor, noise: Noise) -> Drawn:
            codes = generator.whitening(embeddings)
            z, *condition = generator.split(noise(len(embeddings), generator.noise_dim))
            if stage.name == STAGE_ONE:
                return own(codes, z, condition[0])
            with torch.no_grad():
                images = generator.first(codes, z, condition[0])[0]
            return own(images, codes, condition[1])

        return draw
