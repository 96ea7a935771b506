"""The end of a grid that is scored on the test classes: the paper's Table 3 and Figure 6."""

import json
import statistics
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState
from rich.box import SIMPLE
from rich.table import Column, Table

from sdn_ray.data.image_sets import read_real
from sdn_ray.data.splits import scored_part
from sdn_ray.files import write_text
from sdn_ray.metrics.evaluation import spread
from sdn_ray.models.drawing import draw_images
from sdn_ray.models.export import load_model
from sdn_ray.pictures import comparison_rows
from sdn_ray.runs.folder import read_scores
from sdn_ray.runs.terminal import Display
from sdn_ray.runs.tracking import Recorder
from sdn_ray.scoring.report import with_deviation
from sdn_ray.search.space import ROW, SCHEME
from sdn_ray.search.trial import StudyJob

ROWS = {  # of Table 3, in its order
    "image": "Image space loss",
    "stage_one": "Stage-I loss",
    "stage_two": "Stage-II loss",
    "joint": "Stage-I & Stage-II loss",
    "sdn_diverse": "Diverse synthesis loss",
    "sdn": "SDN",
}
_PICTURED = 8  # captions of the figure
Cell = tuple[Any, ...]


def table3(study: optuna.Study, shared: StudyJob, recorder: Recorder, display: Display) -> None:
    """Print and keep the table of test scores, and the figure with a column for each setting.

    Trials that differ in nothing but `seed` are one row: mean ± standard deviation (population)
    over the seeds. With one seed there is no deviation.
    """
    groups = trials_by_setting(study.get_trials(states=(TrialState.COMPLETE,)))
    scores = {
        setting: [_test_scores(shared, trial) for trial in trials]
        for setting, trials in groups.items()
    }
    names = [name for name in next(iter(scores.values()))[0] if not name.endswith("_std")]
    # Of the measures that are there for comparison, the file tells.
    shown = [name for name in names if "_of_" not in name]
    table = Table(
        Column("scheme", no_wrap=True),
        Column("seeds", no_wrap=True),
        *(Column(name, overflow="fold") for name in shown),
        title=f"{shared.folder.name}: {scored_part(shared.job.images.dataset)}",
        box=SIMPLE,
    )
    found = {}
    for setting, rows in scores.items():
        means = {name: statistics.fmean(row[name] for row in rows) for name in names}
        spreads = {name: statistics.pstdev([row[name] for row in rows]) for name in names}
        found[setting] = {"seeds": len(rows), "mean": means, "std": spreads}
        cells = (
            with_deviation(means[name], spreads[name] if len(rows) > 1 else None) for name in shown
        )
        table.add_row(setting, str(len(rows)), *cells)
    display.console.print(table)
    files = [shared.folder / "table.json", shared.folder / "schemes.png"]
    write_text(files[0], json.dumps(found, indent=1) + "\n")
    picture_settings(files[1], shared, groups)
    for file in files:
        recorder.file(file)


def trials_by_setting(trials: list[FrozenTrial]) -> dict[str, list[FrozenTrial]]:
    """The trials by all that they were given but the seed, schemes in the order of Table 3."""
    groups: dict[Cell, list[FrozenTrial]] = defaultdict(list)
    for trial in trials:
        setting = tuple((k, v) for k, v in trial.params.items() if k != "seed")
        groups[setting].append(trial)
    order = list(ROWS)

    def place(setting: Cell) -> int:
        scheme = dict(setting).get(SCHEME)
        return order.index(scheme) if scheme in order else 0

    return {_label(setting): groups[setting] for setting in sorted(groups, key=place)}


def _label(setting: Cell) -> str:
    """The name of a row, or the paper's of a scheme, and what else it was given."""
    values = dict(setting)
    scheme, row = values.pop(SCHEME, None), values.pop(ROW, "")
    rest = ", ".join(f"{name.rpartition('.')[2]} {value}" for name, value in values.items())
    return ", ".join(part for part in (row, ROWS.get(scheme, ""), rest) if part) or "all"


def _test_scores(shared: StudyJob, trial: FrozenTrial) -> dict[str, float]:
    return read_scores(shared.trial_folder(trial.number))


def picture_settings(path: Path, shared: StudyJob, groups: dict[str, list[FrozenTrial]]) -> None:
    """One column a setting, of its first seed, and one row a caption of a test image."""
    job = shared.job
    data = spread(job.captions.encoded(job.images, job.split.test), _PICTURED)
    rows = [job.images.dataset.rows[i] for i in data.indices]
    captions = [row.captions[0] for row in rows]
    size = shared.plan.config.dataset.image_size
    columns: list[Sequence[np.ndarray]] = [[read_real(row.image_path, size, size) for row in rows]]
    for trials in groups.values():
        model = load_model(shared.trial_folder(trials[0].number) / "model")
        columns.append(
            [
                image
                for batch in draw_images(model.generator, model.embed(captions))
                for image in batch
            ]
        )
    headers = ["real", *groups]
    comparison_rows(path, captions, headers, list(zip(*columns, strict=True)))
