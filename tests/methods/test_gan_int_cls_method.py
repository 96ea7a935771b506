"""GAN-INT-CLS in the loop: what its steps do, and that a run goes on."""

import copy

import pytest
import torch

from sdn_ray.methods import method as module
from sdn_ray.methods.gan_int_cls import Adversarial, GanIntCls
from sdn_ray.methods.loop import Hooks, LoopOptions, Training, distill
from sdn_ray.methods.method import Noise
from sdn_ray.models.gan_int_cls import GanIntClsDiscriminator, GanIntClsGenerator
from tests.methods import gan_runs
from tests.methods.gan_runs import (
    BATCH,
    CPU,
    assert_adams_of_the_authors,
    assert_goes_on_bit_for_bit,
    cross_entropy,
    moved_by_a_step,
    scaled,
    sigmoid,
    step_terms,
    weights,
)

EMBEDDING, SIZE, NOISE = 5, 16, 3


def new_batches():
    return gan_runs.new_batches(SIZE, EMBEDDING, captions=3)


def new_method(seed=0, **stage):
    generator = GanIntClsGenerator(EMBEDDING, SIZE, width=4, text_width=4, noise_dim=NOISE)
    discriminator = GanIntClsDiscriminator(EMBEDDING, SIZE, width=4, text_width=4)
    generator.reset_parameters(seed)
    discriminator.reset_parameters(seed + 1)
    return GanIntCls(generator, discriminator, Adversarial(**{"epochs": 3} | stage), seed=0)


def new_training(average_decay=0.8, seed=0):
    return Training(new_method(seed), LoopOptions(seed=1, log_steps=1, average_decay=average_decay))


def first_batch(method):
    return next(new_batches().epoch(0, rows=method.stage.rows))


def networks_of(method):
    return {"generator": method.generator, "discriminator": method.discriminator}


@pytest.mark.parametrize(
    ("still", "moving"), [("generator", "discriminator"), ("discriminator", "generator")]
)
def test_each_update_moves_its_own_network_alone(still, moving):
    method = new_method()
    changed = moved_by_a_step(method, method.stage, first_batch(method), networks_of(method), still)
    assert weights(changed[still]) == set()
    assert len(weights(changed[moving])) > 10
    assert all(parameter.requires_grad for _, parameter in method.trained_parameters())


@pytest.mark.parametrize("cls", [True, False])
def test_the_terms_of_a_step_are_those_of_the_page(cls):
    """Worked out from copies of the networks: D is judged as it was, G against the new D."""
    method = new_method(cls=cls, real_label=0.9)
    optimizers = method.begin(method.stage)
    batch, noise = first_batch(method), Noise(1, 7, CPU)
    old, generator = copy.deepcopy(method.discriminator), copy.deepcopy(method.generator)
    found = step_terms(method, method.stage, optimizers, batch)

    old.train(), generator.train()
    t = batch.embeddings
    fake = generator(t, noise(BATCH, NOISE))
    real = old(scaled(batch.images), t)
    expected = {"d_real": cross_entropy(real, 0.9), "probability_real": sigmoid(real)}
    if cls:
        wrong = old(scaled(batch.wrong), t)
        expected |= {"d_wrong": cross_entropy(wrong, 0) / 2, "probability_wrong": sigmoid(wrong)}
    else:
        assert batch.wrong is None
    drawn = old(fake, t)
    weight = 0.5 if cls else 1
    expected |= {"d_fake": weight * cross_entropy(drawn, 0), "probability_fake": sigmoid(drawn)}
    between = (t[: BATCH // 2] + t[BATCH // 2 :]) / 2
    captions = torch.cat([t, between])
    new = copy.deepcopy(method.discriminator).train()
    draws = torch.cat([noise(BATCH, NOISE), noise(BATCH // 2, NOISE)])
    fresh = generator(captions, draws)
    expected["g"] = cross_entropy(new(fresh, captions), 1)
    assert found == pytest.approx(expected, rel=1e-4)
    assert method.losses(method.stage) == len(found) - len([n for n in found if "prob" in n])


def test_without_int_the_generator_sees_the_captions_alone():
    seen = []
    method = new_method(interpolate=False)
    method.generator.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    method.steps(method.stage, method.begin(method.stage))(first_batch(method), Noise(1, 0, CPU))
    assert seen == [BATCH, BATCH]


def test_the_rate_is_halved_every_so_many_epochs():
    stage = Adversarial(epochs=7, learning_rate=8.0, halving_epochs=2)
    rates = [stage.rate(step, 7 * 3) for step in range(21)]
    assert rates == [8.0] * 6 + [4.0] * 6 + [2.0] * 6 + [1.0] * 3


def test_both_adams_are_the_authors():
    method = new_method()
    assert_adams_of_the_authors(method.begin(method.stage), networks_of(method))


@pytest.mark.parametrize("average_decay", [None, 0.8])
@pytest.mark.parametrize("stop", [1, 2, 5])
def test_a_stopped_run_goes_on_bit_for_bit(tmp_path, stop, average_decay):
    assert_goes_on_bit_for_bit(
        tmp_path, new_batches(), lambda seed: new_training(average_decay, seed), stop
    )


def test_the_loss_of_an_epoch_is_that_of_both_networks():
    run, seen = new_training(), []
    distill(run, new_batches(), Hooks(on_epoch=lambda report, _: seen.append(report)))
    assert len(seen) == 3
    for report in seen:
        parts = [report.terms[name] for name in ("d_real", "d_wrong", "d_fake", "g")]
        assert report.loss == pytest.approx(sum(parts))
        assert list(report.terms)[4:] == [
            "probability_real",
            "probability_wrong",
            "probability_fake",
        ]
        assert all(0 < report.terms[name] < 1 for name in list(report.terms)[4:])


def test_noise_is_that_of_one_worker_in_shares(monkeypatch):
    whole = Noise(4, 11, CPU)
    first, second = whole(6, 3), whole(4, 2)
    assert torch.equal(Noise(4, 11, CPU)(6, 3), first)
    assert not torch.equal(Noise(4, 12, CPU)(6, 3), first)
    assert not torch.equal(Noise(5, 11, CPU)(6, 3), first)
    monkeypatch.setattr(module, "world_size", lambda: 2)
    shares = []
    for own in (0, 1):
        monkeypatch.setattr(module, "rank", lambda own=own: own)
        noise = Noise(4, 11, CPU)
        shares.append((noise(3, 3), noise(2, 2)))
        assert torch.equal(Noise(4, 11, CPU, shared=True)(6, 3), first)
    assert torch.equal(torch.cat([share[0] for share in shares]), first)
    assert torch.equal(torch.cat([share[1] for share in shares]), second)
