"""What can be known to be wrong with the options of a method before anything starts."""

from dataclasses import fields, is_dataclass
from typing import Any

from torch import nn

from sdn_ray.config import (
    DistillationConfig,
    ExperimentConfig,
    GanIntClsConfig,
    GawwnConfig,
    GeneratorConfig,
    StackGanConfig,
    StageThreeConfig,
)
from sdn_ray.distillation.layer_weights import check_factors
from sdn_ray.distillation.schemes import ADVERSARIAL, DIVERSE
from sdn_ray.errors import UserError
from sdn_ray.models.feature_heads import GROUP
from sdn_ray.models.generator import check_modulation
from sdn_ray.models.image_generators import GAN_INT_CLS, GAWWN, SDN, STACKGAN, ImageGenerator
from sdn_ray.models.plan import Plan
from sdn_ray.training.build import (
    config_stages,
    heads_levels,
    mirror,
    stage_three_heads,
)
from sdn_ray.training.gans import GANS, check_gan, gan_networks

# Sections of one method alone, and what stands in them unless it is set.
_SECTIONS: tuple[tuple[str, str, Any], ...] = (
    (SDN, "generator", GeneratorConfig()),
    (SDN, "distillation", DistillationConfig()),
    (GAN_INT_CLS, "gan_int_cls", GanIntClsConfig()),
    (STACKGAN, "stackgan", StackGanConfig()),
    (GAWWN, "gawwn", GawwnConfig()),
)


def check_method(config: ExperimentConfig, plan: Plan) -> None:
    """Refuse options that the method does not have, or cannot train with.

    Args:
        config: the experiment.
        plan: of the teacher.

    Raises:
        UserError: naming the option to change.
    """
    whose = f"method {config.method}"
    for method, section, default in _SECTIONS:
        if config.method != method:
            _refuse_others(whose, section, getattr(config, section), default)
    if config.method in GANS:
        _check_norm(config, whose)
        check_gan(config)
    else:
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
    if config.method in GANS:
        return gan_networks(config, config.text.embedding_dim)[0]
    assert plan is not None
    return mirror(config, plan, config.text.embedding_dim)


def judge_shape(config: ExperimentConfig, plan: Plan) -> nn.Module | None:
    """What is trained beside the generator: discriminators, or the heads of stage three."""
    dim = config.text.embedding_dim
    if config.method in GANS:
        return nn.ModuleList(gan_networks(config, dim)[1])
    if config.distillation.scheme != ADVERSARIAL:
        return None
    return stage_three_heads(config, plan, dim)


def size_options(config: ExperimentConfig, plan: Plan) -> str:
    """The options that settle how large the networks are, in words."""
    shared = (
        f"text.embedding_dim {config.text.embedding_dim}, dataset.image_size "
        f"{config.dataset.image_size}"
    )
    if config.method in GANS:
        options = getattr(config, config.method)
        widths = ("generator_width", "discriminator_width", "text_width")
        own = (f"{config.method}.{name} {getattr(options, name)}" for name in widths)
        return f"{', '.join(own)}, {shared}"
    if config.distillation.scheme == ADVERSARIAL:
        width = config.distillation.stage_three.heads_most_width
        shared = f"distillation.stage_three.heads_most_width {width}, {shared}"
    return (
        f"teacher.plan {plan}, generator.fc_width {config.generator.fc_width}, {shared} and "
        f"distillation.samples {config.distillation.samples}"
    )
