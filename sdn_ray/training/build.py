"""From a configuration to what is trained: stages, generator, layer weights."""

from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from sdn_ray.config import ExperimentConfig, GeneratorConfig
from sdn_ray.data.batches import EncodedImages
from sdn_ray.distillation.layer_weights import LayerWeights, layer_weights, mean_feature_sizes
from sdn_ray.distillation.schemes import ADVERSARIAL, STAGE_THREE, Stage, scheme_stages
from sdn_ray.errors import UserError
from sdn_ray.methods.method import Stage as LoopStage
from sdn_ray.methods.sdn import SDN, Computing
from sdn_ray.methods.sdn_adversarial import Adversary
from sdn_ray.metrics.evaluation import spread
from sdn_ray.models.feature_heads import FeatureHeads, last_of_each_group
from sdn_ray.models.generator import MODULATED_BY, Generator
from sdn_ray.models.pixels import normalise
from sdn_ray.models.plan import Plan
from sdn_ray.models.teacher import Teacher
from sdn_ray.text.whitening import CaptionWhitening
from sdn_ray.training.gans import GANS, gan_stages, set_whitening

_SAMPLE_BATCH = 32
_LATER_GENERATOR_OPTIONS = ("noise_dim", "modulated", "activation")
SAMPLE = 256  # training images on which `balanced` layer weights, and the heads', are measured


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
        third=Stage(
            STAGE_THREE,
            STAGE_THREE,
            d.stage_three.epochs,
            d.stage_three.learning_rate,
            decay_fraction=d.stage_three.decay_fraction,
        ),
    )


def method_stages(config: ExperimentConfig) -> tuple[LoopStage, ...]:
    """The stages of a configuration's method."""
    return gan_stages(config) if config.method in GANS else config_stages(config)


def smaller_sides(config: ExperimentConfig) -> list[int]:
    """The sides of the images that stages see made smaller."""
    return sorted({side for stage in method_stages(config) if (side := stage.rows.side)})


def method_identity(config: ExperimentConfig) -> dict[str, Any]:
    """The options of the method, which must be the same when a run goes on.

    Options that earlier versions did not have are left out where they change nothing: their runs go
    on.
    """
    if config.method in GANS:
        return {"method": config.method, config.method: asdict(getattr(config, config.method))}
    generator, distillation = asdict(config.generator), asdict(config.distillation)
    for name, default in asdict(GeneratorConfig()).items():
        if name in _LATER_GENERATOR_OPTIONS and generator[name] == default:
            del generator[name]
    if config.distillation.scheme != ADVERSARIAL:
        del distillation["stage_three"]
    identity: dict[str, Any] = {"generator": generator, "distillation": distillation}
    if config.generator.modulated:
        identity["modulated_by"] = MODULATED_BY  # earlier versions: by caption and noise themselves
    return identity


def method_tags(config: ExperimentConfig) -> dict[str, str]:
    """Which method a run trains and, of SDN, by which scheme."""
    tags: dict[str, str] = {"sdn_ray.method": config.method}
    if config.method == SDN.name:
        tags["sdn_ray.scheme"] = config.distillation.scheme
    return tags


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
    set_whitening(generator, whitening)
    return generator


def new_sdn(
    config: ExperimentConfig,
    teacher: Teacher,
    data: EncodedImages,
    whitening: CaptionWhitening | None,
    weights: LayerWeights,
    computing: Computing,
) -> SDN:
    """SDN with its first weights.

    Args:
        config: the experiment.
        teacher: which the method moves to its device and precision.
        data: the training images.
        whitening: of the embeddings, where there is one.
        weights: of the layers.
        computing: how.
    """
    embedding_dim = data.embeddings.shape[1]
    code_dim = whitening.dim if whitening else embedding_dim
    return SDN(
        new_generator(config, teacher, embedding_dim, whitening),
        teacher,
        config_stages(config),
        weights,
        adversary=new_adversary(config, teacher, data, code_dim, computing.device),
        seed=config.seed,
        computing=computing,
    )


def heads_levels(config: ExperimentConfig, plan: Plan) -> tuple[str, ...]:
    """The convolutions whose features have a head.

    Raises:
        UserError: naming one that the teacher does not have.
    """
    asked = config.distillation.stage_three.levels
    if asked is None:
        return last_of_each_group(plan)
    levels = tuple(level.strip() for level in asked.split(","))
    for level in levels:
        if level not in plan.names or levels.count(level) > 1:
            raise UserError(
                f"distillation.stage_three.levels: found {level or 'nothing'}, expected some of "
                f"{', '.join(plan.names)}, each once"
            )
    return levels


def stage_three_heads(config: ExperimentConfig, plan: Plan, code_dim: int) -> FeatureHeads:
    """The heads of stage three on a teacher of ``plan``, whose weights are still to be drawn."""
    settings = config.distillation.stage_three
    return FeatureHeads(
        plan,
        config.dataset.image_size,
        code_dim,
        levels=heads_levels(config, plan),
        most=settings.heads_most_width,
    )


def new_adversary(
    config: ExperimentConfig, teacher: Teacher, data: EncodedImages, code_dim: int, device: str
) -> Adversary | None:
    """The heads of stage three with their first weights; None where the scheme has no such stage.

    Args:
        config: the experiment.
        teacher: which moves to ``device``.
        data: the training images, some of which settle the scale of what the heads see.
        code_dim: width of what the generator's first layer is given of a caption.
        device: where that is measured.
    """
    if config.distillation.scheme != ADVERSARIAL:
        return None
    settings = config.distillation.stage_three
    heads = stage_three_heads(config, teacher.plan, code_dim)
    heads.reset_parameters(config.seed + 1)
    teacher.to(device)
    with torch.no_grad():
        batches = torch.split(_sample(data, device), _SAMPLE_BATCH)
        heads.standardise(heads.seen(teacher(batch)) for batch in batches)
    return Adversary(
        heads,
        rate_factor=settings.heads_learning_rate / settings.learning_rate,
        wrong_weight=settings.wrong_captions,
        augment=settings.augmentation,
    )


def _sample(data: EncodedImages, device: str) -> Tensor:
    """Some training images, normalised."""
    sample = spread(data, SAMPLE)
    pixels = torch.from_numpy(sample.images[sample.indices]).permute(0, 3, 1, 2)
    return normalise(pixels.to(device))


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
        noise_dim=config.generator.noise_dim,
        modulated=config.generator.modulated,
        activation=config.generator.activation,
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
        sizes = mean_feature_sizes(teacher.to(device), _sample(data, device))
    return layer_weights(
        d.layer_weights, d.weight_factors, teacher.plan, config.dataset.image_size, sizes
    )
