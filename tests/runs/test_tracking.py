import shutil

import pytest
from mlflow.tracking import MlflowClient

from sdn_ray.config import TrackingConfig
from sdn_ray.runs.folder import TrackedRun
from sdn_ray.runs.tracking import Recorder, look_lines, open_experiment, start_run


def test_an_experiment_is_one_of_training_and_unset_options_are_left_out(empty_store, tmp_path):
    shutil.copy(empty_store, tmp_path)
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    client = MlflowClient(uri)
    older = client.create_experiment("older")
    for name in ("older", "new"):
        _, experiment = open_experiment(TrackingConfig(experiment=name, uri=uri))
        tags = client.get_experiment(experiment).tags
        assert tags["mlflow.experimentKind"] == "custom_model_development"
        assert (experiment == older) == (name == "older")
    run = start_run(uri, experiment, "run", {"seed": 0, "storage": None, "flips": False}, {})
    assert client.get_run(run.run_id).data.params == {"seed": "0", "flips": "False"}


def test_how_to_look_at_what_was_recorded():
    page = "/#/experiments/1/runs/a?workflowType=machine_learning"
    assert look_lines(TrackedRun("sqlite:////runs/mlflow.db", "1", "a")).split() == [
        "MLflow:",
        *["mlflow", "ui", "--workers", "1", "--backend-store-uri", "sqlite:////runs/mlflow.db"],
        f"http://127.0.0.1:5000{page}",
    ]
    server = TrackedRun("http://server:5000", "1", "a")
    assert look_lines(server) == f"MLflow:  http://server:5000{page}"


def test_a_store_that_is_gone_costs_a_warning_and_nothing_else(tmp_path):
    (tmp_path / "file").write_text("where the store's folder was")
    warnings = []
    recorder = Recorder(
        TrackedRun(f"sqlite:///{tmp_path}/file/mlflow.db", "0", "x"), warnings.append
    )
    recorder.metrics({"loss": 1.0}, 0)
    recorder.tags({"a": "b"})
    recorder.file(tmp_path / "file")
    assert len(warnings) == 3
    assert all("did not record" in warning for warning in warnings)


@pytest.mark.parametrize("uri", ["http://[bad", "postgresql://a:b:c", "sqlite:////nowhere/x.db"])
def test_a_note_of_no_store_costs_a_warning(uri):
    warnings = []
    recorder = Recorder(TrackedRun(uri, "1", "a"), warnings.append)
    recorder.metrics({"loss": 1.0}, 0)
    [warning] = warnings
    assert warning.startswith(f"MLflow at {uri} did not record: ")
    assert recorder.lost


def test_a_user_without_a_name_is_a_number(tmp_path, monkeypatch):
    def nameless():
        raise KeyError("getpwuid(): uid not found: 1000650000")

    monkeypatch.setattr("getpass.getuser", nameless)
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    _, experiment = open_experiment(TrackingConfig(uri=uri))
    run = start_run(uri, experiment, "run", {}, {"sdn_ray.command": "train"})
    tags = MlflowClient(uri).get_run(run.run_id).data.tags
    assert tags["mlflow.user"].startswith("user ")
    assert tags["mlflow.source.name"] == "sdn_ray.train"
