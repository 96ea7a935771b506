"""Training a text encoder as a job, on photographs."""

import json
import os
import shutil
import signal

import pytest
from mlflow.tracking import MlflowClient

from sdn_ray import train_text
from sdn_ray.errors import UserError
from sdn_ray.evaluate import main as evaluate
from sdn_ray.files import file_hash
from sdn_ray.preparation import features
from sdn_ray.training import run as training_run
from tests.conftest import SHARED
from tests.integration.small import checkpoints, start, wait_for, without_ray_train

CONFIG = """
dataset:
  {{name: oxford_flowers, root: {root}, image_size: 64, validation_classes: 2, cache: {cache}}}
teacher: {{weights: {teacher}}}
text: {{variant: short, embedding_dim: 32, epochs: 6}}
training: {{cpus_per_worker: 1}}
tracking: {{uri: "sqlite:///{folder}/mlflow.db"}}
"""


@pytest.fixture
def config(ray_cluster, reference, best_material, empty_store, tmp_path):
    shutil.copy(empty_store, tmp_path)
    path = tmp_path / "text.yaml"
    teacher = best_material.teacher
    path.write_text(
        CONFIG.format(root=reference, cache=tmp_path / "cache", teacher=teacher, folder=tmp_path)
    )
    return path


def test_an_encoder_is_trained_goes_on_after_a_kill_and_is_scored(
    config, reference, tmp_path, capsys, monkeypatch
):
    run, again, log = tmp_path / "run", tmp_path / "again", tmp_path / "log"
    with monkeypatch.context() as patch:
        # Sixty photographs are few, but actors are for many; Ray Train is for what is killed.
        patch.setattr(features, "IN_PROCESS", 0)
        patch.setattr(training_run, "fit", without_ray_train)
        assert train_text.main(["--config", str(config), "--output", str(run)]) == 0
    history = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in history] == [1, 2, 3, 4, 5, 6]
    if SHARED.is_dir():  # the features of a teacher with drawn weights are not there to be learnt
        assert history[-1]["loss"] < history[0]["loss"]
    accuracies = [record["validation/zero_shot_accuracy"] for record in history]
    best = accuracies.index(max(accuracies)) + 1
    assert f"that of epoch {best} of 6" in capsys.readouterr().out

    killed = start("sdn_ray.train_text", "--config", config, "--output", again, log=log)
    wait_for(lambda: checkpoints(again), killed)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    assert not (again / "text_encoder").exists()
    monkeypatch.setattr(training_run, "fit", without_ray_train)
    assert train_text.main(["--resume", str(again)]) == 0
    assert "going on after epoch" in capsys.readouterr().out
    for name in ("text_encoder.safetensors", "image_side.safetensors"):
        found = [file_hash(folder / "text_encoder" / name) for folder in (run, again)]
        assert found[0] == found[1], name

    # The test classes' scores are those that `evaluate` finds from the folder alone.
    scores = tmp_path / "scores.json"
    options = ["--text-encoder", run / "text_encoder", "--reference", reference]
    evaluate([*map(str, options), "--output", str(scores)])
    found = json.loads(scores.read_text())
    assert (found["images"], found["classes"]) == (20, 2)
    assert found["chance"] == found["largest_class"] == 0.5
    by_training = json.loads((run / "scores.json").read_text())
    for name in ("zero_shot_accuracy", "ap_at_50"):
        assert found[name] == pytest.approx(by_training[name], abs=1e-9)
    tracked = json.loads((run / "mlflow.json").read_text())
    recorded = MlflowClient(tracked["uri"]).get_run(tracked["run_id"])
    assert recorded.info.status == "FINISHED"
    assert recorded.data.metrics["test/ap_at_50"] == pytest.approx(found["ap_at_50"])


def test_what_cannot_be_trained_is_one_clear_error(config, tmp_path):
    def refused(*arguments):
        with pytest.raises(UserError) as error:
            train_text.main(["--config", str(config), "--output", str(tmp_path / "r"), *arguments])
        return str(error.value)

    assert "text.weights: found pretrained" in refused("--text.weights", "pretrained")
    assert "text.encoder: found gpt, expected char_cnn_rnn, words, sentence:MODEL" in (
        refused("--text.encoder", "gpt")
    )
    assert "words, which is counted and not trained" in refused("--text.encoder", "words")
    assert "no folder" in refused("--text.encoder", "sentence:/nowhere")
    assert "training.workers: found 2" in refused("--training.workers", "2")
    assert "no_such_net" in refused("--text.features", "no_such_net")
    assert "needs validation classes" in refused(
        "--text.patience", "2", "--dataset.validation_classes", "0"
    )
    assert not (tmp_path / "r").exists()
