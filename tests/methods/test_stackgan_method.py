"""StackGAN in the loop: what the steps of both stages do, and that a run goes on."""

import copy

import numpy as np
import pytest
import torch

from sdn_ray.data.batches import EncodedImages, EpochBatches
from sdn_ray.methods.checkpoints import latest_checkpoint, load_checkpoint, save_checkpoint
from sdn_ray.methods.loop import DivergedError, Hooks, LoopOptions, Training, distill
from sdn_ray.methods.method import Noise
from sdn_ray.methods.stackgan import STAGE_ONE, STAGE_TWO, StackGan, StackStage
from sdn_ray.models.stackgan import (
    StackGanGenerator,
    StageOneDiscriminator,
    StageTwoDiscriminator,
)

EMBEDDING, FIRST, SIZE, Z, TEXT, BATCH, STEPS = 5, 16, 32, 3, 4, 6, 2
CPU = torch.device("cpu")


def new_batches():
    draws = np.random.default_rng(0)
    data = EncodedImages(
        images=draws.integers(0, 256, (14, SIZE, SIZE, 3), dtype=np.uint8),
        embeddings=draws.normal(size=(40, EMBEDDING)).astype(np.float32),
        caption_rows=draws.integers(0, 40, (14, 5)),
        caption_counts=np.full(14, 5),
        indices=np.arange(14),
        classes=np.arange(14) % 4,
    )
    return EpochBatches(data, batch_size=BATCH, seed=1, flips=True)


def new_method(seed=0, kl_weight=2.0):
    generator = StackGanGenerator(EMBEDDING, SIZE, FIRST, width=4, text_width=TEXT, z_dim=Z)
    judges = {
        STAGE_ONE: StageOneDiscriminator(EMBEDDING, FIRST, width=4, text_width=TEXT),
        STAGE_TWO: StageTwoDiscriminator(EMBEDDING, SIZE, width=4, text_width=TEXT),
    }
    for place, network in enumerate((generator, *judges.values())):
        network.reset_parameters(seed + place)
    stages = StackStage(STAGE_ONE, epochs=2), StackStage(STAGE_TWO, epochs=1)
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


def snapshot(network):
    return {name: value.clone() for name, value in network.state_dict().items()}


def moved(network, before):
    return {n for n, value in network.state_dict().items() if not torch.equal(value, before[n])}


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
    optimizers = method.begin(stage)
    for group in optimizers[still].param_groups:
        group["lr"] = 0.0
    networks = networks_of(method)
    before = {name: snapshot(network) for name, network in networks.items()}
    method.steps(stage, optimizers)(first_batch(stage), Noise(1, 0, CPU))
    drawing, judge = own
    changed = {name: moved(network, before[name]) for name, network in networks.items()}
    frozen, learning = (drawing, judge) if still == "generator" else (judge, drawing)
    # Of a network that is passed through, the running statistics move.
    assert all("running" in name or "tracked" in name for name in changed[frozen])
    assert len([name for name in changed[learning] if "weight" in name]) > 5
    for name in networks.keys() - set(own):
        assert changed[name] == set(), name


def cross_entropy(logits, label):
    logits = logits.detach().double().numpy()
    return np.mean(np.logaddexp(0, -logits) * label + np.logaddexp(0, logits) * (1 - label))


def sigmoid(logits):
    return float((1 / (1 + np.exp(-logits.detach().double().numpy()))).mean())


def quarter(images):
    """Half as many pixels a side, as the step has them."""
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
    terms = method.steps(stage, optimizers)(batch, Noise(1, 7, CPU))
    found = dict(zip(method.terms(stage), terms.tolist(), strict=True))
    t = batch.embeddings

    def draw():
        z, one, two = noise(BATCH, Z + 2 * TEXT).split([Z, TEXT, TEXT], 1)
        images, mean, log = generator.first(t, z, one)
        return generator.second(images, t, two) if place else (images, mean, log)

    def seen(images):
        images = images.float() / 127.5 - 1
        return images if place else quarter(images)

    real, wrong, drawn = (
        old.train()(images, t) for images in (seen(batch.images), seen(batch.wrong), draw()[0])
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
    stage = StackStage(STAGE_TWO, epochs=5, learning_rate=8.0, halving_epochs=2)
    rates = [stage.rate(step, 5 * 3) for step in range(15)]
    assert rates == [8.0] * 6 + [4.0] * 6 + [2.0] * 3


def test_adams_are_the_authors_and_each_has_one_network():
    method = new_method()
    for stage, drawing in zip(method.stages, ("first", "second"), strict=True):
        networks = networks_of(method)
        own = {"generator": drawing, "discriminator": f"judge of {stage.name}"}
        for name, optimizer in method.begin(stage).items():
            (group,) = optimizer.param_groups
            assert (group["betas"], group["eps"], group["weight_decay"]) == ((0.5, 0.999), 1e-8, 0)
            assert group["params"] == list(networks[own[name]].parameters())


def state_of(run):
    method = run.method
    states = {"generator": method.generator, "discriminators": method.discriminators}
    states |= {"average": run.result} if run.average else {}
    return {
        f"{n}.{key}": v.clone() for n, one in states.items() for key, v in one.state_dict().items()
    }


@pytest.mark.parametrize(
    ("stop", "average_decay"), [(1, 0.8), (2, 0.8), (4, 0.8), (5, 0.8), (5, None)]
)
def test_a_stopped_run_goes_on_bit_for_bit(tmp_path, stop, average_decay):
    """Within stage one, at an epoch's end, between the stages, within stage two."""
    whole, epochs = new_training(average_decay), []
    assert distill(
        whole, new_batches(), Hooks(on_epoch=lambda report, _: epochs.append(report.terms))
    )

    def keep(run, stage_end):
        save_checkpoint(tmp_path, run.state_dict(), run.steps_done(STEPS), stage_end)

    before, again = new_training(average_decay), []
    hooks = Hooks(
        on_progress=lambda report: report.steps_done == stop,
        on_epoch=lambda report, _: again.append(report.terms),
        on_checkpoint=keep,
    )
    assert distill(before, new_batches(), hooks) is False
    torch.manual_seed(5)
    run = new_training(average_decay, seed=9)
    run.load_state_dict(load_checkpoint(latest_checkpoint(tmp_path)))
    assert run.steps_done(STEPS) == stop
    assert distill(run, new_batches(), Hooks(on_epoch=lambda report, _: again.append(report.terms)))
    found, expected = state_of(run), state_of(whole)
    assert found.keys() == expected.keys()
    for name, value in found.items():
        assert torch.equal(value, expected[name]), name
    assert again == epochs


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
