"""What GANs that are trained in stages have in common, each with a discriminator of its own."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor, nn

from sdn_ray.methods.gan_int_cls import BETAS, halved
from sdn_ray.methods.method import with_settling_noise
from sdn_ray.methods.sdn import Computing
from sdn_ray.methods.workers import with_whole_batches


@dataclass(frozen=True)
class GanStage:
    """One stage of them.

    Args:
        name: as it stands in metrics and pictures.
        epochs: passes over the training images.
        learning_rate: of both networks in the first epochs.
        halving_epochs: epochs after which the rate is halved, again and again.
        captions: of an image whose embeddings are averaged in a step.
    """

    name: str
    epochs: int = 600
    learning_rate: float = 2e-4
    halving_epochs: int = 100
    captions: int = 4

    adversarial = True
    draws_pictures = True

    def rate(self, step: int, steps: int) -> float:
        """Halved every so many epochs; ``steps`` are those of all epochs of the stage."""
        return halved(self.learning_rate, step * self.epochs // steps, self.halving_epochs)


G = TypeVar("G", bound=nn.Module)
S = TypeVar("S", bound=GanStage)


class StagedGan(ABC, Generic[G, S]):
    """A generator of two parts, which two GANs train one after the other.

    Args:
        generator: both, with their first weights.
        discriminators: of each stage by its name, with their first weights.
        stages: what is trained.
        seed: of the noise with which an average's statistics are measured.
        computing: how; the steps are not compiled.
    """

    first_stage: ClassVar[str]  # its name
    draws_first: ClassVar[str]  # the generator's attribute that says that it draws what that makes

    def __init__(
        self,
        generator: G,
        discriminators: Mapping[str, nn.Module],
        stages: tuple[S, ...],
        *,
        seed: int,
        computing: Computing | None,
    ) -> None:
        self.computing = computing or Computing()
        self.device = torch.device(self.computing.device)
        self.generator = generator.to(self.device).to(memory_format=torch.channels_last)
        self.discriminators = nn.ModuleDict(
            {
                name: discriminator.to(self.device).to(memory_format=torch.channels_last)
                for name, discriminator in discriminators.items()
            }
        )
        with_whole_batches(self.generator, self.device)
        with_whole_batches(self.discriminators, self.device)
        self._stages, self.seed = stages, seed

    @property
    def stages(self) -> tuple[S, ...]:
        """One or two."""
        return self._stages

    def drawn_from(self, embeddings: Iterable[Tensor]) -> Iterator[tuple[Tensor, ...]]:
        """Embeddings and noise."""
        noise_dim = self.generator.noise_dim
        assert isinstance(noise_dim, int)
        return with_settling_noise(embeddings, noise_dim, self.seed, self.device)

    def trained_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Those of all networks."""
        for own, parameter in self.generator.named_parameters():
            yield f"generator.{own}", parameter
        for own, parameter in self.discriminators.named_parameters():
            yield f"discriminators.{own}", parameter

    def training_state(self) -> dict[str, Any]:
        """All networks, and what is drawn."""
        return {
            "generator": self.generator.state_dict(),
            "discriminators": self.discriminators.state_dict(),
            self.draws_first: getattr(self.generator, self.draws_first),
        }

    def load_training_state(self, state: dict[str, Any]) -> None:
        """Become what `training_state` told of."""
        self.generator.load_state_dict(state["generator"])
        self.discriminators.load_state_dict(state["discriminators"])
        setattr(self.generator, self.draws_first, state[self.draws_first])

    def begin(self, stage: S) -> dict[str, torch.optim.Optimizer]:
        """Two Adams; the part that another stage trains stands still, weights and statistics.

        Its weights are its last ones, whether or not their average was scored until then.
        """
        setattr(self.generator, self.draws_first, stage.name == self.first_stage)
        self.generator.requires_grad_(False)
        own = self._own(stage).requires_grad_(True)
        networks = {"discriminator": self.discriminators[stage.name], "generator": own}
        rate = stage.learning_rate
        return {
            name: torch.optim.Adam(network.parameters(), lr=rate, betas=BETAS, fused=True)
            for name, network in networks.items()
        }

    @abstractmethod
    def _own(self, stage: S) -> nn.Module:
        """The part of the generator that a stage trains."""
