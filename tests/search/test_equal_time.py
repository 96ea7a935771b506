"""Which options count epochs; that rows train as long as each other: tests/integration."""

from dataclasses import replace

import pytest

from sdn_ray.config import (
    DistillationConfig,
    ExperimentConfig,
    GanIntClsConfig,
    StackGanConfig,
    StageConfig,
    StageThreeConfig,
)
from sdn_ray.config.gans import GawwnConfig, GawwnStageConfig, StackStageConfig
from sdn_ray.search.equal_time import scaled_epochs

TWO = {"stage_one": StageConfig(epochs=4), "stage_two": StageConfig(epochs=40)}
THREE = DistillationConfig(
    "sdn_adversarial", **TWO | {"stage_one": StageConfig(epochs=0)}, stage_three=StageThreeConfig(9)
)
STACK = StackGanConfig(StackStageConfig(20, 1e-4, 10), StackStageConfig(0))
GAWWN = GawwnConfig(
    keypoint_stage=GawwnStageConfig(epochs=30, halving_epochs=3),
    image_stage=GawwnStageConfig(epochs=50, halving_epochs=1),
)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (
            ExperimentConfig(distillation=DistillationConfig(**TWO)),
            {"distillation.stage_one.epochs": 2, "distillation.stage_two.epochs": 20},
        ),
        (  # of one stage, which trains for the epochs of both
            ExperimentConfig(distillation=DistillationConfig("joint", **TWO)),
            {"distillation.stage_one.epochs": 2, "distillation.stage_two.epochs": 20},
        ),
        (  # a stage of no epochs keeps none
            ExperimentConfig(distillation=THREE),
            {"distillation.stage_two.epochs": 20, "distillation.stage_three.epochs": 4},
        ),
        (
            ExperimentConfig("gan_int_cls", gan_int_cls=GanIntClsConfig(13, 1e-4, 5)),
            {"gan_int_cls.epochs": 6, "gan_int_cls.halving_epochs": 2},
        ),
        (
            ExperimentConfig("stackgan", stackgan=STACK),
            {"stackgan.stage_one.epochs": 10, "stackgan.stage_one.halving_epochs": 5},
        ),
        (
            ExperimentConfig("gawwn", gawwn=GAWWN),
            {
                "gawwn.keypoint_stage.epochs": 15,
                "gawwn.keypoint_stage.halving_epochs": 2,
                "gawwn.image_stage.epochs": 25,
                "gawwn.image_stage.halving_epochs": 1,  # not less
            },
        ),
        (  # options of keypoints are not those of boxes
            ExperimentConfig("gawwn", gawwn=replace(GAWWN, locations="boxes")),
            {"gawwn.image_stage.epochs": 25, "gawwn.image_stage.halving_epochs": 1},
        ),
    ],
)
def test_half_as_many_epochs(config: ExperimentConfig, expected: dict[str, int]) -> None:
    assert scaled_epochs(config, 0.5) == expected
