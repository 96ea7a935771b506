"""What can be known to be wrong with an experiment before anything expensive starts."""

from pathlib import Path

from sdn_ray.config import ExperimentConfig
from sdn_ray.distillation.layer_weights import check_factors
from sdn_ray.errors import UserError
from sdn_ray.models.plan import Plan
from sdn_ray.models.teacher import load_teacher

SMALLEST = 11  # pixels


def teacher_plan(config: ExperimentConfig) -> Plan:
    """The plan of the teacher that a configuration asks for.

    Raises:
        UserError: when there is none, or its weights cannot be had.
    """
    teacher = config.teacher
    if teacher.weights is None:
        raise UserError(
            "teacher.weights: found nothing; expected imagenet (torchvision's weights, "
            "downloaded), a safetensors file, or fit (the plan is first trained as a classifier "
            "of the training classes)"
        )
    if teacher.weights == "fit":
        if teacher.plan is None:
            raise UserError(
                "teacher.plan: found nothing; teacher.weights `fit` needs a plan, for example "
                "16,16,M,32,32,M,64"
            )
        return Plan.parse(teacher.plan)
    return load_teacher(teacher.weights, teacher.plan).plan


def check_experiment(config: ExperimentConfig) -> None:
    """Refuse impossible combinations, in words that name the option to change.

    Raises:
        UserError: for the first that is found.
    """
    plan = teacher_plan(config)
    plan.check_image_size(config.dataset.image_size)
    if config.dataset.image_size < SMALLEST:
        raise UserError(
            f"dataset.image_size: found {config.dataset.image_size}, expected at least {SMALLEST}, "
            "the side of the window that SSIM looks through"
        )
    distillation, training = config.distillation, config.training
    check_factors(plan, distillation.weight_factors)
    if distillation.samples > 1 and distillation.scheme != "sdn_diverse":
        raise UserError(
            f"distillation.samples: found {distillation.samples} with scheme "
            f"{distillation.scheme}; several samples need the scheme sdn_diverse"
        )
    if training.batch_size % training.workers:
        raise UserError(
            f"training.batch_size: found {training.batch_size}, expected a multiple of "
            f"training.workers ({training.workers}), among whom each batch is divided"
        )
    if config.generator.batch_norm and training.batch_size // training.workers < 2:
        raise UserError(
            "generator.batch_norm: needs at least 2 images a worker, found training.batch_size "
            f"{training.batch_size} over {training.workers} workers"
        )
    if config.text.embeddings is None and config.text.weights != "fit":
        _expect_file(config.text.weights, "text.weights", "a text encoder file, or fit")
    if config.text.embeddings is not None:
        _expect_file(config.text.embeddings, "text.embeddings", "an .npz file or a folder")
    _, colon, file = (config.evaluation.classifier or "").partition(":")
    if colon:
        _expect_file(file, "evaluation.classifier", "a weights file after NAME:")


def _expect_file(path: str, option: str, expected: str) -> None:
    if not Path(path).exists():
        raise UserError(f"{option}: {path} does not exist; expected {expected}")
