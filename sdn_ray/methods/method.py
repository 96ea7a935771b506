"""What the loop asks of a method: its stages, its steps, and what a checkpoint keeps of it."""

from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from sdn_ray.data.batches import Batch, Rows
from sdn_ray.data.sampling import noise_seed
from sdn_ray.methods.workers import rank, world_size

RATE_FACTOR = "rate_factor"  # of an optimiser's group: what its rate is of the stage's
_SETTLING_STEP = -1  # of the noise with which an average is measured: no step of a run


class Noise:
    """The normal numbers of one step: the same ones however often, and on however many workers.

    They are drawn for the whole global batch on the CPU, whatever the device, and each worker takes
    its share: nothing of them needs to be kept for a run that goes on.

    Args:
        seed: of the run.
        step: counted through all stages.
        device: where they are needed.
        shared: all workers get the same, of one share.
    """

    def __init__(self, seed: int, step: int, device: torch.device, *, shared: bool = False) -> None:
        self._seed, self._step, self._device = seed, step, device
        self._shares, self._own = (1, 0) if shared else (world_size(), rank())

    @cached_property
    def _random(self) -> torch.Generator:
        """Made when it is asked for: not every method takes noise."""
        return torch.Generator().manual_seed(noise_seed(self._seed, self._step))

    def __call__(self, rows: int, width: int) -> Tensor:
        """The next z ~ N(0, I) of this worker, (rows, width) float32."""
        drawn = torch.randn(self._shares, rows, width, generator=self._random)
        return drawn[self._own].to(self._device)


# One training step with all its updates → (terms,) float32 on the device, no gradient.
Step = Callable[[Batch, Noise], Tensor]


class Stage(Protocol):
    """A part of a training with optimisers of its own."""

    @property
    def name(self) -> str:
        """As it stands in metrics and pictures."""
        ...

    @property
    def epochs(self) -> int:
        """Passes over the training images."""
        ...

    @property
    def rate_options(self) -> str:
        """Where the configuration has its learning rates, in words."""
        ...

    @property
    def adversarial(self) -> bool:
        """Whether a second network learns to tell drawn pictures from real ones."""
        ...

    @property
    def draws_pictures(self) -> bool:
        """Whether what the generator draws while it is trained is a picture."""
        ...

    @property
    def rows(self) -> Rows:
        """What its steps want to see of each image."""
        ...

    def rate(self, step: int, steps: int) -> float:
        """The learning rate of a step (from 0) of a stage of so many steps."""
        ...


S = TypeVar("S", bound=Stage)


class Method(Protocol[S]):
    """A way to train a generator: its networks, losses and updates.

    It knows nothing of epochs, files, Ray or MLflow. Between two calls of `begin` its networks are
    those of one stage.
    """

    name: str  # under which checkpoints know it
    device: torch.device

    @property
    def stages(self) -> tuple[S, ...]:
        """In their order."""
        ...

    @property
    def generator(self) -> nn.Module:
        """The network that draws, whose weights may be averaged."""
        ...

    def terms(self, stage: S) -> tuple[str, ...]:
        """The names of what a step of a stage gives: those of `losses` add up to its loss."""
        ...

    def losses(self, stage: S) -> int:
        """How many of the terms, the first ones, make up the loss; others are told beside it."""
        ...

    def begin(self, stage: S) -> dict[str, torch.optim.Optimizer]:
        """Make the networks what a stage needs, and fresh optimisers for them, by name."""
        ...

    def steps(self, stage: S, optimizers: dict[str, torch.optim.Optimizer]) -> Step:
        """The step of a stage that `begin` has begun."""
        ...

    def drawn_from(self, embeddings: Iterable[Tensor]) -> Iterator[tuple[Tensor, ...]]:
        """What the generator is called with for batches of embeddings, the same at every time."""
        ...

    def trained_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """All weights that are trained, by name."""
        ...

    def training_state(self) -> dict[str, Any]:
        """All that a later process cannot make again: no frozen networks."""
        ...

    def load_training_state(self, state: dict[str, Any]) -> None:
        """Become what `training_state` told of."""
        ...


def with_settling_noise(
    embeddings: Iterable[Tensor], noise_dim: int, seed: int, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """Embeddings with noise that is the same at every time and in every process."""
    for place, batch in enumerate(embeddings):
        noise = Noise(seed, _SETTLING_STEP - place, device, shared=True)
        yield batch, noise(len(batch), noise_dim)


def with_noise(embeddings: Tensor, noise_dim: int, noise: Noise) -> tuple[Tensor, ...]:
    """What a generator is called with in a step: embeddings, and noise where it takes some."""
    return (embeddings, noise(len(embeddings), noise_dim)) if noise_dim else (embeddings,)


def update(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """Backward, and a step of the optimiser."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
