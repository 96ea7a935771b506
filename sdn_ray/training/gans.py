"""From a configuration to the GANs that SDN is compared with: stages, networks, methods."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from sdn_ray.config import ExperimentConfig
from sdn_ray.data.batches import EncodedImages
from sdn_ray.errors import UserError
from sdn_ray.methods.gan_int_cls import Adversarial, GanIntCls
from sdn_ray.methods.gawwn import Gawwn
from sdn_ray.methods.method import Stage
from sdn_ray.methods.sdn import Computing
from sdn_ray.methods.stackgan import STAGE_ONE, STAGE_TWO, StackGan, StackStage
from sdn_ray.models.gan_int_cls import GanIntClsDiscriminator, GanIntClsGenerator
from sdn_ray.models.gawwn import GawwnGenerator
from sdn_ray.models.image_generators import GAN_INT_CLS, GAWWN, STACKGAN
from sdn_ray.models.stackgan import (
    SMALLEST_FIRST,
    StackGanGenerator,
    StageOneDiscriminator,
    StageTwoDiscriminator,
    least_width,
)
from sdn_ray.models.whitening import Whitening
from sdn_ray.text.whitening import CaptionWhitening
from sdn_ray.training.gawwn import (
    GawwnDiscriminator,
    check_gawwn,
    gawwn_networks,
    gawwn_stages,
    keep_training_boxes,
)

_LEAST_WIDTH = 4  # a bottleneck has a quarter of it
Gan = GanIntCls | StackGan | Gawwn
GanGenerator = GanIntClsGenerator | StackGanGenerator | GawwnGenerator
GanDiscriminator = GanIntClsDiscriminator | StageTwoDiscriminator | GawwnDiscriminator
Networks = tuple[GanGenerator, Sequence[GanDiscriminator]]  # with a discriminator for each stage


@dataclass(frozen=True)
class GanKind:
    """What the training needs to know of one of them."""

    stages: Callable[[ExperimentConfig], tuple[Stage, ...]]
    # (configuration, embedding_dim, whitened_dim, names of parts): networks without weights
    networks: Callable[[ExperimentConfig, int, int | None, tuple[str, ...]], Networks]


def gan_stages(config: ExperimentConfig) -> tuple[Stage, ...]:
    """The stages of a configuration whose method is a GAN."""
    return GANS[config.method].stages(config)


def gan_networks(
    config: ExperimentConfig,
    embedding_dim: int,
    whitened_dim: int | None = None,
    parts: tuple[str, ...] = (),
) -> Networks:
    """Generator and discriminators, whose weights are still to be drawn.

    Args:
        config: the experiment, whose method is a GAN.
        embedding_dim: width of a caption's embedding.
        whitened_dim: width of a whitened one, where they are.
        parts: names of those that images have, for a method that is told where they are.

    Raises:
        UserError: an image size that they do not have.
    """
    return GANS[config.method].networks(config, embedding_dim, whitened_dim, parts)


def new_gan(
    config: ExperimentConfig,
    data: EncodedImages,
    parts: tuple[str, ...],
    whitening: CaptionWhitening | None,
    computing: Computing,
    stages: tuple[Any, ...] | None = None,
) -> Gan:
    """The method of a configuration with its first weights.

    Args:
        config: the experiment, whose method is a GAN.
        data: the training images.
        parts: names of those that they have, where the method is told where these are.
        whitening: of the embeddings, where there is one.
        computing: how.
        stages: other ones of the same names.
    """
    whitened_dim = whitening.dim if whitening else None
    embedding_dim = data.embeddings.shape[1]
    generator, discriminators = gan_networks(config, embedding_dim, whitened_dim, parts)
    for place, network in enumerate((generator, *discriminators)):
        network.reset_parameters(config.seed + place)
        set_whitening(network, whitening)
    own: tuple[Any, ...] = gan_stages(config)
    by_stage: Any = {stage.name: one for stage, one in zip(own, discriminators, strict=True)}
    if isinstance(generator, GawwnGenerator):
        keep_training_boxes(generator, data)
        return Gawwn(
            generator,
            by_stage,
            stages or own,
            given_share=config.gawwn.given_share,
            seed=config.seed,
            computing=computing,
        )
    if isinstance(generator, StackGanGenerator):
        return StackGan(
            generator,
            by_stage,
            stages or own,
            kl_weight=config.stackgan.kl_weight,
            seed=config.seed,
            computing=computing,
        )
    (discriminator,), (stage,) = discriminators, stages or own
    assert isinstance(discriminator, GanIntClsDiscriminator)
    return GanIntCls(generator, discriminator, stage, seed=config.seed, computing=computing)


def set_whitening(network: nn.Module, whitening: CaptionWhitening | None) -> None:
    """Give a network the whitening of its captions, where there is one."""
    if whitening is not None:
        assert isinstance(network.whitening, Whitening)
        network.whitening.set(torch.from_numpy(whitening.mean), torch.from_numpy(whitening.matrix))


def check_gan(config: ExperimentConfig) -> None:
    """Refuse networks that cannot be built, and batches that they cannot be trained with.

    Raises:
        UserError: naming the option to change.
    """
    options, training = getattr(config, config.method), config.training
    for name in ("generator_width", "discriminator_width"):
        _check_width(f"{config.method}.{name}", getattr(options, name), _LEAST_WIDTH)
    if config.method == STACKGAN:
        _check_stages(config)
    if config.method == GAWWN:
        check_gawwn(config)
    # Shapes alone. What is too large even for these `check_memory` refuses.
    with torch.device("meta"), suppress(ArithmeticError, RuntimeError, TypeError):
        gan_networks(config, config.text.embedding_dim)  # refuses image sizes
    each = training.batch_size // training.workers
    if config.method == GAN_INT_CLS and config.gan_int_cls.interpolate and each % 2:
        raise UserError(
            f"training.batch_size: found {each} images for each worker, expected an even number, "
            "since GAN-INT averages the captions of the two halves of a batch"
        )
    if training.compile:
        raise UserError(
            f"training.compile: found true, which the method {config.method} does not have; "
            "expected false"
        )


def _check_width(name: str, found: int, least: int) -> None:
    if found < least:
        raise UserError(f"{name}: found {found}, expected at least {least}")


def _check_stages(config: ExperimentConfig) -> None:
    options, size = config.stackgan, config.dataset.image_size
    first = options.first_size
    if not options.stage_one.epochs:
        raise UserError("stackgan.stage_one.epochs: found 0, expected at least 1")
    if first < SMALLEST_FIRST or first & (first - 1):
        raise UserError(
            f"stackgan.first_size: found {first}, expected a power of two, {SMALLEST_FIRST} or more"
        )
    if not options.stage_two.epochs:
        if size != first:
            raise UserError(
                f"stackgan.first_size: found {first} with stackgan.stage_two.epochs 0, expected "
                f"dataset.image_size, which is {size}, or epochs of stage two"
            )
        return
    if size <= first or size & (size - 1):
        raise UserError(
            f"dataset.image_size: found {size}, expected a power of two above "
            f"stackgan.first_size, which is {first}, since stage two enlarges its images; or "
            "stackgan.stage_two.epochs 0"
        )
    _check_width("stackgan.generator_width", options.generator_width, least_width(first, size))


def _adversarial(config: ExperimentConfig) -> tuple[Adversarial]:
    c = config.gan_int_cls
    return (
        Adversarial(
            epochs=c.epochs,
            learning_rate=c.learning_rate,
            halving_epochs=c.halving_epochs,
            captions=c.captions_averaged,
            cls=c.cls,
            interpolate=c.interpolate,
            real_label=c.real_label,
        ),
    )


def _gan_int_cls(
    config: ExperimentConfig, embedding_dim: int, whitened_dim: int | None, _: tuple[str, ...]
) -> Networks:
    c = config.gan_int_cls
    size = config.dataset.image_size
    return (
        GanIntClsGenerator(
            embedding_dim, size, c.generator_width, c.text_width, c.noise_dim, whitened_dim
        ),
        [
            GanIntClsDiscriminator(
                embedding_dim,
                size,
                c.discriminator_width,
                c.text_width,
                whitened_dim=whitened_dim,
            )
        ],
    )


def _stack_stages(config: ExperimentConfig) -> tuple[StackStage, ...]:
    c = config.stackgan
    return tuple(
        StackStage(
            name,
            epochs=own.epochs,
            learning_rate=own.learning_rate,
            halving_epochs=own.halving_epochs,
            captions=c.captions_averaged,
            side=side if side < config.dataset.image_size else None,
        )
        for name, own, side in (
            (STAGE_ONE, c.stage_one, c.first_size),
            (STAGE_TWO, c.stage_two, config.dataset.image_size),
        )
        if own.epochs
    )


def _stackgan(
    config: ExperimentConfig, embedding_dim: int, whitened_dim: int | None, _: tuple[str, ...]
) -> Networks:
    c, size = config.stackgan, config.dataset.image_size
    two = c.stage_two.epochs > 0
    shape = c.discriminator_width, c.text_width, whitened_dim
    discriminators: list[GanDiscriminator] = [
        StageOneDiscriminator(embedding_dim, c.first_size, *shape)
    ]
    if two:
        discriminators.append(StageTwoDiscriminator(embedding_dim, size, *shape))
    generator = StackGanGenerator(
        embedding_dim,
        size,
        c.first_size,
        c.generator_width,
        c.text_width,
        c.noise_dim,
        whitened_dim,
        two,
    )
    return generator, discriminators


GANS = {
    GAN_INT_CLS: GanKind(_adversarial, _gan_int_cls),
    STACKGAN: GanKind(_stack_stages, _stackgan),
    GAWWN: GanKind(gawwn_stages, gawwn_networks),
}
