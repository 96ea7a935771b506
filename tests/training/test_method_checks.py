"""What is refused of a method's options before anything starts."""

from dataclasses import replace

import pytest

from sdn_ray.config import (
    DatasetConfig,
    StageConfig,
    StageThreeConfig,
)
from sdn_ray.config.gans import GawwnStageConfig, StackStageConfig
from sdn_ray.errors import UserError
from sdn_ray.training.build import method_identity
from sdn_ray.training.checks import check_memory, check_sizes
from sdn_ray.training.method_checks import check_method
from tests.training.configs import (
    LOCATIONS,
    NONE,
    PLAN,
    adversarial,
    config_of,
    gan,
    gawwn,
    stackgan,
)


def refusal(config):
    """The one sentence that is said."""
    with pytest.raises(UserError) as error:
        check_method(config, PLAN)
    message = str(error.value)
    assert "\n" not in message
    assert ". " not in message
    return message


@pytest.mark.parametrize(
    "config",
    [
        config_of(),
        config_of(distillation={"scheme": "sdn_diverse", "samples": 3}),
        config_of(generator={"batch_norm": True, "modulated": True, "activation": "leaky_relu"}),
        adversarial(),
        adversarial(generator={"noise_dim": 8, "batch_norm": True, "modulated": True}),
        adversarial(stage_three={"levels": "conv2_1, conv1_2", "heads_most_width": 3}),
        adversarial(training={"workers": 3}),
        adversarial(stage_one=NONE, stage_two=NONE),  # stage three alone
        adversarial(training={"compile": True}),
        gan(),
        gan(gan_int_cls={"generator_width": 4, "discriminator_width": 4, "noise_dim": 3}),
        gan(gan_int_cls={"interpolate": False}, training={"batch_size": 3}),
        gan(dataset={"image_size": 16}),
        stackgan(),
        stackgan(256, 64),
        stackgan(32, 32, two=0),
        stackgan(training={"batch_size": 3}),
        stackgan(256, 64, stackgan={"generator_width": 4, "discriminator_width": 4}),
        *[gawwn(locations, size) for locations in LOCATIONS for size in (32, 64, 128)],
        *[
            gawwn(locations, gawwn={"generator_width": 4, "discriminator_width": 4})
            for locations in LOCATIONS
        ],
        gawwn(gawwn={"keypoint_stage": GawwnStageConfig(1, 1.0, 1), "given_share": 1.0}),
        gawwn("boxes", gawwn={"image_stage": GawwnStageConfig(1, 1.0, 1), "captions_averaged": 1}),
        gawwn(dataset={"name": "cub"}, training={"batch_size": 3}),
    ],
)
def test_what_a_method_can_train_with(config):
    check_method(config, PLAN)


@pytest.mark.parametrize(
    ("config", "option", "found"),
    [
        (config_of(gan_int_cls={"epochs": 3}), "gan_int_cls.epochs", "3"),
        (config_of(gan_int_cls={"cls": False}), "gan_int_cls.cls", "False"),
        (config_of(stackgan={"noise_dim": 3}), "stackgan.noise_dim", "3"),
        (gan(stackgan={"kl_weight": 1.0}), "stackgan.kl_weight", "1.0"),
        (stackgan(gan_int_cls={"epochs": 3}), "gan_int_cls.epochs", "3"),
        (config_of(gawwn={"noise_dim": 3}), "gawwn.noise_dim", "3"),
        (gan(gawwn={"locations": "boxes"}), "gawwn.locations", "boxes"),
        (stackgan(gawwn={"given_share": 0.5}), "gawwn.given_share", "0.5"),
        (gawwn(gan_int_cls={"cls": False}), "gan_int_cls.cls", "False"),
        (gawwn(stackgan={"kl_weight": 1.0}), "stackgan.kl_weight", "1.0"),
        (gawwn(distillation={"scheme": "joint"}), "distillation.scheme", "joint"),
        (gan(generator={"noise_dim": 5}), "generator.noise_dim", "5"),
        (gan(generator={"fc_width": 64}), "generator.fc_width", "64"),
        (gan(distillation={"scheme": "joint"}), "distillation.scheme", "joint"),
        (gan(distillation={"samples": 2}), "distillation.samples", "2"),
    ],
)
def test_options_of_a_method_that_is_not_chosen(config, option, found):
    assert refusal(config) == (
        f"{option}: found {found}, which the method {config.method} does not have; expected "
        f"nothing of {option.split('.')[0]}, or another method"
    )


@pytest.mark.parametrize("section", ["stage_one", "stage_two", "stage_three"])
def test_stages_of_a_method_that_is_not_chosen(section):
    kind = StageThreeConfig if section == "stage_three" else StageConfig
    message = refusal(gan(distillation={section: kind(epochs=3)}))
    assert message.startswith(f"distillation.{section}")
    assert "which the method gan_int_cls does not have" in message


@pytest.mark.parametrize(
    ("config", "option"),
    [
        (gan(gawwn={"keypoint_stage": GawwnStageConfig(epochs=3)}), "gawwn.keypoint_stage"),
        (config_of(gawwn={"image_stage": GawwnStageConfig(epochs=3)}), "gawwn.image_stage"),
        (gawwn(stackgan={"stage_two": StackStageConfig(epochs=3)}), "stackgan.stage_two"),
    ],
)
def test_stages_of_a_gan_that_is_not_chosen(config, option):
    assert refusal(config).startswith(
        f"{option}.epochs: found 3, which the method {config.method} does not have"
    )


@pytest.mark.parametrize("scheme", ["image", "joint", "sdn", "sdn_diverse"])
@pytest.mark.parametrize(
    "options", [{"epochs": 3}, {"levels": "conv1_1"}, {"augmentation": False}], ids=str
)
def test_stage_three_options_with_another_scheme(scheme, options):
    third = StageThreeConfig(**options)
    message = refusal(config_of(distillation={"scheme": scheme, "stage_three": third}))
    ((name, value),) = options.items()
    assert message.startswith(f"distillation.stage_three.{name}: found {value}, ")


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (
            config_of(generator={"noise_dim": 3}),
            "generator.noise_dim: found 3 with scheme sdn, which would learn to ignore the noise; "
            "expected 0, or the scheme sdn_adversarial",
        ),
        (
            config_of(generator={"noise_dim": 1}, distillation={"scheme": "sdn_diverse"}),
            "generator.noise_dim: found 1 with scheme sdn_diverse",
        ),
        (
            config_of(generator={"modulated": True}),
            "generator.modulated: found true beside generator.batch_norm false",
        ),
        (
            adversarial(stage_three={"levels": "conv1_2,conv9_9"}),
            "distillation.stage_three.levels: found conv9_9, expected some of conv1_1, conv1_2, "
            "conv2_1, each once",
        ),
        (
            adversarial(stage_three={"levels": "conv1_2,conv2_1, conv1_2"}),
            "distillation.stage_three.levels: found conv1_2, expected some of",
        ),
        (
            adversarial(stage_three={"levels": ""}),
            "distillation.stage_three.levels: found ",
        ),
        (
            adversarial(training={"batch_size": 6}),
            "training.batch_size: found 6 images for each worker, expected a multiple of 4",
        ),
        (
            adversarial(training={"batch_size": 12, "workers": 2}),
            "training.batch_size: found 6 images for each worker, expected a multiple of 4",
        ),
        (
            adversarial(samples=2),
            "distillation.samples: found 2 with scheme sdn_adversarial",
        ),
        (
            config_of(distillation={"stage_one": NONE, "stage_two": NONE}),
            "distillation.stage_one.epochs, distillation.stage_two.epochs: found 0 and 0, expected "
            "at least one epoch",
        ),
        (
            adversarial(training={"compile": True}, stage_one=NONE, stage_two=NONE),
            "training.compile: found true with stage three alone, which is not compiled",
        ),
        (
            config_of(generator={"batch_norm": True}, training={"batch_size": 2, "workers": 2}),
            "generator.batch_norm: needs at least 2 images a worker, found training.batch_size 2 "
            "over 2 workers",
        ),
    ],
)
def test_what_sdn_refuses(config, words):
    assert refusal(config).startswith(words)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (
            gan(gan_int_cls={"generator_width": 3}),
            "gan_int_cls.generator_width: found 3, expected at least 4",
        ),
        (
            gan(gan_int_cls={"discriminator_width": 1}),
            "gan_int_cls.discriminator_width: found 1, expected at least 4",
        ),
        (
            gan(training={"batch_size": 3}),
            "training.batch_size: found 3 images for each worker, expected an even number",
        ),
        (
            gan(training={"batch_size": 6, "workers": 2}),
            "training.batch_size: found 3 images for each worker, expected an even number",
        ),
        (
            gan(training={"batch_size": 2, "workers": 2}),
            "method gan_int_cls: needs at least 2 images a worker, found training.batch_size 2",
        ),
        (
            gan(training={"compile": True}),
            "training.compile: found true, which the method gan_int_cls does not have; expected "
            "false",
        ),
        (
            gan(dataset={"image_size": 48}),
            "dataset.image_size: found 48, expected a power of two, 16 or more",
        ),
        (
            gan(dataset={"image_size": 8}),
            "dataset.image_size: found 8, expected a power of two, 16 or more",
        ),
    ],
)
def test_what_gan_int_cls_refuses(config, words):
    assert refusal(config).startswith(words)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (stackgan(one=0), "stackgan.stage_one.epochs: found 0, expected at least 1"),
        (
            stackgan(48, 12),
            "stackgan.first_size: found 12, expected a power of two, 16 or more",
        ),
        (stackgan(48, 24), "stackgan.first_size: found 24, expected a power of two, 16 or more"),
        (
            stackgan(48, 16),
            "dataset.image_size: found 48, expected a power of two above stackgan.first_size, "
            "which is 16, since stage two enlarges its images; or stackgan.stage_two.epochs 0",
        ),
        (stackgan(64, 64), "dataset.image_size: found 64, expected a power of two above"),
        (
            stackgan(64, 32, two=0),
            "stackgan.first_size: found 32 with stackgan.stage_two.epochs 0, expected "
            "dataset.image_size, which is 64, or epochs of stage two",
        ),
        (
            stackgan(512, 16, stackgan={"generator_width": 31}),
            "stackgan.generator_width: found 31, expected at least 32",
        ),
        (
            stackgan(stackgan={"discriminator_width": 3}),
            "stackgan.discriminator_width: found 3, expected at least 4",
        ),
        (
            stackgan(training={"compile": True}),
            "training.compile: found true, which the method stackgan does not have",
        ),
        (
            stackgan(training={"batch_size": 2, "workers": 2}),
            "method stackgan: needs at least 2 images a worker",
        ),
    ],
)
def test_what_stackgan_refuses(config, words):
    assert refusal(config).startswith(words)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (
            gawwn(dataset={"name": "oxford_flowers"}),
            "method: found gawwn with dataset.name oxford_flowers, which has neither boxes nor "
            "parts; expected cub or synthetic_flowers, or another method",
        ),
        *[
            (
                gawwn(locations, size),
                f"dataset.image_size: found {size}, expected one of 32, 64, 128, of which gawwn "
                "has plans",
            )
            for locations, size in (
                *[("keypoints", size) for size in (16, 48, 96, 256)],
                ("boxes", 256),
                ("none", 16),
            )
        ],
        (
            gawwn(gawwn={"generator_width": 3}),
            "gawwn.generator_width: found 3, expected at least 4",
        ),
        (
            gawwn("boxes", gawwn={"discriminator_width": 1}),
            "gawwn.discriminator_width: found 1, expected at least 4",
        ),
        *[
            (
                gawwn(locations, gawwn={option: value}),
                f"gawwn.{option}: found it set with gawwn.locations {locations}, which generates "
                f"no keypoints; expected nothing of it, or gawwn.locations keypoints",
            )
            for locations in ("boxes", "none")
            for option, value in (
                ("keypoint_stage", GawwnStageConfig(epochs=3)),
                ("keypoint_stage", GawwnStageConfig(epochs=200, learning_rate=1.0)),
                ("given_share", 0.5),
            )
        ],
        (
            gawwn(training={"compile": True}),
            "training.compile: found true, which the method gawwn does not have; expected false",
        ),
        (
            gawwn(training={"batch_size": 2, "workers": 2}),
            "method gawwn: needs at least 2 images a worker, found training.batch_size 2 over 2 "
            "workers",
        ),
        (gawwn(training={"batch_size": 1}), "method gawwn: needs at least 2 images a worker"),
        (gawwn(gawwn={"given_share": 0.0}), "gawwn.given_share: found 0, expected more"),
    ],
)
def test_what_gawwn_refuses(config, words):
    assert refusal(config).startswith(words)


@pytest.mark.parametrize(
    ("config", "option"),
    [
        (
            gawwn(gawwn={"generator_width": 100_000}),
            "gawwn.generator_width 100000, gawwn.discriminator_width 128, gawwn.text_width 128",
        ),
        (gawwn("boxes", gawwn={"discriminator_width": 10**10}), "gawwn.discriminator_width"),
        (
            stackgan(stackgan={"discriminator_width": 100_000}),
            "stackgan.generator_width 128, stackgan.discriminator_width 100000",
        ),
        (gan(gan_int_cls={"discriminator_width": 10**10}), "gan_int_cls.discriminator_width"),
        (stackgan(stackgan={"generator_width": 10**10}), "stackgan.generator_width"),
        (gan(gan_int_cls={"generator_width": 100_000}), "gan_int_cls.generator_width 100000"),
        (gan(gan_int_cls={"discriminator_width": 100_000}), "discriminator_width 100000"),
        (
            adversarial(generator={"fc_width": 1_000_000, "noise_dim": 8}),
            "generator.fc_width 1000000, distillation.stage_three.heads_most_width 64",
        ),
    ],
)
@pytest.mark.parametrize(
    ("cluster", "where"),
    [(None, "this machine has"), ("10.0.0.1:6379", "a worker of the cluster may have")],
)
def test_networks_that_no_machine_can_train_are_refused_before_room_is_made(
    config, option, cluster, where, monkeypatch
):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)  # integration tests set it for their process
    if cluster:
        monkeypatch.setenv("RAY_ADDRESS", cluster)
    config = replace(config, dataset=DatasetConfig(image_size=64))
    check_method(config, PLAN)  # has no room for them either
    with pytest.raises(UserError) as error:
        check_memory(config, PLAN)
    assert option in str(error.value)
    assert f"GB to train, and {where}" in str(error.value)


@pytest.mark.parametrize("config", [gan(), adversarial(), stackgan(), gawwn("boxes")])
def test_wrong_captions_need_two_classes(config):
    check_sizes(config, 2, 100, 100)
    with pytest.raises(UserError) as error:
        check_sizes(config, 1, 100, 100)
    assert str(error.value).startswith("dataset.validation_classes: it leaves 1 class to train on")
    check_sizes(config_of(), 1, 100, 100)


def test_a_run_that_goes_on_is_modulated_as_it_was():
    """Earlier versions noted nothing, and scaled and shifted by caption and noise themselves."""
    modulated = adversarial(generator={"noise_dim": 8, "batch_norm": True, "modulated": True})
    assert method_identity(modulated)["modulated_by"] == "g_fc7"
    assert "modulated_by" not in method_identity(config_of())
