"""The end of a grid that is scored on the test classes: the paper's Table 3 and Figure 6."""

import json
import statistics
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState
from rich.box import SIMPLE
from rich.table import Column, Table

from sdn_ray.data.references import RealImages
from sdn_ray.data.splits import scored_part
from sdn_ray.files import write_text
from sdn_ray.runs.folder import read_scores
from sdn_ray.runs.terminal import Display
from sdn_ray.runs.tracking import Recorder
from sdn_ray.scoring.comparison import write_comparison
from sdn_ray.scoring.image_sets import Entry, open_set
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
    picture_settings(files[1], shared, setting_entries(shared, groups).values())
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


def setting_entries(shared: StudyJob, groups: dict[str, list[FrozenTrial]]) -> dict[str, Entry]:
    """The model of each setting's first seed, by the setting."""
    return {
        name: Entry(name, shared.trial_folder(trials[0].number) / "model")
        for name, trials in groups.items()
    }


def picture_settings(path: Path, shared: StudyJob, entries: Iterable[Entry]) -> None:
    """One column a model or folder, and one row a caption of a test image."""
    job = shared.job
    rows = job.images.dataset.rows_of(job.split.test)
    real = RealImages.of(rows)
    places = np.linspace(0, len(rows) - 1, min(_PICTURED, len(rows))).round().astype(int)
    write_comparison(
        path,
        [open_set(entry, real, captions_per_image=1) for entry in entries],
        real,
        places.tolist(),
        best_of=shared.plan.settings.best_of,
        real_size=shared.plan.config.dataset.image_size,
    )
