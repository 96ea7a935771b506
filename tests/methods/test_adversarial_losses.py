import math

import numpy as np
import pytest
import torch

from sdn_ray.errors import UserError
from sdn_ray.methods.adversarial_losses import (
    condition_divergence,
    cross_entropy,
    discriminator_loss,
    generator_loss,
    interpolated_embeddings,
)

REAL, WRONG, FAKE = [2.0, -1.0, 0.5, 30.0], [0.3, 1.5, -4.0, 0.0], [-0.7, 3.0, 100.0, -100.0]


def by_hand(logits, label):
    """−y log σ(s) − (1 − y) log(1 − σ(s)), averaged, in float64."""
    s = np.array(logits, np.float64)
    log_sigmoid, log_opposite = -np.logaddexp(0, -s), -np.logaddexp(0, s)
    return float(np.mean(-label * log_sigmoid - (1 - label) * log_opposite))


def logits(values):
    return torch.tensor(values, requires_grad=True)


def test_the_hand_made_logits_tell_the_terms_apart():
    found = [by_hand(REAL, 1), by_hand(WRONG, 0), by_hand(FAKE, 0), by_hand(FAKE, 1)]
    assert len({round(value, 2) for value in found}) == 4


def test_zero_logits():
    zero = torch.zeros(5)
    assert discriminator_loss(zero, zero, zero).total.item() == pytest.approx(2 * math.log(2))
    assert discriminator_loss(zero, None, zero).total.item() == pytest.approx(2 * math.log(2))
    assert generator_loss(zero).item() == pytest.approx(math.log(2))


@pytest.mark.parametrize("label", [0.0, 0.9, 1.0])
def test_cross_entropy_by_hand(label):
    for values in (REAL, WRONG, FAKE):
        assert cross_entropy(logits(values), label).item() == pytest.approx(by_hand(values, label))


def test_discriminator_loss_by_hand():
    loss = discriminator_loss(logits(REAL), logits(WRONG), logits(FAKE))
    expected = [by_hand(REAL, 1), 0.5 * by_hand(WRONG, 0), 0.5 * by_hand(FAKE, 0)]
    assert loss.total.shape == ()
    assert loss.total.item() == pytest.approx(sum(expected))
    assert loss.terms.tolist() == pytest.approx(expected)
    assert loss.total.requires_grad
    assert not loss.terms.requires_grad


@pytest.mark.parametrize("place", [0, 1, 2])
def test_the_weight_of_each_discriminator_term(place):
    """A step of one logit from 0 changes the loss by its own weight and label alone."""
    weight, label = [(1, 1), (0.5, 0), (0.5, 0)][place]
    values = [[0.0, 0.0] for _ in range(3)]
    values[place][1] = 1.5
    found = discriminator_loss(*map(logits, values)).total.item() - 2 * math.log(2)
    assert found == pytest.approx(weight * (by_hand([0.0, 1.5], label) - math.log(2)), rel=1e-5)


def test_gradients_by_hand():
    """dℓ/ds = (σ(s) − y) / B."""
    inputs = [logits(values) for values in (REAL, WRONG, FAKE)]
    discriminator_loss(*inputs).total.backward()
    for tensor, weight, label in zip(inputs, (1, 0.5, 0.5), (1, 0, 0), strict=True):
        sigmoid = 1 / (1 + np.exp(-tensor.detach().numpy().astype(np.float64)))
        expected = weight * (sigmoid - label) / 4
        np.testing.assert_allclose(tensor.grad.numpy(), expected, rtol=1e-5, atol=1e-7)


def test_without_the_wrong_term_the_fake_one_has_weight_one():
    loss = discriminator_loss(logits(REAL), None, logits(FAKE))
    expected = [by_hand(REAL, 1), by_hand(FAKE, 0)]
    assert loss.terms.tolist() == pytest.approx(expected)
    assert loss.total.item() == pytest.approx(sum(expected))


def test_the_real_label_is_that_of_real_images_alone():
    loss = discriminator_loss(logits(REAL), logits(WRONG), logits(FAKE), real_label=0.9)
    expected = [by_hand(REAL, 0.9), 0.5 * by_hand(WRONG, 0), 0.5 * by_hand(FAKE, 0)]
    assert loss.terms.tolist() == pytest.approx(expected)


def test_generator_loss_is_the_mean_over_all_items():
    assert generator_loss(logits(FAKE)).item() == pytest.approx(by_hand(FAKE, 1))
    both = torch.cat([logits(FAKE), logits(REAL[:2])])
    assert generator_loss(both).item() == pytest.approx(by_hand(FAKE + REAL[:2], 1))


def test_losses_are_float32_whatever_the_networks_compute_in():
    halves = [torch.tensor(values).bfloat16() for values in (REAL, WRONG, FAKE)]
    exact = discriminator_loss(*(half.float() for half in halves))
    with torch.autocast("cpu", torch.bfloat16):
        found = discriminator_loss(*halves)
        drawn = generator_loss(halves[2])
    assert found.total.dtype == found.terms.dtype == drawn.dtype == torch.float32
    assert torch.equal(found.terms, exact.terms)
    assert drawn.item() == pytest.approx(by_hand(halves[2].float().tolist(), 1))


def test_interpolation_pairs_each_caption_with_the_one_half_a_batch_on():
    embeddings = torch.tensor([[0.0, 1.0], [2.0, 3.0], [10.0, 20.0], [30.0, 40.0]])
    assert interpolated_embeddings(embeddings).tolist() == [[5.0, 10.5], [16.0, 21.5]]
    batch = torch.randn(64, 7, generator=torch.Generator().manual_seed(0))
    found = interpolated_embeddings(batch)
    assert found.shape == (32, 7)
    for j in range(32):
        torch.testing.assert_close(found[j], (batch[j] + batch[j + 32]) / 2, rtol=0, atol=1e-7)


@pytest.mark.parametrize("batch", [1, 3, 63])
def test_an_odd_batch_has_no_halves(batch):
    with pytest.raises(UserError) as error:
        interpolated_embeddings(torch.zeros(batch, 4))
    assert str(error.value) == (
        f"training.batch_size: found {batch} images, expected an even number, "
        "since GAN-INT averages the captions of the two halves of a batch"
    )


def test_the_divergence_of_codes_is_zero_for_the_normal_law():
    assert condition_divergence(torch.zeros(3, 4), torch.zeros(3, 4)).item() == 0


def test_the_divergence_of_codes_and_its_gradients_by_hand():
    """−log σ + ½ (σ² + μ² − 1); by μ it is μ, by log σ it is σ² − 1, over all numbers."""
    draws = np.random.default_rng(0)
    mean, log = draws.normal(size=(2, 3, 4))
    inputs = [torch.tensor(one, requires_grad=True) for one in (mean, log)]
    found = condition_divergence(*inputs)
    variance = np.exp(log) ** 2
    assert found.item() == pytest.approx(np.mean(-log + (variance + mean**2 - 1) / 2))
    found.backward()
    np.testing.assert_allclose(inputs[0].grad, mean / 12)
    np.testing.assert_allclose(inputs[1].grad, (variance - 1) / 12)
