"""What the loop asks of a method: its stages, its steps, and what a checkpoint keeps of it."""

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from sdn_ray.data.batches import Batch
from sdn_ray.distillation.schemes import Stage
from sdn_ray.models.generator import Generator

# One training step with all its updates → (terms,) float32 on the device, no gradient.
Step = Callable[[Batch], Tensor]


class Method(Protocol):
    """A way to train a generator: its networks, losses and updates.

    It knows nothing of epochs, files, Ray or MLflow. Between two calls of `begin` its networks are
    those of one stage.
    """

    name: str  # under which checkpoints know it
    stages: tuple[Stage, ...]
    generator: Generator  # that draws
    device: torch.device

    def terms(self, stage: Stage) -> tuple[str, ...]:
        """The names of what a step of a stage gives."""
        ...

    def begin(self, stage: Stage) -> dict[str, torch.optim.Optimizer]:
        """Make the networks what a stage needs, and fresh optimisers for them, by name."""
        ...

    def steps(self, stage: Stage, optimizers: dict[str, torch.optim.Optimizer]) -> Step:
        """The step of a stage that `begin` has begun."""
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


def world_size() -> int:
    """The number of workers."""
    return dist.get_world_size() if dist.is_initialized() else 1


def data_parallel(network: nn.Module) -> nn.Module:
    """A network whose gradients are averaged over the workers, where there are several."""
    return DistributedDataParallel(network) if world_size() > 1 else network
