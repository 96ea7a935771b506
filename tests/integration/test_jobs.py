"""Searches on clusters of their own: submitted as a job, and through the death of a node."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import optuna
import psutil
import pytest
from mlflow.tracking import MlflowClient
from optuna.trial import TrialState

from sdn_ray import tune
from sdn_ray.runs.command_line import USER_ERROR, run_command
from tests.integration.small import new_cluster, wait_for

ROOT = Path(__file__).parents[2]
GAUGES = ("ray_sdn_loss", "ray_sdn_images_per_second", "ray_sdn_epoch")


def free_ports(count):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def answer(url):
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return response.read().decode()
    except OSError:
        return ""


@pytest.fixture
def mlflow_server(tmp_path):
    """A real MLflow server on this machine alone."""
    [port] = free_ports(1)
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--workers", "1"]
    command += ["--port", str(port), "--backend-store-uri", f"sqlite:///{tmp_path}/server.db"]
    command += ["--artifacts-destination", str(tmp_path / "artifacts")]
    env = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # of scorers of traces
    with (tmp_path / "mlflow.log").open("wb") as log:
        server = subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True)
    yield f"http://127.0.0.1:{port}", server
    os.killpg(server.pid, signal.SIGKILL)


@pytest.fixture
def head():
    """`ray start --head` as jobs/README.md has it, with a token; what it started is stopped."""
    # Ray's sockets lie beneath it, and their paths may not be long.
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
    port, dashboard, agent, metrics = free_ports(4)
    env = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"} | {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": "0123456789abcdef" * 4,
        "RAY_metrics_report_interval_ms": "1000",
    }
    command = ["ray", "start", "--head", "--node-ip-address", "127.0.0.1", "--port", str(port)]
    command += ["--dashboard-port", str(dashboard), "--metrics-export-port", str(metrics)]
    command += ["--dashboard-agent-listen-port", str(agent), "--num-cpus", "2"]
    subprocess.run([*command, "--temp-dir", folder], env=env, check=True, capture_output=True)
    yield {
        "env": env | {"RAY_ADDRESS": f"http://127.0.0.1:{dashboard}"},
        "metrics": f"http://127.0.0.1:{metrics}/metrics",
    }
    # As `ray stop`, which would also stop what others run on this machine.
    heads = [
        p for p in psutil.process_iter(["cmdline"]) if folder in " ".join(p.info["cmdline"] or ())
    ]
    mine = {p for one in heads for p in (one, *one.children(recursive=True))}
    for process in mine:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(mine, timeout=30)
    shutil.rmtree(folder, ignore_errors=True)


def test_a_search_is_submitted_as_a_job(head, mlflow_server, search_config, tmp_path):
    uri, server = mlflow_server
    study, log = tmp_path / "study", tmp_path / "log"
    env = head["env"]
    search = ["python", "-m", "sdn_ray.tune", "--config", search_config, "--output", study]
    search += ["--space", "search_spaces/quickstart.yaml", "--trials", 2]  # in the copy
    search += ["--tracking.uri", uri]
    wait_for(lambda: answer(f"{uri}/health"), server)
    wait_for(lambda: answer(head["metrics"]), server)  # the agent that takes jobs serves them too
    with log.open("wb") as file:
        command = ["ray", "job", "submit", "--working-dir", ".", "--submission-id", "search"]
        job = subprocess.Popen(
            [*command, "--", *map(str, search)], env=env, cwd=ROOT, stdout=file, stderr=file
        )
        seen = set()

        def all_seen():
            seen.update(line for line in answer(head["metrics"]).splitlines() if "sdn_" in line)
            return all(any(line.startswith(name + "{") for line in seen) for name in GAUGES)

        wait_for(all_seen, job, every=1)  # an answer takes the agent a second of one core
        assert job.wait(300) == 0, log.read_text()
    labels = next(line for line in seen if line.startswith(GAUGES[0] + "{"))
    for label in ('run="study"', 'trial="0"', 'stage="stage_one"'):
        assert label in " ".join(seen), labels
    status = subprocess.run(
        ["ray", "job", "status", "search"], env=env, capture_output=True, text=True, check=True
    )
    assert "succeeded" in status.stdout + status.stderr

    client = MlflowClient(uri)
    parent = json.loads((study / "mlflow.json").read_text())
    nested = client.search_runs(
        [parent["experiment_id"]], f"tags.`mlflow.parentRunId` = '{parent['run_id']}'"
    )
    assert len(nested) == 2
    assert client.get_run(parent["run_id"]).info.status == "FINISHED"
    complete = [child for child in nested if child.data.tags["sdn_ray.status"] == "complete"]
    assert complete
    for child in complete:
        assert child.data.metrics["objective"] > 0
        assert "searched/stage_one_fraction" in child.data.params
        assert [a.path for a in client.list_artifacts(child.info.run_id, "samples")]


def test_a_relative_path_in_a_job_is_refused_in_words(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    monkeypatch.chdir(tmp_path)
    space = ROOT / "search_spaces" / "quickstart.yaml"
    arguments = ["--space", str(space), "--output", "runs/study"]
    assert run_command(tune.main, arguments) == USER_ERROR
    error = capsys.readouterr().err
    assert error.startswith("error: --output: found the relative path 'runs/study' inside")
    assert list(tmp_path.iterdir()) == []


def test_the_death_of_a_node_costs_no_trial(search_config, tmp_path):
    study, log = tmp_path / "study", tmp_path / "log"
    space = tmp_path / "space.yaml"  # long enough to die in the middle
    space.write_text(
        "distillation.stage_two.learning_rate: {uniform: [3.0e-4, 3.0e-3]}\n"
        "total_epochs: 8\nstage_one_fraction: {uniform: [0.2, 0.7]}\n"
    )

    def trial_on(node):
        """The trial whose run a process of the node holds, once it has an epoch behind it."""
        raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
        for process in raylet.children(recursive=True):
            with contextlib.suppress(psutil.Error):
                for file in process.open_files():
                    path = Path(file.path)
                    if path.name == ".lock" and (path.parent / "metrics.jsonl").exists():
                        return int(path.parent.name)
        return None

    options = ["--space", space, "--trials", 3, "--concurrent", 2]
    options += ["--prune", "false", "--output", study]
    cluster = new_cluster(1)
    try:
        other = cluster.add_node(num_cpus=1)
        env = os.environ | {"RAY_ADDRESS": cluster.address, "RAY_AUTH_MODE": "disabled"}
        command = [sys.executable, "-m", "sdn_ray.tune", "--config", search_config, *options]
        with log.open("wb") as file:
            search = subprocess.Popen(
                list(map(str, command)), env=env, cwd=ROOT, stdout=file, stderr=file
            )
        wait_for(lambda: trial_on(other) is not None, search)
        lost = trial_on(other)
        cluster.remove_node(other, allow_graceful=False)
        died = time.time()
        assert search.wait(600) == 0, log.read_text()
    finally:
        cluster.shutdown()
    found = optuna.load_study(study_name="study", storage=f"sqlite:///{study}/study.db").trials
    assert [trial.state for trial in found] == [TrialState.COMPLETE] * 3
    # The trial that was on that node came to its end after the node's.
    assert found[lost].datetime_complete.timestamp() > died
