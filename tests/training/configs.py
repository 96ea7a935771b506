"""Experiments of which some sections are given, for tests of what is refused."""

from sdn_ray.config import (
    DatasetConfig,
    DistillationConfig,
    ExperimentConfig,
    GanIntClsConfig,
    GawwnConfig,
    GeneratorConfig,
    StackGanConfig,
    StageConfig,
    StageThreeConfig,
    TrainingConfig,
)
from sdn_ray.config.gans import StackStageConfig
from sdn_ray.models.plan import Plan

PLAN = Plan.parse("4,5,M,6,M")
NONE = StageConfig(epochs=0)
LOCATIONS = ("keypoints", "boxes", "none")


def config_of(method="sdn", **sections):
    """An experiment of which sections are given by their options."""
    kinds = {
        "generator": GeneratorConfig,
        "distillation": DistillationConfig,
        "gan_int_cls": GanIntClsConfig,
        "stackgan": StackGanConfig,
        "gawwn": GawwnConfig,
        "training": TrainingConfig,
        "dataset": DatasetConfig,
    }
    made = {name: kinds[name](**options) for name, options in sections.items()}
    return ExperimentConfig(method=method, **made)


def gan(**sections):
    return config_of("gan_int_cls", **sections)


def stackgan(size=64, first=16, one=1, two=1, **sections):
    own = {
        "first_size": first,
        "stage_one": StackStageConfig(epochs=one),
        "stage_two": StackStageConfig(epochs=two),
    } | sections.pop("stackgan", {})
    return config_of("stackgan", stackgan=own, **{"dataset": {"image_size": size}} | sections)


def gawwn(locations="keypoints", size=32, **sections):
    own = {"locations": locations} | sections.pop("gawwn", {})
    dataset = {"image_size": size} | sections.pop("dataset", {})
    return config_of("gawwn", gawwn=own, dataset=dataset, **sections)


def adversarial(training=None, generator=None, stage_three=None, **distillation):
    third = StageThreeConfig(**stage_three or {})
    return config_of(
        distillation={"scheme": "sdn_adversarial", "stage_three": third} | distillation,
        generator=generator or {},
        training={"batch_size": 12} | (training or {}),
    )
