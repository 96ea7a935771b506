"""One trial of a search: the training loop in the trial's own process, or Ray Train inside it."""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import ray.train
import ray.tune
import torch
from ray.tune.integration.ray_train import TuneReportCallback

from sdn_ray.cluster.resources import use_device
from sdn_ray.cluster.tasks import ray_runner, run_locally
from sdn_ray.config import ExperimentConfig
from sdn_ray.data.prepared import PreparedImages
from sdn_ray.files import write_text
from sdn_ray.methods.loop import StepProgress
from sdn_ray.preparation.smaller import prepare_smaller
from sdn_ray.runs.experiment import flatten, to_yaml
from sdn_ray.runs.folder import TrackedRun, note_run, noted_run, read_metrics
from sdn_ray.runs.tracking import Recorder, try_start_run
from sdn_ray.search.plan import StudyPlan
from sdn_ray.search.space import IMAGE_SIZE, PREPARED, STAGE_EPOCHS, SearchSpace
from sdn_ray.search.study import LAST_EPOCH, REASON, RUNG, STATUS_TAG
from sdn_ray.text.encoders import CHAR_CNN_RNN
from sdn_ray.training.build import method_stages, method_tags, smaller_sides
from sdn_ray.training.gauges import Gauges
from sdn_ray.training.gawwn import method_locations
from sdn_ray.training.job import TrainingJob, WorkerContext, prepare_job
from sdn_ray.training.ray_train import UNRECOVERABLE, failure_reason, fit
from sdn_ray.training.records import OBJECTIVE
from sdn_ray.training.worker import run_job


@dataclass(frozen=True)
class StudyJob:
    """What all trials share; every path is absolute and seen by all of them."""

    plan: StudyPlan
    job: TrainingJob  # with the prepared data
    parent: TrackedRun  # the study's MLflow run
    resources: dict[str, float]  # of each of a trial's workers
    images: Mapping[int, PreparedImages]  # of every size that trials have

    @property
    def folder(self) -> Path:
        """The study's."""
        return self.plan.folder

    @property
    def space(self) -> SearchSpace:
        """What the trials vary."""
        return self.plan.space

    def trial_folder(self, number: int) -> Path:
        """The run folder of a trial."""
        return self.folder.parent / self.trial_name(number)

    def trial_name(self, number: int) -> str:
        """The run folder of a trial, from where the study's is."""
        return f"{self.folder.name}/trials/{number:04d}"

    def trial_config(self, values: dict[str, Any]) -> ExperimentConfig:
        """The experiment of a trial."""
        config = self.space.apply(self.plan.config, values)
        if self.space.varies("seed", IMAGE_SIZE) and not self.space.varies(*PREPARED):
            # Prepared with the study's seed and size, not the trial's: named, so that the trial's
            # own configuration trains the same again.
            teacher = replace(config.teacher, weights=str(self.job.teacher))
            config = replace(config, teacher=teacher)
            if self.job.text_encoder is not None:
                weights = str(self.job.text_encoder)
                text = replace(config.text, encoder=CHAR_CNN_RNN, weights=weights)
                config = replace(config, text=text)
        return config


class TrialLog:
    """A trial's progress goes to Tune and MLflow; its lines, and why it failed, to its folder."""

    stop_wanted = False

    def __init__(self, run: Path, scheduled: float) -> None:
        self._run, self._scheduled = run, scheduled
        self._begun = False

    @property
    def _error(self) -> Path:
        return self._run / "error.txt"

    def wait(self, what: str) -> None:
        """Nothing: the command shows the trials alone."""

    def line(self, text: str) -> None:
        """Append a line to the log."""
        with (self._run / "log.txt").open("a", encoding="utf-8") as file:
            file.write(text + "\n")

    def progress(self, what: str, done: int, total: int, detail: str = "") -> None:
        """Nothing: epochs go to Tune."""

    def first_steps(self, stage: str) -> None:
        """Note what the trial's start took, once."""
        if not self._begun:
            seconds = time.time() - self._scheduled
            self.line(f"{stage}: first steps done {seconds:.1f} s after the trial was scheduled")
            self._begun = True

    def fail(self, text: str) -> None:
        """Keep the reason."""
        write_text(self._error, text + "\n")

    def forget_failure(self) -> None:
        """Start anew after an attempt that failed."""
        self._error.unlink(missing_ok=True)

    @property
    def failure(self) -> str | None:
        """Why the trial cannot go on, if it cannot."""
        return self._error.read_text(encoding="utf-8").strip() if self._error.exists() else None


@dataclass(frozen=True)
class TrialSummary:
    """Turns a worker's metrics of an epoch into what is reported to Tune."""

    objective: str  # the name of the metric
    epochs_before: int  # of all stages but the last
    epochs: int  # of all stages

    def __call__(self, metrics: Mapping[str, Any]) -> dict[str, Any]:
        """What is reported to Tune; only the first worker measures the objective."""
        rung = max(0, metrics["epoch"] - self.epochs_before)
        kept = {name: metrics[name] for name in ("epoch", "stage", "loss") if name in metrics}
        if self.objective in metrics:
            kept[OBJECTIVE] = metrics[self.objective]
        return kept | {RUNG: rung, LAST_EPOCH: metrics["epoch"] == self.epochs}


def run_trial(trial: dict[str, Any], study: StudyJob) -> None:
    """Train one trial from where it stands, reporting the objective after every epoch.

    What spoils a trial for good is reported as its reason: starting it again would change nothing.

    Args:
        trial: its ``number`` in the study, the ``values`` of its parameters, and when it was
            ``scheduled``, in seconds of the epoch.
        study: what all trials share.
    """
    number, values = trial["number"], trial["values"]
    config = study.trial_config(values)
    # A search never looks at the test classes; its job does not even name them.
    config = replace(
        config, evaluation=replace(config.evaluation, score_test=study.plan.settings.score_test)
    )
    run = study.trial_folder(number)
    run.mkdir(parents=True, exist_ok=True)
    write_text(run / "config.yaml", to_yaml(config))
    log = TrialLog(run, trial["scheduled"])
    tracked = noted_run(run) or begin_trial_run(study, number, values, config, log.line)
    if tracked:
        recorder = Recorder(tracked, log.line)
        recorder.status("RUNNING")
        recorder.tags({STATUS_TAG: "running"})
    log.forget_failure()
    try:
        job = _trial_job(study, config, log)
        _train(
            replace(
                job,
                run=run,
                tracked=tracked,
                name=study.trial_name(number),
                objective=study.plan.objective.name,
            ),
            study,
            log,
            number,
        )
    except UNRECOVERABLE as error:
        log.fail(failure_reason(error))
    if log.failure:
        ray.tune.report({REASON: log.failure})
        return
    last = read_metrics(run)[-1]
    ray.tune.report({OBJECTIVE: last[study.plan.objective.name], REASON: ""})


def _trial_job(study: StudyJob, config: ExperimentConfig, log: TrialLog) -> TrainingJob:
    """The study's job, or one of the trial's own where its images or its teachers are others."""
    shared, images = study.job, study.images[config.dataset.image_size]
    runner = run_locally if config.training.workers == 1 else ray_runner(study.resources)
    if not study.space.varies(*PREPARED) and images.key == shared.images.key:
        locations = method_locations(config, images.dataset)
        smaller = prepare_smaller(images, smaller_sides(config), runner, log)
        return replace(shared, config=config, locations=locations, smaller=smaller)
    # What another trial has prepared is in the cache by now.
    return prepare_job(config, images, shared.split, runner, log)


def _train(job: TrainingJob, study: StudyJob, log: TrialLog, number: int) -> None:
    """Train in the trial's own process; with several workers, by Ray Train inside it."""
    epochs = [stage.epochs for stage in method_stages(job.config)]
    summary = TrialSummary(study.plan.objective.name, sum(epochs[:-1]), sum(epochs))
    gauges = (study.folder.name, str(number))
    if job.config.training.workers > 1:
        callbacks = [TuneReportCallback()]
        try:
            # A worker that dies ends the attempt, and Tune starts the trial again from its
            # checkpoint: one place that counts failures.
            fit(
                run_job,
                job,
                job.config.training.workers,
                study.resources,
                log,
                gauges,
                max_failures=0,
                summary=summary,
                callbacks=callbacks,
            )
        except ray.train.TrainingFailedError:
            if log.failure is None:
                raise
        return
    show = Gauges(*gauges)

    def on_metrics(metrics: Mapping[str, Any]) -> None:
        ray.tune.report(summary(metrics))

    def on_steps(steps: StepProgress) -> None:
        log.first_steps(steps.stage.name)
        show(steps)

    # A second set of processes would cost its start.
    device = use_device(study.resources)
    try:
        run_job(job, WorkerContext(log, on_metrics, on_steps, device=device))
    finally:
        if device == "cuda":
            torch.cuda.empty_cache()  # the next trial in this process may need it in other pieces


def begin_trial_run(
    study: StudyJob,
    number: int,
    values: dict[str, Any],
    config: ExperimentConfig,
    warn: Callable[[str], None],
) -> TrackedRun | None:
    """A trial's MLflow run beneath the study's, noted in its folder.

    Where MLflow is away there is none yet: the trial goes on without, and is recorded at its end.
    """
    tags = {
        "mlflow.parentRunId": study.parent.run_id,
        "sdn_ray.command": "tune",
        "sdn_ray.trial": str(number),
        **method_tags(config),
    }
    # Searched options stand once, under the name by which all runs of a study have them.
    searched = {f"searched/{option}": value for option, value in values.items()}
    settled = {*values, *(STAGE_EPOCHS if study.space.total_epochs is not None else ())}
    fixed = {name: value for name, value in flatten(asdict(config)).items() if name not in settled}
    name = f"{study.folder.name}-{number:04d}"
    tracked = try_start_run(study.parent, name, fixed | searched, tags, warn)
    if tracked:
        note_run(study.trial_folder(number), tracked)
    return tracked
