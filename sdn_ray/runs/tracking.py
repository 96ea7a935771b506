"""MLflow: the only module that imports it."""

import getpass
import logging
import os
import sqlite3
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow.utils.time import get_current_time_millis
from sqlalchemy.exc import SQLAlchemyError

from sdn_ray.config import TrackingConfig
from sdn_ray.errors import UserError, one_line
from sdn_ray.runs.experiment import absolute
from sdn_ray.runs.folder import TrackedRun

DEFAULT_STORE = Path("runs") / "mlflow.db"
SQLITE = "sqlite:///"
_MAX_PARAM_LENGTH = 500
# Away, or, as noted in a file that was damaged since, no URI at all.
_UNREACHABLE = (
    MlflowException, SQLAlchemyError, sqlite3.Error, ImportError, OSError, ValueError,
)  # fmt: skip
# Without it MLflow's page takes an experiment for one of prompts and traces.
_TRAINING = ("mlflow.experimentKind", "custom_model_development")
_QUICK = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}


def tracking_uri(config: TrackingConfig) -> str:
    """The configured store, MLFLOW_TRACKING_URI, or a SQLite file under ``runs/``."""
    uri = config.uri or os.environ.get("MLFLOW_TRACKING_URI") or f"{SQLITE}{DEFAULT_STORE}"
    # Workers have working directories of their own, so a path must not depend on it.
    if uri.startswith(SQLITE):
        return SQLITE + absolute(uri.removeprefix(SQLITE), "tracking.uri")
    return uri if ":" in uri else absolute(uri, "tracking.uri")


def open_experiment(config: TrackingConfig) -> tuple[str, str]:
    """The store's URI and the id of the configured experiment, made where it is missing.

    Raises:
        UserError: when the store cannot be reached; said at once, not after MLflow's retries.
    """
    uri = tracking_uri(config)
    # Making the tables of a new SQLite file is no news to the user.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
    with _environment(_QUICK):
        try:
            return uri, _experiment_id(uri, config.experiment)
        except _UNREACHABLE as error:
            reason = one_line(error, 300)
            raise UserError(
                f"tracking.uri: the MLflow store {uri} cannot be used ({reason}); expected a "
                "running MLflow server or a file that can be written. Unset MLFLOW_TRACKING_URI "
                f"to record into {DEFAULT_STORE}"
            ) from error


def _experiment_id(uri: str, name: str) -> str:
    artifacts = None
    if uri.startswith(SQLITE):
        path = Path(uri.removeprefix(SQLITE))
        path.parent.mkdir(parents=True, exist_ok=True)
        sqlite3.connect(path).close()  # fails at once, where MLflow would try for minutes
        # MLflow's own default is relative to the working directory, which workers do not share.
        artifacts = (path.parent / "mlartifacts").as_uri()
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        return client.create_experiment(name, artifact_location=artifacts, tags=dict([_TRAINING]))
    if _TRAINING[0] not in experiment.tags:
        client.set_experiment_tag(experiment.experiment_id, *_TRAINING)
    return experiment.experiment_id


def start_run(
    uri: str, experiment_id: str, name: str, params: Mapping[str, Any], tags: Mapping[str, str]
) -> TrackedRun:
    """Begin a run with the flattened configuration as its parameters; those unset are left out."""
    client = MlflowClient(uri)
    known = {"mlflow.user": _user(), "mlflow.source.type": "LOCAL"}
    if "sdn_ray.command" in tags:
        known["mlflow.source.name"] = f"sdn_ray.{tags['sdn_ray.command']}"
    run = client.create_run(experiment_id, run_name=name, tags=known | dict(tags))
    entries = [
        Param(key, str(value)[:_MAX_PARAM_LENGTH])
        for key, value in params.items()
        if value is not None
    ]
    for start in range(0, len(entries), 100):
        client.log_batch(run.info.run_id, params=entries[start : start + 100])
    return TrackedRun(uri, experiment_id, run.info.run_id)


def _user() -> str:
    try:
        return getpass.getuser()
    except (ImportError, KeyError, OSError):  # a container's user need not have a name
        return f"user {os.getuid()}"


def try_start_run(
    where: TrackedRun,
    name: str,
    params: Mapping[str, Any],
    tags: Mapping[str, str],
    warn: Callable[[str], None],
) -> TrackedRun | None:
    """Begin a run beside another one; None, with a warning, where MLflow is away."""
    with _environment(_QUICK):
        try:
            return start_run(where.uri, where.experiment_id, name, params, tags)
        except _UNREACHABLE as error:
            warn(f"MLflow at {where.uri} began no run: {_first_line(error)}")
            return None


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def look_lines(run: TrackedRun) -> str:
    """How a user looks at what was recorded.

    Without `workflowType` MLflow's page opens every experiment as one of prompts and traces,
    whatever the experiment's tag says.
    """
    page = f"#/experiments/{run.experiment_id}/runs/{run.run_id}?workflowType=machine_learning"
    if not run.uri.startswith(SQLITE):
        return f"MLflow:  {run.uri}/{page}"
    # One process serves one user; MLflow would start four.
    served = f"mlflow ui --workers 1 --backend-store-uri {run.uri}"
    return f"MLflow:  {served}\n         http://127.0.0.1:5000/{page}"


class Recorder:
    """Sends metrics and pictures of one run.

    The run folder holds all of it too, so a server that fails in the middle of a training costs a
    warning, not the training.

    Args:
        run: to record into.
        warn: called, once a call, with what could not be recorded.
    """

    def __init__(self, run: TrackedRun, warn: Callable[[str], None] = warnings.warn) -> None:
        self.run, self._warn = run, warn
        self.lost = False  # whether anything was not recorded

    @cached_property
    def _client(self) -> MlflowClient:
        path = self.run.uri.removeprefix(SQLITE)
        if path != self.run.uri and not Path(path).exists():
            raise FileNotFoundError(f"{path} is not there")  # MLflow would try for minutes
        return MlflowClient(self.run.uri)

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Record metrics of one epoch."""
        now = get_current_time_millis()
        entries = [Metric(name, float(value), now, step) for name, value in values.items()]
        with self._forgiving():
            self._client.log_batch(self.run.run_id, metrics=entries)

    def file(self, path: Path, folder: str | None = None) -> None:
        """Record a file, under a folder of the run's artifacts."""
        with self._forgiving():
            self._client.log_artifact(self.run.run_id, str(path), folder)

    def folder(self, path: Path, folder: str) -> None:
        """Record a folder with all that is in it."""
        with self._forgiving():
            self._client.log_artifacts(self.run.run_id, str(path), folder)

    def tags(self, tags: Mapping[str, str]) -> None:
        """Set tags."""
        with self._forgiving():
            for name, value in tags.items():
                self._client.set_tag(self.run.run_id, name, value)

    def status(self, status: str) -> None:
        """Set RUNNING, FINISHED, FAILED or KILLED."""
        with self._forgiving():
            if status == "RUNNING":
                self._client.update_run(self.run.run_id, status)
            else:
                self._client.set_terminated(self.run.run_id, status)

    @contextmanager
    def _forgiving(self) -> Iterator[None]:
        with _environment(_QUICK):
            try:
                yield
            except _UNREACHABLE as error:
                self.lost = True
                reason = _first_line(error)
                self._warn(f"MLflow at {self.run.uri} did not record: {reason}")


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
