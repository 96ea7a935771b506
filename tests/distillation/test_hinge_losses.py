import numpy as np
import pytest
import torch

from sdn_ray.distillation.adversarial import (
    SCORES,
    TERMS,
    channel_deviations,
    drawn_loss,
    heads_loss,
    variety_loss,
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
    assert TERMS == ("heads_real", "heads_wrong", "heads_fake", "generator", "variety")
    assert SCORES == ("score_real", "score_wrong", "score_fake")


def variety_of(real, fake):
    """The loss of features, level by level."""
    channels = [maps.shape[1] for maps in real]
    return variety_loss(channel_deviations(real), channel_deviations(fake), channels)


def deviations(maps):
    """σ_c, over the groups of four and the places."""
    groups = maps.reshape(-1, 4, *maps.shape[1:])
    return np.sqrt(groups.var(1) + 1e-8).mean((0, 2, 3))


def levels_of(seed, scales):
    draws = np.random.default_rng(seed)
    shapes = (8, 3, 4, 4), (8, 2, 2, 2)
    return [
        draws.normal(size=shape) * np.array(scale)[:, None, None]
        for shape, scale in zip(shapes, scales, strict=True)
    ]


def test_variety_loss_by_hand():
    """Of the drawn channels two of three vary less than those of photographs, then one of two."""
    real, fake = levels_of(0, ([1, 2, 3], [1, 1])), levels_of(1, ([0.5, 9, 1], [3, 0.2]))
    expected = []
    for r, s in zip(real, fake, strict=True):
        of_real, of_fake = deviations(r), deviations(s)
        lacking = np.maximum(0, of_real - of_fake)
        assert (lacking > 0).tolist() in ([True, False, True], [False, True])
        expected.append(lacking.sum() / of_real.sum())
    found = variety_of(*([torch.from_numpy(one) for one in maps] for maps in (real, fake)))
    assert found.shape == ()
    assert found.item() == pytest.approx(np.mean(expected), rel=1e-5)


def test_one_picture_for_all_captions_has_the_variety_loss_1():
    real = [torch.from_numpy(maps) for maps in levels_of(0, ([1, 2, 3], [1, 1]))]
    alike = [maps[:1].expand_as(maps) for maps in real]
    assert variety_of(real, alike).item() == pytest.approx(1, abs=1e-3)
    assert variety_of(real, real).item() == 0
    assert variety_of(real, [3 * maps + 5 for maps in real]).item() == 0


def test_gradients_of_the_variety_loss_by_finite_differences():
    real = [torch.from_numpy(maps) for maps in levels_of(0, ([1, 2, 3], [1, 1]))]
    (first, second) = (torch.from_numpy(m) for m in levels_of(1, ([0.5, 9, 1], [3, 0.2])))
    second.requires_grad_()
    variety_of(real, [first, second]).backward()
    for place in ((0, 1, 0, 0), (5, 1, 1, 1), (2, 0, 0, 1)):
        values = []
        for step in (1e-2, -1e-2):
            moved = second.detach().clone()
            moved[place] += step
            values.append(variety_of(real, [first, moved]).item())
        expected = (values[0] - values[1]) / 2e-2
        assert second.grad[place].item() == pytest.approx(expected, rel=0.02, abs=1e-5)
    assert not second.grad[:, 0].any()  # which varies enough
