"""All adversarial methods through configuration, worker, export and drawing."""

import json
from itertools import count

import numpy as np
import pytest
from PIL import Image

from sdn_ray import figures, generate
from sdn_ray.runs.command_line import USER_ERROR, run_command
from tests.integration.small import generator_hash, in_this_process, write_config

TERMS = {
    "sdn_adversarial": {"heads_real", "heads_wrong", "heads_fake", "generator"},
    "gan_int_cls": {"d_real", "d_wrong", "d_fake", "g"},
    "stackgan": {"d_real", "d_wrong", "d_fake", "g", "kl"},
    "gawwn": {"d_real", "d_wrong", "d_fake", "g"},
}


@pytest.fixture(scope="module", params=sorted(TERMS))
def trained(request, ray_cluster, small_cache, reference, birds, tmp_path_factory):
    """A method's name, its options, and a run of 30 steps that nothing disturbed."""
    folder = tmp_path_factory.mktemp(request.param)
    config = write_config(folder, small_cache, 272, request.param)
    options = ["--config", config, "--training.checkpoint_steps", 7, "--training.log_steps", 1]
    if request.param == "stackgan":  # sixty photographs, since no other test has 32 pixels
        options += ["--dataset.name", "oxford_flowers", "--dataset.root", reference]
        options += ["--stackgan.stage_one.epochs", 8, "--stackgan.stage_two.epochs", 7]
    if request.param == "gawwn":  # which needs boxes and parts
        options += ["--dataset.name", "cub", "--dataset.root", birds]
        options += ["--gawwn.keypoint_stage.epochs", 8, "--gawwn.image_stage.epochs", 7]
    if request.param in ("stackgan", "gawwn"):  # which have few classes, and a list of their own
        options += ["--dataset.validation_classes", 1, "--teacher.fit.batch_size", 16]
        options += ["--dataset.test_list", "null"]
    in_this_process(options, folder / "undisturbed")
    return request.param, options, folder / "undisturbed"


def test_an_epoch_has_its_terms_and_the_variety_of_draws(trained):
    method, _, run = trained
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    last = records[-1]
    assert last["loss"] == pytest.approx(sum(last[f"terms/{name}"] for name in TERMS[method]))
    for part in ("validation", "last/validation"):
        assert last[f"{part}/l1_between_draws"] > 0
        assert last[f"{part}/l1_between_captions"] > 0
    sheet = Image.open(run / "samples" / "epoch-0003.png")
    assert sheet.width > 4 * 16, "a real image and three draws"


# GAN-INT-CLS: tests/methods; its one stage has nothing here that these have not.
@pytest.mark.parametrize("trained", ["sdn_adversarial", "stackgan", "gawwn"], indirect=True)
def test_a_run_that_is_stopped_anywhere_ends_in_the_same_weights(trained, tmp_path):
    _, options, undisturbed = trained
    run, stops = tmp_path / "run", 0
    for attempt in range(4):
        asked = count(1)
        # After 8 steps, 8 more, 8 more: within a stage, and near its end.
        in_this_process(
            options, run, lambda asked=asked, last=attempt == 3: not last and next(asked) == 8
        )
        stops += not (run / "model").exists()
    assert stops == 3
    assert generator_hash(run) == generator_hash(undisturbed)


def drawn(model, output, *options):
    arguments = ["--model", str(model), "--output", str(output), *map(str, options)]
    assert run_command(generate.main, arguments) == 0
    return {path.name: np.array(Image.open(path)) for path in output.glob("0*.png")}


def test_a_caption_has_as_many_pictures_as_one_asks_for(trained, tmp_path):
    model, captions = trained[2] / "model", ("a red flower", "a blue flower")
    many = drawn(model, tmp_path / "many", "--text", *captions, "--samples", 3, "--seed", 1)
    assert len({image.tobytes() for image in many.values()}) == 6
    one = drawn(model, tmp_path / "one", "--text", captions[0], "--seed", 1)
    # Kernels change with the batch size: by one level at most.
    difference = one["00000.png"].astype(int) - many["00000-0.png"].astype(int)
    assert np.abs(difference).max() <= 1
    other = drawn(model, tmp_path / "other", "--text", captions[0], "--seed", 2)
    assert (one["00000.png"] != other["00000.png"]).any()
    sheet = tmp_path / "fig5.png"
    arguments = ["diverse", "--model", str(model), "--text", *captions, "--output", str(sheet)]
    assert run_command(figures.main, arguments) == 0
    assert Image.open(sheet).width > 6 * 16


@pytest.mark.parametrize("trained", ["stackgan"], indirect=True)
def test_the_first_stage_of_stackgan_can_be_drawn(trained, tmp_path):
    model, options = trained[2] / "model", ("--text", "a red flower", "--seed", 1)
    whole = drawn(model, tmp_path / "whole", *options)["00000.png"]
    first = drawn(model, tmp_path / "first", *options, "--first_stage", "true")["00000.png"]
    assert first.shape == whole.shape == (32, 32, 3)
    assert (first != whole).any()
    arguments = ["--model", str(model), *map(str, options), "--output"]
    assert run_command(generate.main, [*arguments, str(tmp_path / "first")]) == USER_ERROR
    more = [*arguments, str(tmp_path / "whole"), "--first_stage", "true"]
    assert run_command(generate.main, more) == USER_ERROR
    request = json.loads((tmp_path / "first" / "request.json").read_text())
    assert request["origin"]["tracked"] is None


@pytest.mark.parametrize("trained", ["gawwn"], indirect=True)
def test_gawwn_draws_at_given_places(trained, birds, tmp_path):
    model, options = trained[2] / "model", ("--text", "a red bird", "--seed", 1)
    free = drawn(model, tmp_path / "free", *options)["00000.png"]
    (tmp_path / "here.txt").write_text("beak 0.2 0.2, left wing 0.1 0.2\n")
    (tmp_path / "there.txt").write_text("beak 0.8 0.7, left wing 0.7 0.7\n")
    here, there = (
        drawn(model, tmp_path / name, *options, "--keypoints", tmp_path / f"{name}.txt")[
            "00000.png"
        ]
        for name in ("here", "there")
    )
    assert (here != there).any()
    assert (here != free).any()
    # Those of the test images, of the first caption of each.
    of_data = ("--reference", birds, "--captions_per_image", 1, "--keypoints", "reference")
    assert len(drawn(model, tmp_path / "reference", *of_data)) == 20
    (tmp_path / "bad.txt").write_text("bill 0.8 0.7\n")
    arguments = ["--model", str(model), *map(str, options), "--output", str(tmp_path / "bad")]
    more = [*arguments, "--keypoints", str(tmp_path / "bad.txt")]
    assert run_command(generate.main, more) == USER_ERROR
    assert not (tmp_path / "bad").exists()
