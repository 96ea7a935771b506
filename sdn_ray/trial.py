"""One trial of a search: the training loop in the trial's own process, or Ray Train inside it."""

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import ray
import ray.tune
import torch

from sdn_ray.config import ExperimentConfig, to_yaml
from sdn_ray.distillation.loop import DivergedError
from sdn_ray.errors import UserError
from sdn_ray.export import TrackedRun
from sdn_ray.files import write_text
from sdn_ray.search_space import SearchSpace
from sdn_ray.study import OBJECTIVE, REASON, RUNG
from sdn_ray.tracking import flatten, note_run, noted_run, start_run
from sdn_ray.worker import TrainingJob, Worker, config_stages, read_metrics


@dataclass(frozen=True)
class StudyJob:
    """What all trials share; every path is absolute and seen by all of them."""

    folder: Path  # of the study
    space: SearchSpace
    config: ExperimentConfig  # what the space does not vary
    job: TrainingJob  # with the prepared data
    objective: str  # the name of the metric
    parent: TrackedRun  # the study's MLflow run
    score_test: bool = False  # an ablation: every trial is scored on the test classes at its end

    def trial_folder(self, number: int) -> Path:
        """The run folder of a trial."""
        return self.folder / "trials" / f"{number:04d}"

    def trial_config(self, values: dict[str, Any]) -> ExperimentConfig:
        """The experiment of a trial."""
        return self.space.apply(self.config, values)


class SilentTerminal:
    """A trial's progress goes to Tune and MLflow; its lines to the trial's log."""

    stop_wanted = False

    def __init__(self, log: Path) -> None:
        self._log = log

    def line(self, text: str) -> None:
        """Append a line to the log."""
        with self._log.open("a", encoding="utf-8") as file:
            file.write(text + "\n")

    def progress(self, what: str, done: int, total: int, detail: str = "") -> None:
        """Nothing: epochs are reported."""


def run_trial(trial: dict[str, Any], study: StudyJob) -> None:
    """Train one trial from where it stands, reporting the objective after every epoch.

    What spoils a trial for good is reported as its reason: starting it again would change nothing.

    Args:
        trial: its ``number`` in the study and the ``values`` of its parameters.
        study: what all trials share.
    """
    number, values = trial["number"], trial["values"]
    config = study.trial_config(values)
    # A search never looks at the test classes; its job does not even name them.
    config = replace(config, evaluation=replace(config.evaluation, score_test=study.score_test))
    run = study.trial_folder(number)
    run.mkdir(parents=True, exist_ok=True)
    write_text(run / "config.yaml", to_yaml(config))
    tracked = _child_run(study, number, values, config, run)
    job = replace(study.job, config=config, run=run, tracked=tracked)
    torch.set_num_threads(max(1, int(os.environ.get("OMP_NUM_THREADS", 1))))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    report = _reporter(study, config)
    try:
        Worker(job, SilentTerminal(run / "log.txt"), report, device=device).run()
    except (DivergedError, UserError, torch.OutOfMemoryError, MemoryError) as error:
        reason = str(error) or type(error).__name__
        write_text(run / "error.txt", reason + "\n")
        ray.tune.report({REASON: reason})
        return
    last = read_metrics(run)[-1]
    ray.tune.report({OBJECTIVE: last[study.objective], REASON: ""})


def _child_run(
    study: StudyJob, number: int, values: dict[str, Any], config: ExperimentConfig, run: Path
) -> TrackedRun:
    """The trial's MLflow run beneath the study's; the same one when the trial goes on."""
    earlier = noted_run(run)
    if earlier is not None:
        return earlier
    tags = {
        "mlflow.parentRunId": study.parent.run_id,
        "sdn_ray.command": "tune",
        "sdn_ray.trial": str(number),
        "sdn_ray.scheme": config.distillation.scheme,
    }
    searched = {f"searched/{name}": value for name, value in values.items()}
    tracked = start_run(
        study.parent.uri,
        study.parent.experiment_id,
        f"{study.folder.name}-{number:04d}",
        flatten(asdict(config)) | searched,
        tags,
    )
    note_run(run, tracked)
    return tracked


def _reporter(study: StudyJob, config: ExperimentConfig) -> Callable[[dict[str, Any]], None]:
    """Turns a worker's metrics of an epoch into what Tune is told."""
    stages = config_stages(config)
    before = sum(stage.epochs for stage in stages[:-1])

    def report(metrics: dict[str, Any]) -> None:
        ray.tune.report(
            {
                OBJECTIVE: metrics[study.objective],
                RUNG: max(0, metrics["epoch"] - before),
                "epoch": metrics["epoch"],
                "stage": metrics["stage"],
                "loss": metrics["loss"],
            }
        )

    return report
