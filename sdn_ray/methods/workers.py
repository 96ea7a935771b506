"""Several workers that take the steps of one: shared gradients, shared batch normalisation."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._compile import _disable_dynamo
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel


def world_size() -> int:
    """The number of workers."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Which of the workers this is."""
    return dist.get_rank() if dist.is_initialized() else 0


def data_parallel(network: nn.Module) -> nn.Module:
    """A network whose gradients are averaged over the workers, where there are several."""
    return DistributedDataParallel(network) if world_size() > 1 else network


def gathered(rows: Tensor) -> Tensor:
    """The rows of all workers in their order, without a gradient: (rows, …) to (all rows, …)."""
    workers = world_size()
    if workers == 1:
        return rows
    everyones = rows.new_zeros(workers, *rows.shape)
    everyones[rank()] = rows.detach()
    _add_up(everyones)
    return everyones.flatten(0, 1)


def with_whole_batches(network: nn.Module, device: torch.device) -> nn.Module:
    """Have every batch normalisation see the parts of a batch that all workers have, as one would.

    Args:
        network: weights and their names stay.
        device: on which it is.

    Returns:
        The network itself.
    """
    if world_size() == 1:
        return network
    if device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(network)  # it exists for GPUs alone
    for parent, name, child in _norms(network):
        setattr(parent, name, WholeBatchNorm.of(child))
    return network


def alone(network: nn.Module) -> nn.Module:
    """Undo `with_whole_batches`, for a copy that every worker runs on the same batches."""
    for parent, name, child in _norms(network):
        if isinstance(child, nn.SyncBatchNorm | WholeBatchNorm):
            own = WholeBatchNorm.of(child)
            own.alone = True
            setattr(parent, name, own)
    return network


class WholeBatchNorm(_BatchNorm):
    """What `torch.nn.SyncBatchNorm` is on GPUs, on CPUs: batch normalisation over all workers.

    All of them have parts of one size, and call it equally often.

    Attributes:
        alone: this worker's part only, for what every worker computes alike.
    """

    alone = False

    @classmethod
    def of(cls, norm: _BatchNorm) -> "WholeBatchNorm":
        """One with the weights and statistics of another layer."""
        made = cls(
            norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats
        )
        made.load_state_dict(norm.state_dict())
        some = next(iter(norm.state_dict().values()), None)
        return made if some is None else made.to(some.device)

    def _check_input_dim(self, input: Tensor) -> None:
        """Rows and maps alike."""

    # As `torch.compiler.disable`, but that imports torch._dynamo at once: a second and a half of
    # each command, of which few compile.
    @_disable_dynamo
    def forward(self, maps: Tensor) -> Tensor:
        """Normalise (batch, channels, …)."""
        if not self.training or self.alone:
            return super().forward(maps)
        normalised, mean, variance = _OverWorkers.apply(maps, self.weight, self.bias, self.eps)
        if self.running_mean is not None and self.running_var is not None:
            assert self.num_batches_tracked is not None
            assert self.momentum is not None
            self.num_batches_tracked.add_(1)
            count = world_size() * maps.numel() / maps.shape[1]
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)
        return normalised


class _OverWorkers(torch.autograd.Function):
    """y = w (x − μ) / √(σ² + ε) + b, with μ and σ² over the batch and places of all workers."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float):  # type: ignore[no-untyped-def]  # noqa: ANN205
        moments = torch.stack(torch.batch_norm_update_stats(maps.float(), None, None, 0.0))
        means, variances = gathered(moments[None]).unbind(1)
        mean = means.mean(0)
        # Of parts of one size: that within them, and that between them.
        variance = variances.mean(0) + (means - mean).square().mean(0)
        ctx.save_for_backward(maps, weight, mean, (variance + eps).rsqrt())
        ctx.mark_non_differentiable(mean, variance)
        given = nn.functional.batch_norm(maps, mean, variance, weight, bias, eps=eps)
        return given, mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        maps, weight, mean, scale = ctx.saved_tensors
        gradient = gradient.float()  # its sums, too, where maps are bf16
        channels = (1, -1) + (1,) * (maps.dim() - 2)
        places = [0, *range(2, maps.dim())]
        normal = (maps - mean.view(channels)) * scale.view(channels)
        own = torch.stack([gradient.sum(places), (gradient * normal).sum(places)])
        # Those of the weights are this worker's, as of all others: they are averaged later.
        to_bias, to_weight = own.clone() if weight is not None else (None, None)
        _add_up(own)
        level, slope = own / (world_size() * maps.numel() / maps.shape[1])
        to_maps = gradient - level.view(channels) - normal * slope.view(channels)
        factor = scale if weight is None else scale * weight
        return to_maps * factor.view(channels), to_weight, to_bias, None


def _norms(network: nn.Module) -> list[tuple[nn.Module, str, _BatchNorm]]:
    """All batch normalisations: what has them, and their names there."""
    return [
        (parent, name, child)
        for parent in network.modules()
        for name, child in parent.named_children()
        if isinstance(child, _BatchNorm)
    ]


def _add_up(values: Tensor) -> None:
    """The sum over all workers, in place."""
    dist.all_reduce(values)
