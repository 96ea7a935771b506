import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from mlflow.tracking import MlflowClient
from PIL import Image

from sdn_ray import generate
from sdn_ray.evaluate import main as evaluate
from sdn_ray.files import file_hash
from sdn_ray.methods.checkpoints import load_checkpoint
from sdn_ray.models.export import load_model
from sdn_ray.runs.experiment import read_experiment
from sdn_ray.runs.folder import note_run, read_metrics
from sdn_ray.runs.tracking import start_run
from sdn_ray.training import run as training_run
from sdn_ray.training import session
from tests.integration.small import (
    checkpoints,
    generator_hash,
    in_this_process,
    kill_worker,
    new_cluster,
    start,
    train,
    wait_for,
    without_ray_train,
)


def tracked(run):
    return json.loads((run / "mlflow.json").read_text())


def test_a_run_folder_holds_everything(small):
    _, run = small
    assert read_experiment(run / "config.yaml").distillation.samples == 2
    records = read_metrics(run)
    assert [(r["epoch"], r["stage"]) for r in records] == [
        (1, "stage_one"),
        (2, "stage_two"),
        (3, "stage_two"),
    ]
    assert records[0]["loss"] == pytest.approx(
        sum(v for k, v in records[0].items() if k.startswith("terms/"))
    )
    assert {"validation/ssim", "validation/petal_color"} <= records[0].keys()
    split = json.loads((run / "split.json").read_text())
    assert [len(split[part]) for part in ("train", "validation", "test")] == [272, 40, 8]
    names = sorted(path.name for path in (run / "checkpoints").iterdir())
    assert [name for name in names if "stage-end" in name] == [
        "checkpoint-000000340-stage-end.pt",
        "checkpoint-000001020-stage-end.pt",
    ]
    assert len(names) <= 4
    for picture in ("samples/test.png", "curves.png"):
        with Image.open(run / picture) as sheet:
            assert min(sheet.size) > 100


def test_mlflow_has_parameters_metrics_pictures_and_model(small):
    _, run = small
    where = tracked(run)
    client = MlflowClient(where["uri"])
    found = client.get_run(where["run_id"])
    assert found.info.status == "FINISHED"
    assert found.data.params["distillation.stage_one.learning_rate"] == "0.001"
    losses = client.get_metric_history(where["run_id"], "stage_two/loss")
    assert [(m.step, m.value) for m in losses] == [
        (record["epoch"], record["loss"]) for record in read_metrics(run)[1:]
    ]
    assert "stage_one/terms/conv1_1" in found.data.metrics
    assert "test/ssim" in found.data.metrics
    paths = {file.path for file in client.list_artifacts(where["run_id"], "model")}
    assert "model/generator.safetensors" in paths


def test_averaged_weights_are_the_model_and_the_last_ones_lie_beside(small):
    _, run = small
    averaged, last = (load_model(run / name).generator for name in ("model", "model_last"))
    assert not torch.equal(averaged.g_fc8[0].weight, last.g_fc8[0].weight)
    kept = load_checkpoint(run / "checkpoints" / "checkpoint-000001020-stage-end.pt")
    assert torch.equal(kept["average"]["g_fc8.0.weight"], averaged.g_fc8[0].weight)
    assert torch.equal(kept["networks"]["generator"]["g_fc8.0.weight"], last.g_fc8[0].weight)
    scores = json.loads((run / "scores.json").read_text())
    assert {"ssim", "last/ssim", "petal_shape", "last/petal_shape"} <= scores.keys()
    assert "last/validation/ssim" in read_metrics(run)[0]


def test_the_generator_reads_captions_through_the_teachers_features(small, tmp_path):
    _, run = small
    model = load_model(run / "model")
    assert model.text_encoder.embedding_dim == 128
    read = model.read(["a red flower with a yellow center", "a blue flower"])
    assert read.shape == (2, model.generator.whitened_dim)
    assert np.abs(read[0] - read[1]).max() > 0.1


def test_evaluate_probes_what_a_model_reads(small, tmp_path):
    _, run = small
    cache = Path(read_experiment(run / "config.yaml").dataset.cache)
    (reference,) = cache.glob("synthetic_flowers-16-*")
    output = tmp_path / "probe.json"
    options = ["--text-encoder", run / "model", "--reference", reference, "--output", output]
    assert evaluate([str(option) for option in options]) == 0
    found = json.loads(output.read_text())
    assert (found["images"], found["classes"]) == (120, 8)  # those of the run
    assert found["probe_petal_color"] > 0.8  # of eight
    assert set(found) > {"probe_center_color", "probe_background", "probe_petal_count"}


def test_generate_draws_captions_in_order(small, tmp_path):
    _, run = small
    captions = ["a red flower", "a blue flower with a yellow center", "a red flower"]
    (tmp_path / "captions.txt").write_text("\n".join(captions) + "\n")
    arguments = ["--model", str(run / "model"), "--output", str(tmp_path / "out")]
    assert generate.main([*arguments, "--captions", str(tmp_path / "captions.txt")]) == 0
    records = [json.loads(s) for s in (tmp_path / "out" / "manifest.jsonl").open()]
    assert [r["caption"] for r in records] == captions
    images = [np.asarray(Image.open(tmp_path / "out" / r["file"])) for r in records]
    assert images[0].shape == (16, 16, 3)
    assert (images[0] != images[1]).any()


def contents(folder):
    """What lies in a folder, and when it was written."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_a_finished_run_has_nothing_left_to_go_on_with(small, tmp_path, monkeypatch):
    _, run = small
    monkeypatch.setattr(session, "start_ray", lambda terminal: pytest.fail("Ray was started"))
    found = tracked(run)
    before = contents(run), MlflowClient(found["uri"]).get_run(found["run_id"]).info.end_time
    log = tmp_path / "log"
    assert train("--resume", run, log=log) == 0
    assert f"is finished, nothing is left to do. What it has made: {run / 'model'}" in (
        log.read_text()
    )
    after = contents(run), MlflowClient(found["uri"]).get_run(found["run_id"]).info.end_time
    assert after == before


def test_what_a_kill_kept_from_mlflow_is_recorded_by_who_goes_on(small, tmp_path, monkeypatch):
    _, run = small
    monkeypatch.setattr(session, "start_ray", lambda terminal: pytest.fail("Ray was started"))
    cut_off = tmp_path / "run"  # between the export of the model and what MLflow is told of it
    shutil.copytree(run, cut_off)
    (cut_off / ".recorded").unlink()
    found = tracked(run)
    fresh = start_run(found["uri"], found["experiment_id"], "cut off", {}, {})
    note_run(cut_off, fresh)
    client = MlflowClient(found["uri"])
    assert client.get_run(fresh.run_id).info.status == "RUNNING"
    assert train("--resume", cut_off, log=tmp_path / "log") == 0
    recorded = client.get_run(fresh.run_id)
    assert recorded.info.status == "FINISHED"
    scores = json.loads((run / "scores.json").read_text())
    for name, value in scores.items():
        assert recorded.data.metrics[f"test/{name}"] == pytest.approx(value)
    paths = {file.path for file in client.list_artifacts(fresh.run_id, "model")}
    assert "model/generator.safetensors" in paths


def assert_same(run, undisturbed):
    """The weights bit for bit, and every epoch's losses."""
    assert generator_hash(run) == generator_hash(undisturbed)
    losses = [(r["epoch"], r["loss"]) for r in read_metrics(run)]
    assert losses == [(r["epoch"], r["loss"]) for r in read_metrics(undisturbed)]


def test_kills_stops_and_a_lost_machine_cost_nothing(small, tmp_path, monkeypatch):
    """A worker is killed, the run is stopped, its folder lost, its driver killed: one run."""
    config, undisturbed = small
    run, log, store = tmp_path / "run", tmp_path / "log", tmp_path / "store"
    options = ["--config", config, "--storage", store, "--output", run]
    process = start("sdn_ray.train", *options, log=log)
    wait_for(lambda: checkpoints(run), process)
    assert kill_worker(run)
    wait_for(lambda: "going on from step" in log.read_text(), process)
    before = checkpoints(run)
    wait_for(lambda: checkpoints(run) != before, process)
    # As a terminal does it: to the whole process group.
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(120) == 130, log.read_text()
    assert f"Stopped. Go on with: python -m sdn_ray.train --resume {run}" in log.read_text()
    assert not (run / "model").exists(), "the run ended before it could be stopped"
    assert MlflowClient(tracked(run)["uri"]).get_run(tracked(run)["run_id"]).info.status == "KILLED"

    shutil.rmtree(run)  # the machine is lost
    again, log = tmp_path / "again", tmp_path / "log of another machine"
    process = start(
        "sdn_ray.train", "--resume", f"{store.as_uri()}/run", "--output", again, log=log
    )
    wait_for(lambda: log.exists() and "going on from step" in log.read_text(), process)
    before = checkpoints(again)
    wait_for(lambda: checkpoints(again) != before, process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(60)
    assert not (again / "model").exists(), "the run ended before it could be killed"
    monkeypatch.setattr(training_run, "fit", without_ray_train)  # which has gone on once
    assert train("--resume", again, log=log) == 0, log.read_text()
    assert_same(again, undisturbed)
    found = tracked(again)
    assert MlflowClient(found["uri"]).get_run(found["run_id"]).info.status == "FINISHED"
    weights = "model/generator.safetensors"
    assert file_hash(store / "again" / weights) == file_hash(again / weights)


def test_the_death_of_a_node_costs_nothing(small, tmp_path, monkeypatch):
    """The node of the worker, not that of the command; another one takes its place."""
    config, undisturbed = small
    run, log = tmp_path / "run", tmp_path / "log"
    cluster = new_cluster(0)
    try:
        doomed = cluster.add_node(num_cpus=1)
        monkeypatch.setenv("RAY_ADDRESS", cluster.address)
        process = start("sdn_ray.train", "--config", config, "--output", run, log=log)
        wait_for(lambda: checkpoints(run), process)
        cluster.add_node(num_cpus=1)
        cluster.remove_node(doomed, allow_graceful=False)
        assert process.wait(300) == 0, log.read_text()
    finally:
        cluster.shutdown()
    assert "going on from step" in log.read_text()
    assert_same(run, undisturbed)


def test_two_workers_take_the_steps_of_one(small, tmp_path):
    config, _ = small
    # One step an epoch: how the rounding of many steps adds up is the machine's affair.
    options = ["--config", config, "--training.batch_size", 4080]
    options += ["--distillation.stage_two.epochs", 1]
    run, log = tmp_path / "run", tmp_path / "log"
    status = train(*options, "--output", run, "--training.workers", 2, log=log)
    assert status == 0, log.read_text()
    one, two = in_this_process(options, tmp_path / "one"), read_metrics(run)
    # From the same first weights the loss is the same but for the order of its sum.
    assert two[0]["loss"] == pytest.approx(one[0]["loss"], rel=1e-6)
    # After one step of Adam, weights without a gradient may have moved either way.
    assert two[1]["loss"] == pytest.approx(one[1]["loss"], rel=1e-3)
    assert two[1]["loss"] != two[0]["loss"]


def test_a_loss_that_is_no_number_stops_the_run(small, tmp_path):
    config, _ = small
    run, log = tmp_path / "run", tmp_path / "log"
    rate = ("--distillation.stage_one.learning_rate", "1e30")
    assert train("--config", config, "--output", run, *rate, log=log) == 2
    (error,) = [line for line in log.read_text().splitlines() if line.startswith("error: ")]
    for words in ("stage stage_one", "epoch 1", "step ", "term ", "learning_rate"):
        assert words in error
    assert "Traceback" not in log.read_text()
    assert not (run / "model").exists()
    assert MlflowClient(tracked(run)["uri"]).get_run(tracked(run)["run_id"]).info.status == "FAILED"
