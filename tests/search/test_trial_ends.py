"""Trials in MLflow: how they end, and what is made up for when MLflow was away."""

import json
import shutil
from unittest.mock import Mock

import pytest
from mlflow.tracking import MlflowClient
from optuna.trial import TrialState, create_trial

from sdn_ray.config import ExperimentConfig
from sdn_ray.runs.experiment import to_yaml
from sdn_ray.runs.folder import TrackedRun, end_is_recorded, note_epoch, noted_run
from sdn_ray.runs.tracking import start_run
from sdn_ray.search.plan import StudyPlan, StudySettings
from sdn_ray.search.report import record_trial
from sdn_ray.search.space import read_search_space
from sdn_ray.search.trial import StudyJob, begin_trial_run

SPACE = "distillation.stage_two.learning_rate: {loguniform: [1.0e-4, 1.0e-2]}\n"


@pytest.fixture
def client(empty_store, tmp_path):
    shutil.copy(empty_store, tmp_path)
    return MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")


@pytest.fixture
def shared(tmp_path, client):
    """What the trials of a study share, whose MLflow run has begun."""
    (tmp_path / "space.yaml").write_text(SPACE)
    experiment = client.create_experiment("e", artifact_location=(tmp_path / "a").as_uri())
    parent = start_run(f"sqlite:///{tmp_path}/mlflow.db", experiment, "study", {}, {})
    space = read_search_space(tmp_path / "space.yaml")
    plan = StudyPlan(tmp_path / "study", ExperimentConfig(), space, StudySettings())
    return StudyJob(plan, Mock(), parent, {"CPU": 1}, {})


def trial(state, value=None):
    found = create_trial(state=state, value=value)
    found.number = 0
    return found


@pytest.fixture
def run(shared):
    """A trial's folder after two epochs, the second of which was its last."""
    folder = shared.trial_folder(0)
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "config.json").write_text("{}")
    (folder / "config.yaml").write_text(to_yaml(ExperimentConfig()))
    (folder / "scores.json").write_text("{}")
    (folder / "curves.png").write_bytes(b"png")
    for epoch, stage in ((1, "stage_one"), (2, "stage_two")):
        note_epoch(folder, {"epoch": epoch, "stage": stage, "loss": 3.0 - epoch, "validation/x": 7})
    return folder


@pytest.mark.parametrize(
    ("state", "value", "status", "word"),
    [
        (TrialState.COMPLETE, 0.5, "FINISHED", "complete"),
        (TrialState.PRUNED, None, "FINISHED", "pruned"),
        (TrialState.FAIL, None, "FAILED", "failed"),
        (TrialState.RUNNING, None, "KILLED", "stopped"),
    ],
)
def test_four_ends_are_told_apart(shared, run, client, state, value, status, word):
    record_trial(shared, trial(state, value), pytest.fail)
    recorded = client.get_run(noted_run(run).run_id)
    assert (recorded.info.status, recorded.data.tags["sdn_ray.status"]) == (status, word)
    assert recorded.data.metrics.get("objective") == value


def test_a_trial_that_began_while_mlflow_was_away_is_recorded_at_its_end(shared, run, client):
    warnings = []
    store = TrackedRun("http://127.0.0.1:9", "0", "x")
    away = StudyJob(shared.plan, shared.job, store, {"CPU": 1}, {})
    assert begin_trial_run(away, 0, {}, ExperimentConfig(), warnings.append) is None
    assert len(warnings) == 1
    assert "MLflow at http://127.0.0.1:9 began no run" in warnings[0]
    record_trial(shared, trial(TrialState.COMPLETE, 0.5), pytest.fail)
    found = noted_run(run)
    recorded = client.get_run(found.run_id)
    assert recorded.data.tags["mlflow.parentRunId"] == shared.parent.run_id
    assert recorded.data.metrics["stage_one/loss"] == 2.0
    assert recorded.data.metrics["stage_two/loss"] == 1.0
    history = client.get_metric_history(found.run_id, "validation/x")
    assert [(metric.step, metric.value) for metric in history] == [(1, 7), (2, 7)]
    assert end_is_recorded(run)
    assert "model/config.json" in {a.path for a in client.list_artifacts(found.run_id, "model")}
    assert json.loads((run / "mlflow.json").read_text())["run_id"] == found.run_id
