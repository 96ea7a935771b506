import json
from pathlib import Path

import numpy as np
from PIL import Image

from sdn_ray import generate
from sdn_ray.runs.folder import read_metrics
from sdn_ray.training import run
from tests.integration.small import train, without_ray_train


def test_the_flowers_preset_on_photographs(
    ray_cluster, photographs, best_material, tmp_path, monkeypatch
):
    """The preset itself, with few photographs, few epochs and a narrow generator."""
    monkeypatch.setattr(run, "fit", without_ray_train)
    preset = Path(__file__).parents[2] / "jobs" / "flowers64.yaml"
    options = {
        "config": preset,
        "dataset.root": photographs,
        "dataset.cache": tmp_path / "cache",
        "dataset.validation_classes": 1,
        "dataset.test_classes": 1,
        "teacher.weights": best_material.teacher,
        "text.epochs": 1,
        "generator.fc_width": 32,
        "training.compile": "false",  # which would take longer than these few steps
        "distillation.stage_one.epochs": 1,
        "distillation.stage_two.epochs": 1,
        "evaluation.classifier": best_material.classifier,
        "evaluation.images": 8,
        "tracking.uri": f"sqlite:///{tmp_path}/mlflow.db",
        "output": tmp_path / "run",
    }
    arguments = [word for key, value in options.items() for word in (f"--{key}", value)]
    log = tmp_path / "log"
    assert train(*arguments, log=log) == 0, log.read_text()
    first, second = read_metrics(tmp_path / "run")
    assert (first["stage"], second["stage"]) == ("stage_one", "stage_two")
    for name in ("validation/ssim", "validation/squeezenet1_1_score"):
        assert np.isfinite([first[name], second[name]]).all()
    scores = json.loads((tmp_path / "run" / "scores.json").read_text())
    assert 1 <= scores["squeezenet1_1_score"] <= 10
    split = json.loads((tmp_path / "run" / "split.json").read_text())
    parts = [split[part] for part in ("train", "validation", "test")]
    assert [len(part) for part in parts] == [4, 1, 1]
    assert sorted(class_id for part in parts for class_id in part) == [1, 2, 3, 4, 5, 6]

    model, output = tmp_path / "run" / "model", tmp_path / "out"
    arguments = ["--model", model, "--text", "a red flower", "--output", output]
    assert generate.main([str(argument) for argument in arguments]) == 0
    with Image.open(output / "00000.png") as image:
        assert image.size == (64, 64)
        assert image.getextrema() != ((0, 0), (0, 0), (0, 0))
