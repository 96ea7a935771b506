"""From a configuration to what is trained: stages, generator, layer weights."""

import torch

from sdn_ray.config import ExperimentConfig
from sdn_ray.data.batches import EncodedImages
from sdn_ray.distillation.layer_weights import LayerWeights, layer_weights, mean_feature_sizes
from sdn_ray.distillation.schemes import Stage, scheme_stages
from sdn_ray.metrics.evaluation import spread
from sdn_ray.models.generator import Generator
from sdn_ray.models.pixels import normalise
from sdn_ray.models.plan import Plan
from sdn_ray.models.teacher import Teacher
from sdn_ray.text.whitening import CaptionWhitening

BALANCE_SAMPLE = 256  # training images that `balanced` layer weights are measured on


def config_stages(config: ExperimentConfig) -> tuple[Stage, ...]:
    """The stages that a configuration asks for."""
    d = config.distillation
    return scheme_stages(
        d.scheme,
        epochs=(d.stage_one.epochs, d.stage_two.epochs),
        learning_rates=(d.stage_one.learning_rate, d.stage_two.learning_rate),
        decay_fractions=(d.stage_one.decay_fraction, d.stage_two.decay_fraction),
        samples=d.samples,
        grow=d.grow_samples,
    )


def average_decay(config: ExperimentConfig) -> float | None:
    """What is kept of the averaged weights in a step; None without an average."""
    half_life = config.training.average_half_life
    return 0.5 ** (config.training.batch_size / half_life) if half_life else None


def new_generator(
    config: ExperimentConfig,
    teacher: Teacher,
    embedding_dim: int,
    whitening: CaptionWhitening | None = None,
) -> Generator:
    """The generator of a configuration, with its first weights.

    Args:
        config: the experiment.
        teacher: whose mirror it is.
        embedding_dim: width of a caption's embedding.
        whitening: of the embeddings, where there is one.
    """
    generator = mirror(config, teacher.plan, embedding_dim, whitening)
    generator.reset_parameters(config.seed)
    if whitening is not None:
        mean, matrix = generator.whitening.buffers()
        mean.copy_(torch.from_numpy(whitening.mean))
        matrix.copy_(torch.from_numpy(whitening.matrix))
    return generator


def mirror(
    config: ExperimentConfig,
    plan: Plan,
    embedding_dim: int,
    whitening: CaptionWhitening | None = None,
) -> Generator:
    """The generator of a configuration, whose weights are still to be drawn."""
    return Generator(
        plan,
        embedding_dim=embedding_dim,
        image_size=config.dataset.image_size,
        fc_width=config.generator.fc_width,
        samples=config_stages(config)[0].samples,
        batch_norm=config.generator.batch_norm,
        upsampling=config.generator.upsampling,
        whitened_dim=whitening.dim if whitening else None,
    )


def config_weights(
    config: ExperimentConfig, teacher: Teacher, data: EncodedImages, device: str
) -> LayerWeights:
    """The layer weights of a configuration; `balanced` ones are measured on training images.

    Args:
        config: the experiment.
        teacher: which moves to ``device``.
        data: the training images.
        device: where they are measured.
    """
    d = config.distillation
    sizes = None
    if d.layer_weights == "balanced":
        sample = spread(data, BALANCE_SAMPLE)
        pixels = torch.from_numpy(sample.images[sample.indices]).permute(0, 3, 1, 2)
        sizes = mean_feature_sizes(teacher.to(device), normalise(pixels.to(device)))
    return layer_weights(
        d.layer_weights, d.weight_factors, teacher.plan, config.dataset.image_size, sizes
    )
