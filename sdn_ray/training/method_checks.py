"""What can be known to be wrong with the options of a method before anything starts."""

from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import nn

from sdn_ray.config import (
    DistillationConfig,
    ExperimentConfig,
    GanIntClsConfig,
    GeneratorConfig,
    StageThreeConfig,
)
from sdn_ray.distillation.layer_weights import check_factors
from sdn_ray.distillation.schemes import ADVERSARIAL, DIVERSE
from sdn_ray.errors import UserError
from sdn_ray.models.feature_heads import GROUP
from sdn_ray.models.generator import check_modulation
from sdn_ray.models.image_generators import GAN_INT_CLS, ImageGenerator
from sdn_ray.models.plan import Plan
from sdn_ray.training.build import (
    config_stages,
    gan_networks,
    heads_levels,
    mirror,
    stage_three_heads,
)

_LEAST_WIDTH = 4  # of a GAN: a bottleneck has a quarter of it


def check_method(config: ExperimentConfig, plan: Plan) -> None:
    """Refuse options that the method does not have, or cannot train with.

    Args:
        config: the experiment.
        plan: of the teacher.

    Raises:
        UserError: naming the option to change.
    """
    if config.method == GAN_INT_CLS:
        whose = f"method {config.method}"
        _refuse_others(whose, "generator", config.generator, GeneratorConfig())
        _refuse_others(whose, "distillation", config.distillation, DistillationConfig())
        _check_gan_int_cls(config)
    else:
        _refuse_others(
            f"method {config.method}", "gan_int_cls", config.gan_int_cls, GanIntClsConfig()
        )
        _check_sdn(config, plan)


def _refuse_others(whose: str, section: str, found: Any, default: Any) -> None:
    """Refuse options that are not those of the method or scheme that is chosen."""
    for spec in fields(default):
        name = f"{section}.{spec.name}"
        value, expected = getattr(found, spec.name), getattr(default, spec.name)
        if is_dataclass(expected):
            _refuse_others(whose, name, value, expected)
        elif value != expected:
            kind = whose.partition(" ")[0]
            raise UserError(
                f"{name}: found {value}, which the {whose} does not have; expected nothing of "
                f"{section}, or another {kind}"
            )


def _check_sdn(config: ExperimentConfig, plan: Plan) -> None:
    generator, distillation = config.generator, config.distillation
    check_factors(plan, distillation.weight_factors)
    check_modulation(generator.modulated, generator.batch_norm)
    if distillation.samples > 1 and distillation.scheme != DIVERSE:
        raise UserError(
            f"distillation.samples: found {distillation.samples} with scheme "
            f"{distillation.scheme}; several samples need the scheme {DIVERSE}"
        )
    if generator.noise_dim and distillation.scheme != ADVERSARIAL:
        raise UserError(
            f"generator.noise_dim: found {generator.noise_dim} with scheme {distillation.scheme}, "
            f"which would learn to ignore the noise; expected 0, or the scheme {ADVERSARIAL}"
        )
    if distillation.scheme == ADVERSARIAL:
        heads_levels(config, plan)
        each = config.training.batch_size // config.training.workers
        if each % GROUP:
            raise UserError(
                f"training.batch_size: found {each} images for each worker, expected a multiple of "
                f"{GROUP} with the scheme {ADVERSARIAL}, whose heads compare so many"
            )
    else:
        _refuse_others(
            f"scheme {distillation.scheme}",
            "distillation.stage_three",
            distillation.stage_three,
            StageThreeConfig(),
        )
    stages = [stage for stage in config_stages(config) if stage.epochs]
    if not stages:
        raise UserError(
            "distillation.stage_one.epochs, distillation.stage_two.epochs: found 0 and 0, expected "
            "at least one epoch"
        )
    if config.training.compile and all(stage.adversarial for stage in stages):
        raise UserError(
            "training.compile: found true with stage three alone, which is not compiled; expected "
            "false, or epochs of stage one or two"
        )
    if generator.batch_norm:
        _check_norm(config, "generator.batch_norm")


def _check_gan_int_cls(config: ExperimentConfig) -> None:
    options, training = config.gan_int_cls, config.training
    for name in ("generator_width", "discriminator_width"):
        if getattr(options, name) < _LEAST_WIDTH:
            raise UserError(
                f"gan_int_cls.{name}: found {getattr(options, name)}, expected at least "
                f"{_LEAST_WIDTH}"
            )
    with torch.device("meta"):  # shapes alone
        new_shape(config, None)  # refuses image sizes
    _check_norm(config, f"method {config.method}")
    each = training.batch_size // training.workers
    if options.interpolate and each % 2:
        raise UserError(
            f"training.batch_size: found {each} images for each worker, expected an even number, "
            "since GAN-INT averages the captions of the two halves of a batch"
        )
    if training.compile:
        raise UserError(
            "training.compile: found true, which the method gan_int_cls does not have; expected "
            "false"
        )


def _check_norm(config: ExperimentConfig, what: str) -> None:
    training = config.training
    if training.batch_size // training.workers < 2:
        raise UserError(
            f"{what}: needs at least 2 images a worker, found training.batch_size "
            f"{training.batch_size} over {training.workers} workers"
        )


def new_shape(config: ExperimentConfig, plan: Plan | None) -> ImageGenerator:
    """The generator of a configuration, without a whitening, its weights still to be drawn.

    Args:
        config: the experiment.
        plan: of the teacher, of which SDN's is the mirror.

    Raises:
        UserError: an image size that it cannot draw.
    """
    if config.method == GAN_INT_CLS:
        return gan_networks(config, config.text.embedding_dim)[0]
    assert plan is not None
    return mirror(config, plan, config.text.embedding_dim)


def judge_shape(config: ExperimentConfig, plan: Plan) -> nn.Module | None:
    """What is trained beside the generator: a discriminator, or the heads of stage three."""
    dim = config.text.embedding_dim
    if config.method == GAN_INT_CLS:
        return gan_networks(config, dim)[1]
    if config.distillation.scheme != ADVERSARIAL:
        return None
    return stage_three_heads(config, plan, dim)


def size_options(config: ExperimentConfig, plan: Plan) -> str:
    """The options that settle how large the networks are, in words."""
    shared = (
        f"text.embedding_dim {config.text.embedding_dim}, dataset.image_size "
        f"{config.dataset.image_size}"
    )
    if config.method == GAN_INT_CLS:
        widths = ("generator_width", "discriminator_width", "text_width")
        own = (f"gan_int_cls.{name} {getattr(config.gan_int_cls, name)}" for name in widths)
        return f"{', '.join(own)}, {shared}"
    if config.distillation.scheme == ADVERSARIAL:
        width = config.distillation.stage_three.heads_most_width
        shared = f"distillation.stage_three.heads_most_width {width}, {shared}"
    return (
        f"teacher.plan {plan}, generator.fc_width {config.generator.fc_width}, {shared} and "
        f"distillation.samples {config.distillation.samples}"
    )
