"""An exponential average of a generator's weights, with batch-norm statistics of its own."""

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from sdn_ray.methods.workers import alone


class WeightAverage:
    """The average of a generator's weights over its steps.

    Means and variances of a batch normalisation do not belong to averaged weights: `settle`
    measures the average's own.

    Args:
        generator: whose weights are averaged, from now on.
        decay: what is kept of the average in a step.

    Attributes:
        generator: the average; its statistics hold after `settle`.
    """

    def __init__(self, generator: nn.Module, decay: float) -> None:
        # Every worker settles it with the same batches.
        self.generator = alone(copy.deepcopy(generator)).requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, generator: nn.Module) -> None:
        """Take in the weights after a step; nothing leaves the device."""
        torch._foreach_lerp_(
            list(self.generator.parameters()), list(generator.parameters()), 1 - self.decay
        )

    @torch.no_grad()
    def settle(self, batches: Iterable[tuple[Tensor, ...]]) -> None:
        """Measure means and variances of every batch normalisation, equal weight for each batch.

        Those of a part that stays in eval mode, since it is not trained, are kept.

        Args:
            batches: what the generator is called with, the same in every process.
        """
        self.generator.train()
        normalisations = [
            module
            for module in self.generator.modules()
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training
        ]
        if not normalisations:
            self.generator.eval()
            return
        momenta = [module.momentum for module in normalisations]
        for module in normalisations:
            module.reset_running_stats()
            module.momentum = None  # which is a plain mean over the batches
        for batch in batches:
            self.generator(*batch)
        self.generator.eval()
        for module, momentum in zip(normalisations, momenta, strict=True):
            module.momentum = momentum
