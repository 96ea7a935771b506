import numpy as np
import pytest
import torch

from sdn_ray.distillation.adversarial import (
    SCORES,
    TERMS,
    drawn_loss,
    heads_loss,
)

# Two pictures by three places; on both sides of each hinge.
REAL = [[2.0, -1.0, 0.5], [1.5, 0.25, -3.0]]
WRONG = [[0.3, -2.5, 1.5], [-4.0, 0.0, -0.5]]
FAKE = [[-0.7, 3.0, -1.25], [-10.0, 10.0, 0.125]]


def logits(values):
    return torch.tensor(values, requires_grad=True)


def hinge(values, sign):
    return float(np.maximum(0, 1 + sign * np.array(values)).mean())


def test_the_hand_made_logits_tell_the_terms_apart():
    assert hinge(REAL, -1) == pytest.approx((0 + 2 + 0.5 + 0 + 0.75 + 4) / 6)
    assert hinge(WRONG, 1) == pytest.approx((1.3 + 0 + 2.5 + 0 + 1 + 0.5) / 6)
    assert hinge(FAKE, 1) == pytest.approx((0.3 + 4 + 0 + 0 + 11 + 1.125) / 6)


@pytest.mark.parametrize("weight", [0.0, 0.2, 0.5, 1.0])
def test_heads_loss_by_hand(weight):
    loss = heads_loss(logits(REAL), logits(WRONG), logits(FAKE), weight)
    expected = [hinge(REAL, -1), weight * hinge(WRONG, 1), (1 - weight) * hinge(FAKE, 1)]
    assert loss.terms.tolist() == pytest.approx(expected)
    assert loss.total.shape == ()
    assert loss.total.item() == pytest.approx(sum(expected))
    assert loss.total.requires_grad
    assert not loss.terms.requires_grad


def test_gradients_of_the_heads_loss_by_hand():
    inputs = [logits(values) for values in (REAL, WRONG, FAKE)]
    heads_loss(*inputs, 0.2).total.backward()
    for tensor, sign, weight in zip(inputs, (-1, 1, 1), (1, 0.2, 0.8), strict=True):
        passes = 1 + sign * tensor.detach().numpy() > 0
        np.testing.assert_allclose(tensor.grad, sign * weight * passes / 6, rtol=1e-6)


def test_logits_beyond_the_hinge_are_left_alone():
    sure = [logits([[1.5, 2.0]]), logits([[-1.5, -9.0]]), logits([[-2.0, -1.1]])]
    loss = heads_loss(*sure, 0.5)
    loss.total.backward()
    assert loss.terms.tolist() == [0, 0, 0]
    assert not any(tensor.grad.any() for tensor in sure)


def test_drawn_loss_by_hand():
    fake = logits(FAKE)
    loss = drawn_loss(fake)
    loss.backward()
    assert loss.shape == ()
    assert loss.item() == pytest.approx(-(-0.7 + 3 - 1.25 - 10 + 10 + 0.125) / 6)
    np.testing.assert_allclose(fake.grad, np.full((2, 3), -1 / 6), rtol=1e-6)


def test_every_term_has_a_name():
    assert TERMS == ("heads_real", "heads_wrong", "heads_fake", "generator")
    assert SCORES == ("score_real", "score_wrong", "score_fake")
