"""The end of a grid of named settings that is scored on the test classes: the paper's Table 1.

Its columns are the paper's scores (a classifier score, SSIM, FSIM) and what one asks for beside
them: distances of features, how often a caption's colour is drawn, and what the training took.
"""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import optuna
from jsonargparse import Namespace
from optuna.trial import FrozenTrial, TrialState
from rich.box import SIMPLE
from rich.table import Column, Table

from sdn_ray.errors import UserError
from sdn_ray.files import replacing, write_text
from sdn_ray.metrics.classifier_score import distance_name, score_name
from sdn_ray.metrics.evaluation import TEST_SPLITS
from sdn_ray.runs.folder import read_metrics
from sdn_ray.runs.terminal import Display
from sdn_ray.runs.tracking import Recorder
from sdn_ray.scoring.image_sets import Entry
from sdn_ray.scoring.report import SetReport, with_deviation
from sdn_ray.scoring.run import score_entries
from sdn_ray.search.table3 import picture_settings, trials_by_setting
from sdn_ray.search.trial import StudyJob

_REAL = "real images"
_COUNTS = ("epochs", "images seen")
_TRAINING = (*_COUNTS, "images/s", "hours")
_COLORS = "colours, %"


@dataclass(frozen=True)
class Row:
    """One line of the table: a setting, and what its trials have in each column."""

    name: str
    seeds: int | None  # None: of the real images
    found: Mapping[str, Sequence[float]]  # by column, a value a trial


def table1(study: optuna.Study, shared: StudyJob, recorder: Recorder, display: Display) -> None:
    """Score every trial's model on the test classes, and keep the table and the figure.

    Trials that differ in nothing but `seed` are one row: mean ± standard deviation (population).
    ``table.json``, ``table.md``, ``table.tex`` and ``table.png`` hold the same figures;
    ``methods.png`` is the paper's Figure 3: a column a row of the table, a row a caption.

    Raises:
        UserError: an image cannot be read.
    """
    groups = trials_by_setting(study.get_trials(states=(TrialState.COMPLETE,)))
    display.wait("scoring the test classes")
    trials = [trial for own in groups.values() for trial in own]
    found = _reports(trials, shared, display)
    reports = {trial.number: report for trial, report in zip(trials, found, strict=True)}
    rows = [
        Row(name, len(own), _columns(shared, [(one, reports[one.number]) for one in own]))
        for name, own in groups.items()
    ]
    first = reports[trials[0].number]
    rows.append(Row(_REAL, None, {name: [v] for name, v in _scores(first, first.real_scores)}))
    title = (
        f"{shared.folder.name}: {first.images} images of the test classes, {first.classifier}, "
        f"{first.splits} splits"
    )
    headers = ["method", "seeds", *dict.fromkeys(name for row in rows for name in row.found)]
    cells = [row_cells(row, headers[2:]) for row in rows]
    _print(title, headers, cells, display)
    files = _write(shared.folder, title, headers, cells, rows)
    picture_settings(shared.folder / "methods.png", shared, groups)
    for file in (*files, shared.folder / "methods.png"):
        recorder.file(file)


def check_table1(classifier: str | None) -> None:
    """Refuse a table without its first column.

    Raises:
        UserError: there is no classifier.
    """
    if not classifier:
        raise UserError(
            "--score_test: found true with rows of methods and no evaluation.classifier, expected "
            "one, such as squeezenet1_1:WEIGHTS, for the table's score"
        )


def _reports(trials: Sequence[FrozenTrial], shared: StudyJob, display: Display) -> list[SetReport]:
    """What `sdn_ray.evaluate` says of each trial's model, the first caption of each image."""
    config, rows = shared.plan.config, shared.job.images.dataset.rows
    root = config.dataset.root or rows[0].image_path.parents[2]  # the embedded one's
    options = Namespace(
        reference=str(root),
        split="test",
        classifier=config.evaluation.classifier,
        splits=TEST_SPLITS,
        seed=0,
        captions_per_image=1,
        limit=None,
        skip_bad=config.dataset.skip_bad,
        colors=True,
        workers=None,
    )
    entries = [
        Entry(f"trial {trial.number}", shared.trial_folder(trial.number) / "model")
        for trial in trials
    ]
    return score_entries(options, entries, display)[1]


def _columns(
    shared: StudyJob, trials: Sequence[tuple[FrozenTrial, SetReport]]
) -> dict[str, list[float]]:
    """Of the trials of a row, each column's values."""
    found: dict[str, list[float]] = {}
    for trial, report in trials:
        for name, value in (*_scores(report, report.scores), *_trained(shared, trial)):
            found.setdefault(name, []).append(value)
    return found


def _scores(report: SetReport, scores: Mapping[str, float]) -> list[tuple[str, float]]:
    """The scores that the table has, under its names; real images have some of them."""
    classifier = report.classifier
    wanted = {
        "score": score_name(classifier),
        "FID": distance_name(classifier, "fid"),
        "KID": distance_name(classifier, "kid"),
        "SSIM": "ssim",
        "FSIM": "fsim",
        _COLORS: "color_agreement",
        "SSIM between captions": "ssim_between_captions",
    }
    found = {name: scores[own] for name, own in wanted.items() if own in scores}
    if _COLORS in found:
        found[_COLORS] *= 100
    return list(found.items())


def _trained(shared: StudyJob, trial: FrozenTrial) -> list[tuple[str, float]]:
    """Epochs, images and hours of a trial's training, without what it scored in between."""
    images = len(shared.job.images.dataset.rows_of(shared.job.split.train))
    rates = [one["images_per_second"] for one in read_metrics(shared.trial_folder(trial.number))]
    seconds = sum(images / rate for rate in rates)
    seen = images * len(rates)
    return list(zip(_TRAINING, (len(rates), seen, seen / seconds, seconds / 3600), strict=True))


def row_cells(row: Row, names: Sequence[str]) -> list[str]:
    """A row as it is written: name, seeds, and of each column mean ± deviation, or a dash."""
    cells = [row.name, "" if row.seeds is None else str(row.seeds)]
    for name in names:
        values = row.found.get(name)
        if values is None:
            cells.append("–")
            continue
        mean, apart = statistics.fmean(values), statistics.pstdev(values)
        if name in _COUNTS:
            cells.append(f"{mean:.0f}")
        else:
            cells.append(with_deviation(mean, apart if len(values) > 1 else None))
    return cells


def _print(
    title: str, headers: Sequence[str], cells: Sequence[Sequence[str]], display: Display
) -> None:
    """A column a method: a terminal has no room for a column a score."""
    methods = (Column(line[0], overflow="fold", justify="right") for line in cells)
    table = Table(headers[0], *methods, title=title, title_justify="left", box=SIMPLE)
    for place, name in enumerate(headers[1:], 1):
        table.add_row(name, *(line[place] for line in cells))
    display.console.print(table)


def _write(
    folder: Path,
    title: str,
    headers: Sequence[str],
    cells: Sequence[Sequence[str]],
    rows: Sequence[Row],
) -> list[Path]:
    """The table as JSON (each seed by itself), Markdown, LaTeX and a picture."""
    paths = [folder / f"table.{suffix}" for suffix in ("json", "md", "tex", "png")]
    values = {row.name: {"seeds": row.seeds, **row.found} for row in rows}
    write_text(paths[0], json.dumps(values, indent=1) + "\n")
    lines = [headers, ["---"] * len(headers), *cells]
    markdown = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    write_text(paths[1], f"{title}\n\n{markdown}\n")
    write_text(paths[2], latex(headers, cells))
    _picture(paths[3], title, headers, cells)
    return paths


def latex(headers: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """A `tabular` with the lines of booktabs; the first column is text, others are figures."""

    def line(texts: Sequence[str]) -> str:
        escaped = (
            text.replace("%", r"\%").replace("_", r"\_").replace("&", r"\&").replace("±", r"$\pm$")
            for text in texts
        )
        return " & ".join(escaped) + r" \\"

    begin = rf"\begin{{tabular}}{{l{'r' * (len(headers) - 1)}}}"
    inner = [line(headers), r"\midrule", *map(line, cells)]
    return "\n".join([begin, r"\toprule", *inner, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _picture(
    path: Path, title: str, headers: Sequence[str], cells: Sequence[Sequence[str]]
) -> None:
    from matplotlib.figure import Figure  # which takes a second to import

    figure = Figure(figsize=(1.3 * len(headers), 0.4 * (len(cells) + 2)))
    axes = figure.add_subplot()
    axes.axis("off")
    axes.set_title(title, fontsize=9)
    table = axes.table([list(line) for line in cells], colLabels=list(headers), loc="center")
    table.auto_set_font_size(False)
    table.set_fontsize(8)
    table.auto_set_column_width(list(range(len(headers))))
    with replacing(path) as partial:
        figure.savefig(partial, format="png", dpi=150, bbox_inches="tight")
