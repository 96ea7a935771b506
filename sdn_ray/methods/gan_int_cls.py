"""GAN-INT-CLS (Reed et al., ICML 2016) as a method of the loop."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sdn_ray.data.batches import Batch, Rows
from sdn_ray.data.scaled import scaled
from sdn_ray.methods.adversarial_losses import (
    discriminator_loss,
    generator_loss,
    interpolated_embeddings,
)
from sdn_ray.methods.method import Noise, Step, update, with_settling_noise
from sdn_ray.methods.sdn import Computing
from sdn_ray.methods.workers import (
    data_parallel,
    gathered,
    rank,
    with_whole_batches,
    world_size,
)
from sdn_ray.models.gan_int_cls import GanIntClsDiscriminator, GanIntClsGenerator

BETAS = (0.5, 0.999)  # of both Adams


@dataclass(frozen=True)
class Adversarial:
    """The one stage of GAN-INT-CLS; the defaults are the authors'.

    Args:
        epochs: passes over the training images.
        learning_rate: of both networks in the first epochs.
        halving_epochs: epochs after which the rate is halved, again and again.
        captions: of an image whose embeddings are averaged in a step.
        cls: the discriminator also sees real images with captions of another class's image.
        interpolate: the generator is also trained on captions between captions ("INT").
        real_label: what the discriminator is to say of real images.
    """

    epochs: int = 600
    learning_rate: float = 2e-4
    halving_epochs: int = 100
    captions: int = 4
    cls: bool = True
    interpolate: bool = True
    real_label: float = 1.0

    name = "adversarial"
    rate_options = "gan_int_cls.learning_rate"
    adversarial = True
    draws_pictures = True

    @property
    def rows(self) -> Rows:
        """A wrong image where the discriminator sees one, and several captions."""
        return Rows(wrong=self.cls, captions=self.captions)

    def rate(self, step: int, steps: int) -> float:
        """Halved every so many epochs; ``steps`` are those of all epochs."""
        return halved(self.learning_rate, step * self.epochs // steps, self.halving_epochs)


class GanIntCls:
    """A generator that a discriminator teaches to draw what is real and what the caption says.

    Args:
        generator: with its first weights.
        discriminator: with its first weights.
        stage: what is trained.
        seed: of the noise with which an average's statistics are measured.
        computing: how; the steps are not compiled.
    """

    name = "gan_int_cls"

    def __init__(
        self,
        generator: GanIntClsGenerator,
        discriminator: GanIntClsDiscriminator,
        stage: Adversarial,
        *,
        seed: int = 0,
        computing: Computing | None = None,
    ) -> None:
        self.computing = computing or Computing()
        self.device = torch.device(self.computing.device)
        self.generator = generator.to(self.device).to(memory_format=torch.channels_last)
        self.discriminator = discriminator.to(self.device).to(memory_format=torch.channels_last)
        with_whole_batches(self.generator, self.device)
        with_whole_batches(self.discriminator, self.device)
        self.stage, self.seed = stage, seed

    @property
    def stages(self) -> tuple[Adversarial, ...]:
        """One."""
        return (self.stage,)

    def terms(self, stage: Adversarial) -> tuple[str, ...]:
        """L_D's terms and L_G, then D's mean probabilities of real, wrong and fake images."""
        seen = ("real", "wrong", "fake") if self.stage.cls else ("real", "fake")
        return (*(f"d_{name}" for name in seen), "g", *(f"probability_{name}" for name in seen))

    def losses(self, stage: Adversarial) -> int:
        """L_D's terms and L_G."""
        return 4 if self.stage.cls else 3

    def drawn_from(self, embeddings: Iterable[Tensor]) -> Iterator[tuple[Tensor, ...]]:
        """Embeddings and noise."""
        return with_settling_noise(embeddings, self.generator.noise_dim, self.seed, self.device)

    def trained_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Those of both networks."""
        for name, network in self._networks().items():
            for own, parameter in network.named_parameters():
                yield f"{name}.{own}", parameter

    def training_state(self) -> dict[str, Any]:
        """Both networks."""
        return {name: network.state_dict() for name, network in self._networks().items()}

    def load_training_state(self, state: dict[str, Any]) -> None:
        """Become what `training_state` told of."""
        for name, network in self._networks().items():
            network.load_state_dict(state[name])

    def begin(self, stage: Adversarial) -> dict[str, torch.optim.Optimizer]:
        """Two Adams."""
        rate = self.stage.learning_rate
        return {
            name: torch.optim.Adam(network.parameters(), lr=rate, betas=BETAS, fused=True)
            for name, network in self._networks().items()
        }

    def steps(self, stage: Adversarial, optimizers: dict[str, torch.optim.Optimizer]) -> Step:
        """One update of the discriminator, then one of the generator against the new one."""
        for network in self._networks().values():
            network.train()
        generator, judge = data_parallel(self.generator), data_parallel(self.discriminator)

        def step(batch: Batch, noise: Noise) -> Tensor:
            real = scaled(batch.images)
            others = [] if batch.wrong is None else [scaled(batch.wrong)]
            with torch.no_grad(), self.computing.autocast():
                fake = generator(batch.embeddings, noise(len(real), self.generator.noise_dim))
            with self.computing.autocast():
                logits = judge([real, *others, fake], batch.embeddings)
            loss = discriminator_loss(
                logits[0], logits[1] if others else None, logits[-1], self.stage.real_label
            )
            update(optimizers["discriminator"], loss.total)
            drawn = self._generator_loss(generator, batch.embeddings, noise)
            update(optimizers["generator"], drawn)
            seen = torch.stack([one.detach().float().sigmoid().mean() for one in logits])
            return torch.cat([loss.terms, drawn.detach()[None], seen])

        return step

    def _generator_loss(self, generator: nn.Module, embeddings: Tensor, noise: Noise) -> Tensor:
        """L_G with fresh noise, on captions and on those between them."""
        draws = noise(len(embeddings), self.generator.noise_dim)
        if self.stage.interpolate:
            # Of the whole batch, as one worker pairs it, this worker's share.
            between = interpolated_embeddings(gathered(embeddings)).chunk(world_size())[rank()]
            draws = torch.cat([draws, noise(len(between), self.generator.noise_dim)])
            embeddings = torch.cat([embeddings, between])
        # The discriminator itself, and frozen: its gradients are nobody's, so no worker sends them.
        self.discriminator.requires_grad_(False)
        with self.computing.autocast():
            images = generator(embeddings, draws)
            loss = generator_loss(self.discriminator(images, embeddings))
        self.discriminator.requires_grad_(True)
        return loss

    def _networks(self) -> dict[str, nn.Module]:
        return {"discriminator": self.discriminator, "generator": self.generator}


def halved(rate: float, epoch: int, epochs: int) -> float:
    """A learning rate in an epoch (from 0), halved every so many ``epochs``."""
    return rate * 0.5 ** (epoch // epochs)
