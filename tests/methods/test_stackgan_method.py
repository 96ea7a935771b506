"""StackGAN in the loop: what the steps of both stages do, and that a run goes on."""

import copy

import numpy as np
import pytest
import torch

from sdn_ray.data.batches import Rows
from sdn_ray.methods.loop import DivergedError, Hooks, LoopOptions, Training, distill
from sdn_ray.methods.method import Noise
from sdn_ray.methods.stackgan import STAGE_ONE, STAGE_TWO, StackGan, StackStage
from sdn_ray.models.stackgan import (
    StackGanGenerator,
    StageOneDiscriminator,
    StageTwoDiscriminator,
)
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

EMBEDDING, FIRST, SIZE, Z, TEXT = 5, 16, 32, 3, 4


def new_batches():
    return gan_runs.new_batches(SIZE, EMBEDDING, captions=5, side=FIRST)


def new_method(seed=0, kl_weight=2.0):
    generator = StackGanGenerator(EMBEDDING, SIZE, FIRST, width=4, text_width=TEXT, z_dim=Z)
    judges = {
        STAGE_ONE: StageOneDiscriminator(EMBEDDING, FIRST, width=4, text_width=TEXT),
        STAGE_TWO: StageTwoDiscriminator(EMBEDDING, SIZE, width=4, text_width=TEXT),
    }
    for place, network in enumerate((generator, *judges.values())):
        network.reset_parameters(seed + place)
    stages = StackStage(STAGE_ONE, epochs=2, side=FIRST), StackStage(STAGE_TWO, epochs=1)
    return StackGan(generator, judges, stages, kl_weight=kl_weight, seed=0)


def new_training(average_decay=0.8, seed=0):
    options = LoopOptions(seed=1, log_steps=1, average_decay=average_decay)
    return Training(new_method(seed), options)


def networks_of(method):
    return {
        "first": method.generator.first,
        "second": method.generator.second,
        **{f"judge of {name}": judge for name, judge in method.discriminators.items()},
    }


def first_batch(stage):
    return next(new_batches().epoch(0, rows=stage.rows))


@pytest.mark.parametrize(
    ("place", "own"), [(0, ("first", "judge of stage_one")), (1, ("second", "judge of stage_two"))]
)
@pytest.mark.parametrize("still", ["discriminator", "generator"])
def test_each_update_moves_its_own_network_alone(place, own, still):
    """In stage two nothing of stage one moves, statistics included."""
    method = new_method()
    stage = method.stages[place]
    networks = networks_of(method)
    changed = moved_by_a_step(method, stage, first_batch(stage), networks, still)
    drawing, judge = own
    frozen, learning = (drawing, judge) if still == "generator" else (judge, drawing)
    # Of a network that is passed through, the running statistics move.
    assert weights(changed[frozen]) == set()
    assert len([name for name in changed[learning] if "weight" in name]) > 5
    for name in networks.keys() - set(own):
        assert changed[name] == set(), name


def quarter(images):
    """Half as many pixels a side."""
    options = {"mode": "bicubic", "antialias": True}
    small = torch.nn.functional.interpolate(images, (FIRST, FIRST), **options)
    return small.clamp(-1, 1)


@pytest.mark.parametrize("place", [0, 1])
def test_the_terms_of_a_step_are_those_of_the_page(place):
    """Worked out from copies of the networks: D is judged as it was, G against the new D."""
    method = new_method(kl_weight=3.0)
    stage = method.stages[place]
    optimizers = method.begin(stage)
    batch, noise = first_batch(stage), Noise(1, 7, CPU)
    old, generator = copy.deepcopy(method.discriminators[stage.name]), method.generator
    generator = copy.deepcopy(generator).train()
    found = step_terms(method, stage, optimizers, batch)
    t = batch.embeddings

    def draw():
        z, one, two = noise(BATCH, Z + 2 * TEXT).split([Z, TEXT, TEXT], 1)
        images, mean, log = generator.first(t, z, one)
        return generator.second(images, t, two) if place else (images, mean, log)

    def seen(images):
        return scaled(images) if place else quarter(scaled(images))

    whole = next(new_batches().epoch(0, rows=Rows(wrong=True)))  # as they are prepared
    real, wrong, drawn = (
        old.train()(images, t) for images in (seen(whole.images), seen(whole.wrong), draw()[0])
    )
    new = copy.deepcopy(method.discriminators[stage.name]).train()
    fresh, mean, log_deviation = draw()
    mean, log = (one.detach().double().numpy() for one in (mean, log_deviation))
    expected = {
        "d_real": cross_entropy(real, 1),
        "d_wrong": cross_entropy(wrong, 0) / 2,
        "d_fake": cross_entropy(drawn, 0) / 2,
        "g": cross_entropy(new(fresh, t), 1),
        "kl": 3 * np.mean(-log + 0.5 * (np.exp(2 * log) + mean**2 - 1)),
        "probability_real": sigmoid(real),
        "probability_wrong": sigmoid(wrong),
        "probability_fake": sigmoid(drawn),
        "condition_mean": np.abs(mean).mean(),
        "condition_deviation": np.exp(log).mean(),
    }
    assert found == pytest.approx(expected, rel=1e-4)
    assert method.losses(stage) == 5


@pytest.mark.parametrize("kl_weight", [0.0, 2.0])
def test_codes_that_explode_end_the_training(kl_weight):
    run = new_training(None)
    run.method.kl_weight = kl_weight
    with torch.no_grad():
        linear = run.method.generator.first.condition.moments[0]
        linear.bias[TEXT:] = 3.0  # KL of a deviation of e³: about 200
    with pytest.raises(DivergedError) as error:
        distill(run, new_batches(), Hooks())
    assert "the loss became inf" in str(error.value)
    assert "term kl" in str(error.value)
    assert "stackgan.stage_one.learning_rate" in str(error.value)


def test_the_rate_is_halved_every_so_many_epochs():
    assert StackStage(STAGE_ONE).halving_epochs == 50
    stage = StackStage(STAGE_TWO, epochs=5, learning_rate=8.0, halving_epochs=2)
    rates = [stage.rate(step, 5 * 3) for step in range(15)]
    assert rates == [8.0] * 6 + [4.0] * 6 + [2.0] * 3


def test_adams_are_the_authors_and_each_has_one_network():
    method = new_method()
    for stage, drawing in zip(method.stages, ("first", "second"), strict=True):
        networks = networks_of(method)
        own = {"generator": drawing, "discriminator": f"judge of {stage.name}"}
        assert_adams_of_the_authors(
            method.begin(stage), {name: networks[one] for name, one in own.items()}
        )


@pytest.mark.parametrize(
    ("stop", "average_decay"), [(1, 0.8), (2, 0.8), (4, 0.8), (5, 0.8), (5, None)]
)
def test_a_stopped_run_goes_on_bit_for_bit(tmp_path, stop, average_decay):
    """Within stage one, at an epoch's end, between the stages, within stage two."""
    assert_goes_on_bit_for_bit(
        tmp_path, new_batches(), lambda seed: new_training(average_decay, seed), stop
    )


def test_the_average_of_stage_two_keeps_stage_one_as_it_was_trained():
    run = new_training()
    seen = []
    distill(run, new_batches(), Hooks(on_checkpoint=lambda r, end: seen.append(end)))
    assert seen == [False, True, True]
    averaged, own = run.result, run.method.generator
    assert (averaged.draws_first, own.draws_first) == (False, False)
    for name, value in own.first.state_dict().items():
        assert torch.equal(averaged.first.state_dict()[name], value), name
    for name, value in own.second.state_dict().items():
        if "running" in name:
            assert not torch.equal(averaged.second.state_dict()[name], value), name
