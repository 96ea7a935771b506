import copy
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from sdn_ray.models.drawing import draw_images
from sdn_ray.models.folded import fold_batch_norms
from tests.models.test_export import (
    EMBEDDINGS,
    new_gan,
    new_gawwn,
    new_generator,
    new_modulated,
    new_stackgan,
)

NORMS = nn.BatchNorm1d | nn.BatchNorm2d


def norms(network):
    return [layer for layer in network.modules() if isinstance(layer, NORMS)]


def moved(generator):
    """With statistics that are not those of a new network."""
    random = torch.Generator().manual_seed(1)
    for norm in norms(generator):
        norm.running_mean.normal_(0, 0.3, generator=random)
        norm.running_var.uniform_(0.5, 2, generator=random)
        if norm.affine:
            norm.weight.data.uniform_(0.5, 2, generator=random)
            norm.bias.data.normal_(0, 0.3, generator=random)
    return generator.eval()


def test_a_convolution_is_that_of_the_equation():
    layers = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2, eps=0.0)).eval()
    conv, norm = layers
    conv.weight.data[:] = torch.tensor([3.0, 4.0]).view(2, 1, 1, 1)
    conv.bias.data[:] = torch.tensor([1.0, 2.0])
    norm.running_mean[:] = torch.tensor([0.5, 1.0])
    norm.running_var[:] = torch.tensor([4.0, 0.25])
    norm.weight.data[:] = torch.tensor([2.0, 5.0])
    norm.bias.data[:] = torch.tensor([0.0, 7.0])
    fold_batch_norms(layers)
    # γ/σ: 2/2 = 1 and 5/0.5 = 10; biases (1 - 0.5)·1 + 0 and (2 - 1)·10 + 7.
    assert layers[0].weight.flatten().tolist() == [3.0, 40.0]
    assert layers[0].bias.tolist() == [0.5, 17.0]
    assert isinstance(layers[1], nn.Identity)


@pytest.mark.parametrize(
    ("new", "left"),
    [
        (new_generator, 1),
        (new_modulated, 3),
        (new_gan, 0),
        (new_stackgan, 0),
        (partial(new_gawwn, "boxes"), 0),
        (partial(new_gawwn, "keypoints"), 0),
    ],
)
def test_the_same_pictures_with_fewer_layers(new, left):
    generator = moved(new())
    before = np.concatenate(list(draw_images(generator, EMBEDDINGS))).astype(int)
    folded = copy.deepcopy(generator)
    fold_batch_norms(folded)
    after = np.concatenate(list(draw_images(folded, EMBEDDINGS))).astype(int)
    assert np.abs(after - before).max() <= 1
    assert (after == before).mean() > 0.99
    # What comes after a reshaping stays, and what a code modulates.
    assert len(norms(folded)) == left


def test_every_norm_of_a_plain_mirror_is_folded():
    generator = new_generator().eval()
    fold_batch_norms(generator)
    # That of g-fc6 comes after its reshaping.
    assert norms(generator) == [generator.g_fc6[2]]


def test_a_layer_that_stands_twice_is_no_neighbour_of_what_comes_after_its_second_place():
    act = nn.ReLU()
    layers = nn.Sequential(nn.Linear(2, 2), act, nn.Linear(2, 2), act, nn.BatchNorm1d(2))
    fold_batch_norms(moved(layers))
    assert len(norms(layers)) == 1


def test_a_network_in_training_is_refused():
    with pytest.raises(ValueError, match="training mode"):
        fold_batch_norms(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)))
