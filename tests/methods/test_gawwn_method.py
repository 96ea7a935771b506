"""GAWWN in the loop: what the steps of keypoints and of images do, and that a run goes on."""

import copy

import numpy as np
import pytest
import torch
from scipy.special import ndtr
from torch.nn.functional import softplus

from sdn_ray.data.batches import Batch, Rows
from sdn_ray.methods.gawwn import IMAGES, KEYPOINTS, Gawwn, GawwnStage
from sdn_ray.methods.loop import (
    DivergedError,
    Hooks,
    LoopOptions,
    Position,
    Training,
    distill,
)
from sdn_ray.methods.method import Noise
from sdn_ray.models.gawwn import GawwnGenerator
from sdn_ray.models.gawwn_boxes import BoxImageDiscriminator
from sdn_ray.models.gawwn_keypoints import KeypointImageDiscriminator
from sdn_ray.models.keypoint_generator import KeypointDiscriminator
from tests.methods import gan_runs
from tests.methods.gan_runs import (
    BATCH,
    CPU,
    STAGE_END,
    assert_adams_of_the_authors,
    assert_goes_on_bit_for_bit,
    assert_same,
    assert_same_gradients,
    cross_entropy,
    moved_by_a_step,
    random_boxes,
    random_parts,
    scaled,
    sigmoid,
    snapshot,
    step_terms,
    weights,
)

EMBEDDING, CODE, SIZE, Z = 5, 4, 32, 3
PARTS = ("head", "tail", "wing")
PLACES = {"keypoints": random_parts(14, 3), "boxes": random_boxes(14), "none": None}
# Of whitening.
MEAN = torch.linspace(-0.5, 0.5, EMBEDDING)
MATRIX = torch.randn(EMBEDDING, CODE, generator=torch.Generator().manual_seed(2))
# What is trained, by the locations and the place of the stage.
TRAININGS = [("keypoints", 0), ("keypoints", 1), ("boxes", 0), ("none", 0)]


def new_batches(locations):
    return gan_runs.new_batches(SIZE, EMBEDDING, captions=5, locations=PLACES[locations])


def new_method(locations="keypoints", seed=0, given_share=0.5):
    parts = () if locations == "boxes" else PARTS
    generator = GawwnGenerator(EMBEDDING, SIZE, 4, Z, CODE, parts, locations)
    shape = {"width": 4, "whitened_dim": CODE}
    stages = (GawwnStage(IMAGES, epochs=1, located=locations != "none"),)
    if locations == "boxes":
        generator.keep_boxes(torch.from_numpy(PLACES["boxes"][0]))
        judges = {IMAGES: BoxImageDiscriminator(EMBEDDING, SIZE, text_width=4, **shape)}
    else:
        judge = KeypointImageDiscriminator(EMBEDDING, SIZE, text_width=4, parts=3, **shape)
        judges = {IMAGES: judge}
    if locations == "keypoints":
        stages = GawwnStage(KEYPOINTS, epochs=2, captions=1), *stages
        judges[KEYPOINTS] = KeypointDiscriminator(EMBEDDING, 3, **shape)
    for place, network in enumerate((generator, *judges.values())):
        network.reset_parameters(seed + place)
        network.whitening.set(MEAN, MATRIX)
    return Gawwn(generator, judges, stages, given_share=given_share, seed=0)


def new_training(locations="keypoints", average_decay=0.8, seed=0):
    options = LoopOptions(seed=1, log_steps=1, average_decay=average_decay)
    return Training(new_method(locations, seed), options)


def networks_of(method):
    """By the stages that they are of."""
    drawing = {KEYPOINTS: method.generator.keypoints, IMAGES: method.generator.images}
    judges = {f"judge of {name}": judge for name, judge in method.discriminators.items()}
    return {name: network for name, network in drawing.items() if network} | judges


def first_batch(locations, stage):
    return next(new_batches(locations).epoch(0, rows=stage.rows))


@pytest.mark.parametrize(("locations", "place"), TRAININGS)
@pytest.mark.parametrize("still", ["discriminator", "generator"])
def test_each_update_moves_its_own_network_alone(locations, place, still):
    """Those of the other stage stand still, statistics included."""
    method = new_method(locations)
    stage, networks = method.stages[place], networks_of(method)
    batch = first_batch(locations, stage)
    changed = moved_by_a_step(method, stage, batch, networks, still)
    drawing, judge = stage.name, f"judge of {stage.name}"
    frozen, learning = (drawing, judge) if still == "generator" else (judge, drawing)
    assert weights(changed[frozen]) == set()
    assert len([name for name in weights(changed[learning]) if "weight" in name]) > 5
    for name in (drawing, judge):  # both are passed through
        assert changed[name] - weights(changed[name]), name
    for name in networks.keys() - {drawing, judge}:
        assert changed[name] == set(), name
    for name in networks.keys() & {KEYPOINTS, IMAGES, judge}:
        learns = [parameter.requires_grad for parameter in networks[name].parameters()]
        assert set(learns) == {name in (drawing, judge)}, name


@pytest.mark.parametrize("locations", ["keypoints", "boxes", "none"])
def test_the_terms_of_a_step_of_images_are_those_of_the_page(locations):
    """Worked out from copies of the networks: D is judged as it was, G against the new D."""
    method = new_method(locations)
    stage = method.stages[-1]
    optimizers = method.begin(stage)
    batch, noise = first_batch(locations, stage), Noise(1, 7, CPU)
    judge = method.discriminators[IMAGES]
    old, generator = copy.deepcopy(judge).train(), copy.deepcopy(method.generator.images).train()
    found = step_terms(method, stage, optimizers, batch)
    new, t = copy.deepcopy(judge).train(), batch.embeddings
    places, wrong_places = batch.locations, batch.wrong_locations
    if locations == "none":
        assert places is wrong_places is None
        places = wrong_places = torch.zeros(BATCH, len(PARTS), 3)
    else:
        assert not torch.equal(places, wrong_places)
    fake = generator((t - MEAN) @ MATRIX, noise(BATCH, Z), places)
    real = old(scaled(batch.images), places, t)
    wrong = old(scaled(batch.wrong), wrong_places, t)
    drawn = old(fake.detach(), places, t)
    judged = new(fake, places, t)
    assert found == pytest.approx(
        {
            "d_real": cross_entropy(real, 1),
            "d_wrong": cross_entropy(wrong, 0) / 2,
            "d_fake": cross_entropy(drawn, 0) / 2,
            "g": cross_entropy(judged, 1),
            "probability_real": sigmoid(real),
            "probability_wrong": sigmoid(wrong),
            "probability_fake": sigmoid(drawn),
        },
        rel=1e-4,
    )
    assert method.losses(stage) == 4
    (softplus(-real) + (softplus(wrong) + softplus(drawn)) / 2).mean().backward()
    assert_same_gradients(judge, old)
    softplus(-judged).mean().backward()
    assert_same_gradients(method.generator.images, generator)


def test_the_terms_of_a_step_of_keypoints_are_those_of_the_page():
    method = new_method(given_share=0.4)
    stage = method.stages[0]
    optimizers = method.begin(stage)
    batch, noise = first_batch("keypoints", stage), Noise(1, 7, CPU)
    judge = method.discriminators[KEYPOINTS]
    old = copy.deepcopy(judge).train()
    generator = copy.deepcopy(method.generator.keypoints).train()
    found = step_terms(method, stage, optimizers, batch)
    new, t, parts = copy.deepcopy(judge).train(), batch.embeddings, batch.locations
    kept = torch.from_numpy(ndtr(noise(BATCH, len(PARTS)).numpy()) < 0.4)
    given = torch.where(kept[:, :, None], parts, 0.0)
    assert given.any()
    assert not torch.equal(given, parts)
    fake = generator((t - MEAN) @ MATRIX, noise(BATCH, Z), given)
    real, drawn, judged = old(parts, t), old(fake.detach(), t), new(fake, t)
    assert batch.wrong is None
    assert found == pytest.approx(
        {
            "d_real": cross_entropy(real, 1),
            "d_fake": cross_entropy(drawn, 0),
            "g": cross_entropy(judged, 1),
            "probability_real": sigmoid(real),
            "probability_fake": sigmoid(drawn),
        },
        rel=1e-4,
    )
    assert method.losses(stage) == 3
    (softplus(-real) + softplus(drawn)).mean().backward()
    assert_same_gradients(judge, old)
    softplus(-judged).mean().backward()
    assert_same_gradients(method.generator.keypoints, generator)


@pytest.mark.parametrize("share", [0.0, 0.1, 1.0])
def test_each_part_that_is_seen_is_given_with_its_share(share):
    rows = 4000
    method, seen = new_method(given_share=share), []
    parts = torch.from_numpy(random_parts(rows, len(PARTS))[0])
    codes = torch.randn(rows, EMBEDDING, generator=torch.Generator().manual_seed(1))
    method.generator.keypoints.register_forward_pre_hook(lambda _, inputs: seen.append(inputs))
    stage = method.stages[0]
    step = method.steps(stage, method.begin(stage))
    step(
        Batch(torch.zeros(rows, 3, 1, 1, dtype=torch.uint8), codes, locations=parts),
        Noise(1, 0, CPU),
    )
    ((_, _, given),) = seen  # drawn once for both updates
    visible, kept = parts[..., 2] == 1, given[..., 2] == 1
    assert not given[~kept].any()
    assert torch.equal(given[kept], parts[kept])
    assert not (kept & ~visible).any()
    if share in (0, 1):
        assert torch.equal(kept, visible if share else torch.zeros_like(visible))
        return
    for part in range(len(PARTS)):
        of_part = kept[visible[:, part], part].double().mean().item()
        assert of_part == pytest.approx(share, abs=0.03)  # more than five deviations of 2,700 rows
    both = visible[:, :2].all(1)
    together = kept[both][:, :2].all(1).double().mean().item()
    assert together == pytest.approx(share**2, abs=0.013)  # each by itself


def test_the_rate_is_halved_every_so_many_epochs():
    stage = GawwnStage(IMAGES, epochs=5, learning_rate=8.0, halving_epochs=2)
    rates = [stage.rate(step, 5 * 3) for step in range(15)]
    assert rates == [8.0] * 6 + [4.0] * 6 + [2.0] * 3


def test_what_the_stages_are_called_and_want_to_see():
    method = new_method()
    keypoints, images = method.stages
    assert (keypoints.name, images.name) == ("keypoints", "images")
    assert keypoints.rate_options == "gawwn.keypoint_stage.learning_rate"
    assert (keypoints.draws_pictures, images.draws_pictures) == (False, True)
    assert images.rate_options == "gawwn.image_stage.learning_rate"
    assert keypoints.rows == Rows(located=True, images=False)
    assert images.rows == Rows(wrong=True, captions=4, located=True)
    assert new_method("none").stages[0].rows == Rows(wrong=True, captions=4)
    assert keypoints.adversarial
    for locations in ("boxes", "none"):
        assert [stage.name for stage in new_method(locations).stages] == ["images"]


def test_adams_are_the_authors_and_each_has_one_network():
    method = new_method()
    for stage in method.stages:
        networks = networks_of(method)
        own = {"discriminator": f"judge of {stage.name}", "generator": stage.name}
        assert_adams_of_the_authors(
            method.begin(stage), {name: networks[one] for name, one in own.items()}
        )


@pytest.mark.parametrize(
    ("locations", "stop", "average_decay"),
    [
        *[("keypoints", stop, 0.8) for stop in (1, 2, 4, STAGE_END, 5)],
        ("keypoints", 5, None),
        ("boxes", 1, 0.8),
        ("none", 1, 0.8),
    ],
)
def test_a_stopped_run_goes_on_bit_for_bit(tmp_path, locations, stop, average_decay):
    """Within keypoints, at an epoch's end, between the stages, within images."""
    assert_goes_on_bit_for_bit(
        tmp_path,
        new_batches(locations),
        lambda seed: new_training(locations, average_decay, seed),
        stop,
    )


@pytest.mark.parametrize("average_decay", [0.8, None])
def test_dots_are_drawn_while_keypoints_are_learnt_and_images_from_then_on(average_decay):
    run, seen, states = new_training(average_decay=average_decay), [], []

    def drawing(run):
        return run.result.draws_keypoints, run.method.generator.draws_keypoints

    hooks = Hooks(
        on_epoch=lambda report, run: seen.append(drawing(run)),
        on_checkpoint=lambda run, _: states.append(copy.deepcopy(run.state_dict())),
    )
    distill(run, new_batches("keypoints"), hooks)
    assert seen == [(True, True), (True, True), (False, False)]
    # After the first epoch, after the first stage and after the last one.
    for state, dots in zip(states, (True, True, False), strict=True):
        again = new_training(average_decay=average_decay, seed=9)
        again.load_state_dict(state)
        assert drawing(again) == (dots, dots)
    for locations in ("boxes", "none"):
        method = new_method(locations)
        method.begin(method.stages[0])
        assert not method.generator.draws_keypoints


def test_the_average_keeps_the_statistics_of_the_generator_that_stands_still():
    run, ends = new_training(), []

    def keep(run, stage_end):
        if stage_end:
            ends.append([copy.deepcopy(one) for one in (run.result, run.method.generator)])

    distill(run, new_batches("keypoints"), Hooks(on_checkpoint=keep))
    (first_average, first), (last_average, last) = ends
    assert_same(snapshot(first_average.images), snapshot(first.images))
    assert_same(snapshot(first.images), snapshot(new_method().generator.images))
    assert_same(snapshot(last_average.keypoints), snapshot(last.keypoints))
    assert_same(snapshot(last.keypoints), snapshot(first.keypoints))
    for averaged, own in (
        (first_average.keypoints, first.keypoints),
        (last_average.images, last.images),
    ):
        for name, value in own.state_dict().items():
            if "running" in name:
                assert not torch.equal(averaged.state_dict()[name], value), name


@pytest.mark.parametrize("locations", ["boxes", "none"])
def test_an_average_without_keypoints_has_statistics_of_its_own(locations):
    run = new_training(locations)
    distill(run, new_batches(locations), Hooks())
    averaged, own = run.result.state_dict(), run.method.generator.state_dict()
    variances = [name for name in own if "running_var" in name]
    assert len(variances) > 5
    assert not any(torch.equal(averaged[name], own[name]) for name in variances)


@pytest.mark.parametrize(("locations", "place"), TRAININGS)
def test_the_loss_of_an_epoch_is_that_of_both_networks(locations, place):
    run, reports = new_training(locations, None), []
    run.position = Position(stage=place)
    distill(run, new_batches(locations), Hooks(on_epoch=lambda report, _: reports.append(report)))
    report = reports[0]
    assert report.stage is run.method.stages[place]
    kinds = ["real", "fake"] if report.stage.name == KEYPOINTS else ["real", "wrong", "fake"]
    losses = [*(f"d_{kind}" for kind in kinds), "g"]
    assert list(report.terms) == [*losses, *(f"probability_{kind}" for kind in kinds)]
    assert report.loss == pytest.approx(sum(report.terms[name] for name in losses))
    assert all(0 < report.terms[f"probability_{kind}"] < 1 for kind in kinds)


@pytest.mark.parametrize(
    ("locations", "place", "option"),
    [
        ("keypoints", 0, "gawwn.keypoint_stage.learning_rate"),
        ("keypoints", 1, "gawwn.image_stage.learning_rate"),
        ("boxes", 0, "gawwn.image_stage.learning_rate"),
    ],
)
@pytest.mark.parametrize("network", ["generator", "discriminator"])
def test_a_loss_that_is_no_number_ends_the_training(locations, place, option, network):
    run = new_training(locations, None)
    run.position = Position(stage=place)
    name = run.stage.name
    networks = networks_of(run.method)
    spoiled = networks[name if network == "generator" else f"judge of {name}"]
    with torch.no_grad():
        next(spoiled.parameters()).fill_(np.nan)
    with pytest.raises(DivergedError) as error:
        distill(run, new_batches(locations), Hooks())
    message = str(error.value)
    assert f"the loss became nan in stage {name}, epoch 1, step 1" in message
    assert f"({option})" in message
