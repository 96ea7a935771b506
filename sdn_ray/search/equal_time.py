"""Rows of a grid that train equally long: each one's epochs follow from how fast it is here."""

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from sdn_ray.cluster.progress import WorkerTerminal
from sdn_ray.cluster.tasks import ray_runner
from sdn_ray.config import ExperimentConfig
from sdn_ray.distillation.schemes import ADVERSARIAL, STAGE_THREE
from sdn_ray.files import read_json, write_text
from sdn_ray.methods.precision import settled
from sdn_ray.models.image_generators import SDN
from sdn_ray.models.teacher import load_teacher
from sdn_ray.search.plan import StudyPlan
from sdn_ray.search.space import ROW, SearchSpace
from sdn_ray.training.build import method_stages
from sdn_ray.training.job import TrainingJob
from sdn_ray.training.speed import training_rate

_FILE = "equal_time.json"
_MOST_SECONDS, _SHARE = 5.0, 0.01  # for which the steps of a stage are timed; of its time
_COUNTS = ("epochs", "halving_epochs")  # options of a stage that count epochs
_SDN_STAGES = ("distillation.stage_one", "distillation.stage_two")  # some schemes add them up
Rows = dict[str, dict[str, Any]]


def with_equal_time(
    plan: StudyPlan, job: TrainingJob, resources: dict[str, float], terminal: WorkerTerminal
) -> SearchSpace:
    """The study's space, its rows with as many epochs as take each of them equally long.

    They are measured once and kept in the study's folder: a study that goes on has the same.

    Args:
        plan: of the study.
        job: its prepared data.
        resources: of each of a trial's workers.
        terminal: where progress is shown.
    """
    path = plan.folder / _FILE
    if not path.exists():
        write_text(path, json.dumps(_timed_rows(plan, job, resources, terminal), indent=1))
    found = read_json(path, Rows, "the epochs of each row, as sdn_ray.tune has measured them")
    rows = {name: {**own, **found.get(name, {})} for name, own in plan.space.rows.items()}
    return replace(plan.space, rows=rows)


def _timed_rows(
    plan: StudyPlan, job: TrainingJob, resources: dict[str, float], terminal: WorkerTerminal
) -> Rows:
    assert plan.settings.equal_minutes is not None
    images = len(job.images.dataset.rows_of(job.split.train))
    run = ray_runner(resources)
    first = plan.space.corners()[0]
    rows: Rows = {}
    for name in plan.space.rows:
        if name in plan.space.left_out or name in plan.space.folders:
            continue
        terminal.wait(f"timing {name}")
        config = plan.space.apply(plan.config, first | {ROW: name})
        timed = min(_MOST_SECONDS, _SHARE * 60 * plan.settings.equal_minutes)
        rates = run(stage_rates, config, job.teacher, resources, timed)
        epochs = [stage.epochs for stage in method_stages(config)]
        seconds = sum(images * n / rate for n, rate in zip(epochs, rates, strict=True))
        rows[name] = scaled_epochs(config, 60 * plan.settings.equal_minutes / seconds)
        told = ", ".join(f"{option} {value}" for option, value in rows[name].items())
        terminal.line(f"{name}: {', '.join(f'{rate:.3g}' for rate in rates)} images/s: {told}")
    return rows


def stage_rates(
    config: ExperimentConfig, teacher: Path, resources: dict[str, float], seconds: float
) -> list[float]:
    """images/s of each stage of an experiment, in a process with a worker's resources.

    Args:
        config: the experiment.
        teacher: its weights.
        resources: of a worker.
        seconds: for which each stage is timed.
    """
    loaded, precision = load_teacher(str(teacher)), settled(config.training.precision)
    return [
        training_rate(config, loaded, stage, precision, resources, seconds)
        for stage in method_stages(config)
    ]


def scaled_epochs(config: ExperimentConfig, factor: float) -> dict[str, int]:
    """The options of an experiment that count epochs, so many times as many, but at least 1.

    Args:
        config: the experiment.
        factor: such as 0.5 for half of them.
    """
    if config.method == SDN:
        adversarial = config.distillation.scheme == ADVERSARIAL
        sections = [*_SDN_STAGES, f"distillation.{STAGE_THREE}"][: 2 + adversarial]
    else:
        sections = [stage.rate_options.rpartition(".")[0] for stage in method_stages(config)]
    found = {}
    for section in sections:
        options: Mapping[str, Any] = asdict(config)
        for name in section.split("."):
            options = options[name]
        for count in _COUNTS:
            if options.get(count):
                found[f"{section}.{count}"] = max(1, round(factor * options[count]))
    return found
