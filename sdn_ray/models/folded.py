"""Batch normalisations folded into the layers before them, for models that only draw."""

from itertools import pairwise

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval


def fold_batch_norms(network: nn.Module) -> None:
    """Fold what a layer's running statistics do to its output into its weights, in place.

    A quarter less work on a CPU, for the same pictures up to rounding; which is why a model that is
    scored, or compared bit by bit, is left alone. A normalisation that a code modulates stays.

    Args:
        network: in eval mode; it cannot be trained afterwards.

    Raises:
        ValueError: it is in training mode.
    """
    if network.training:
        raise ValueError("fold_batch_norms: found a network in training mode, expected eval()")
    for module in network.modules():
        if isinstance(module, nn.Sequential):
            _fold_neighbours(module)


def _fold_neighbours(layers: nn.Sequential) -> None:
    for (place, layer), (after, norm) in pairwise(list(layers.named_children())):
        folded: nn.Module
        if isinstance(norm, nn.BatchNorm2d) and isinstance(layer, nn.Conv2d):
            folded = fuse_conv_bn_eval(layer, norm)
        elif isinstance(norm, nn.BatchNorm2d) and isinstance(layer, nn.ConvTranspose2d):
            folded = fuse_conv_bn_eval(layer, norm, transpose=True)
        elif isinstance(norm, nn.BatchNorm1d) and isinstance(layer, nn.Linear):
            folded = fuse_linear_bn_eval(layer, norm)
        else:
            continue
        layers.add_module(place, folded)
        layers.add_module(after, nn.Identity())
