"""The end of a grid of named settings that is scored on the test classes: the paper's Table 1.

Its columns are the paper's scores (a classifier score, SSIM, FSIM) and what one asks for beside
them: distances of features, how often a caption's colour is drawn, and what the training took.
"""

import json
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import optuna
from jsonargparse import Namespace
from optuna.trial import FrozenTrial, TrialState
from rich.box import SIMPLE
from rich.table import Column, Table

from sdn_ray.config import ExperimentConfig
from sdn_ray.data.splits import scored_part
from sdn_ray.data.synthetic.flowers import NAME as SYNTHETIC
from sdn_ray.errors import UserError
from sdn_ray.files import replacing, write_text
from sdn_ray.metrics.attributes import ATTRIBUTES
from sdn_ray.metrics.classifier_score import distance_name, score_name
from sdn_ray.metrics.evaluation import TEST_SPLITS
from sdn_ray.runs.folder import read_metrics, read_scores
from sdn_ray.runs.tables import latex, markdown
from sdn_ray.runs.terminal import Display
from sdn_ray.runs.tracking import Recorder
from sdn_ray.scoring.image_sets import Entry
from sdn_ray.scoring.report import SetReport, compared_at, with_deviation
from sdn_ray.scoring.run import score_entries
from sdn_ray.search.folders import folder_entries
from sdn_ray.search.space import SearchSpace
from sdn_ray.search.table3 import picture_settings, setting_entries, trials_by_setting
from sdn_ray.search.trial import StudyJob

_REAL, _SHUFFLED = "real images", "shuffled captions"
_SSIM = "SSIM"
_DAGGER = "†"  # of a row that was left out
_DOUBLE = "‡"  # of a row of images that were drawn elsewhere
_PIXELS = "pixels a side"
_COUNTS = (_PIXELS, "epochs", "images seen")
_TRAINING = (*_COUNTS, "images/s", "hours")
_COLORS = "colours, %"


Entries = list[tuple[str, float]]  # columns with their values


@dataclass(frozen=True)
class Row:
    """One line of the table: a setting, and what its trials have in each column."""

    name: str
    seeds: int | None  # None: of the real images, and of a method that was not trained
    found: Mapping[str, Sequence[float]]  # by column, a value a trial


@dataclass(frozen=True)
class _Scored:
    """What is known of all models."""

    how: str  # it was measured, for the table's title
    trials: Mapping[int, Entries]  # by number
    others: Sequence[Row]  # what stands beneath: the real images
    folders: Mapping[str, Row] = field(default_factory=dict)  # that are no trial's, by name


def table1(study: optuna.Study, shared: StudyJob, recorder: Recorder, display: Display) -> None:
    """Score every trial's model on the test classes, and keep the table and the figure.

    Trials that differ in nothing but `seed` are one row: mean ± standard deviation (population). A
    row whose method needs annotations that the data set lacks has dashes and a footnote; one that
    is a folder of images has scores and no training.
    ``table.json``, ``table.md``, ``table.tex`` and ``table.png`` hold the same figures;
    ``methods.png`` is the paper's Figure 3: a column a row of the table, a row a caption.

    Raises:
        UserError: an image cannot be read.
    """
    groups = trials_by_setting(study.get_trials(states=(TrialState.COMPLETE,)))
    display.wait("scoring the test classes")
    trials = [trial for own in groups.values() for trial in own]
    scored = (
        _reported(trials, shared, display)
        if shared.plan.config.evaluation.classifier
        else _recorded(trials, shared)
    )
    trained = {
        name: Row(name, len(own), _columns(shared, own, scored.trials))
        for name, own in groups.items()
    }
    left_out = {name: Row(name + _DAGGER, None, {}) for name in shared.space.left_out}
    order, known = in_order(trained, shared.space), {**trained, **left_out, **scored.folders}
    rows = [*(known[name] for name in order), *scored.others]
    title = f"{shared.folder.name}: {scored.how}{_training_of(trained, shared)}"
    headers = ["method", "seeds", *dict.fromkeys(name for row in rows for name in row.found)]
    cells = [row_cells(row, headers[2:]) for row in rows]
    notes = footnotes(shared.space)
    _print(title, headers, cells, notes, display)
    files = _write(shared.folder, title, headers, cells, notes, rows)
    entries = setting_entries(shared, groups)
    entries |= {entry.name: entry for entry in folder_entries(shared.space)}
    shown = [entries[name] for name in order if name in entries]
    picture_settings(shared.folder / "methods.png", shared, shown)
    for file in (*files, shared.folder / "methods.png"):
        recorder.file(file)


def in_order(trained: Iterable[str], space: SearchSpace) -> list[str]:
    """The names of a table's rows, those that no trial trains at their places in the space."""
    found, names = [*trained], [*space.rows]
    for name in sorted((*space.left_out, *space.folders), key=names.index):
        # Before the trained rows of the next one in the space that was trained.
        later = tuple(f"{other}, " for other in names[names.index(name) + 1 :])
        places = (i for i, row in enumerate(found) if f"{row}, ".startswith(later))
        found.insert(next(places, len(found)), name)
    return found


def footnotes(space: SearchSpace) -> list[str]:
    """What stands under the table: why a row has dashes."""
    left_out = [f"{_DAGGER} {name}: not trained on {why}" for name, why in space.left_out.items()]
    found = space.folders.items()
    return left_out + [f"{_DOUBLE} {name}: one set of images, {path}" for name, path in found]


def check_table1(config: ExperimentConfig) -> None:
    """Refuse a table of photographs without its first column.

    Of the embedded data set, whose attributes are read off the pixels, a table may do without.

    Raises:
        UserError: there is no classifier.
    """
    if not config.evaluation.classifier and config.dataset.name != SYNTHETIC:
        raise UserError(
            "--score_test: found true with rows of methods and no evaluation.classifier, expected "
            "one, such as squeezenet1_1:WEIGHTS, for the table's score"
        )


def _training_of(trained: Mapping[str, Row], shared: StudyJob) -> str:
    """What the rows' trainings have in common: a time, or a number of images."""
    if shared.plan.settings.equal_minutes is not None:
        return f"; each trained for about {shared.plan.settings.equal_minutes:g} minutes"
    seen = {value for row in trained.values() for value in row.found["images seen"]}
    return f"; each saw {seen.pop():.0f} images" if len(seen) == 1 else ""


def _reported(trials: Sequence[FrozenTrial], shared: StudyJob, display: Display) -> _Scored:
    """What `sdn_ray.evaluate` says of every trial's model and folder, and of the real images."""
    models = [
        Entry(f"trial {trial.number}", shared.trial_folder(trial.number) / "model")
        for trial in trials
    ]
    reports = _reports([*models, *folder_entries(shared.space)], shared, display)
    first, drawn = reports[0], reports[: len(trials)]
    of_size = {report.size: report for report in reversed(reports)}
    real = [
        _untrained(f"{_REAL}, {size}" if len(of_size) > 1 else _REAL, report, report.real_scores)
        for size, report in sorted(of_size.items(), key=lambda one: _sides(one[1]))
    ]
    part = scored_part(shared.job.images.dataset)
    how = f"{first.images} images, {part}, {first.classifier}, {first.splits} splits"
    if len(of_size) > 1:
        how += ", each row and real images at its size"
    how += compared_at(first.compare_size)
    pairs = zip(trials, drawn, strict=True)
    scores = {trial.number: _scores(report, report.scores) for trial, report in pairs}
    folders = {
        report.name: _untrained(report.name + _DOUBLE, report, report.scores)
        for report in reports[len(trials) :]
    }
    return _Scored(how, scores, real, folders)


def _untrained(name: str, report: SetReport, scores: Mapping[str, float]) -> Row:
    """The row of images that no trial has drawn; without a size where they have several."""
    found = {column: [value] for column, value in _scores(report, scores)}
    sides = {*_sides(report)}
    if len(sides) == 1:
        found[_PIXELS] = [sides.pop()]
    return Row(name, None, found)


def _sides(report: SetReport) -> list[int]:
    """Heights and widths of a set's images."""
    return [int(side) for side in re.findall(r"\d+", report.size)]


def _size(shared: StudyJob, trial: FrozenTrial) -> int:
    """Pixels a side of a trial's images."""
    return shared.trial_config(trial.params).dataset.image_size


def _recorded(trials: Sequence[FrozenTrial], shared: StudyJob) -> _Scored:
    """What every trial has measured at its end, of what captions of the embedded data set name.

    SSIM was measured at the trial's own size, and stands in the table where that is the study's.
    """
    scores = {trial.number: read_scores(shared.trial_folder(trial.number)) for trial in trials}
    first = scores[trials[0].number]

    def read(own: Mapping[str, float], of: str = "") -> list[tuple[str, float]]:
        return [(f"{n}, %", 100 * own[n + of]) for n in ATTRIBUTES if n + of in own]

    size = shared.plan.config.dataset.image_size
    comparable = [trial.number for trial in trials if _size(shared, trial) == size]
    similar = {number: [(_SSIM, scores[number]["ssim"])] for number in comparable}
    return _Scored(
        f"images of the test species that show what their captions name; SSIM at {size}×{size}",
        {number: [*read(own), *similar.get(number, [])] for number, own in scores.items()},
        [
            Row(name, None, {column: [value] for column, value in read(first, of)})
            for name, of in ((_REAL, "_of_real_images"), (_SHUFFLED, "_of_shuffled_captions"))
        ],
    )


def _reports(entries: Sequence[Entry], shared: StudyJob, display: Display) -> list[SetReport]:
    """What `sdn_ray.evaluate` says of models and folders, the first caption of each image."""
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
        compare_size=config.dataset.image_size,
    )
    return score_entries(options, entries, display)[1]


def _columns(
    shared: StudyJob, trials: Sequence[FrozenTrial], scores: Mapping[int, Entries]
) -> dict[str, list[float]]:
    """Of the trials of a row, each column's values."""
    found: dict[str, list[float]] = {}
    for trial in trials:
        for name, value in (*scores[trial.number], *_trained(shared, trial)):
            found.setdefault(name, []).append(value)
    return found


def _scores(report: SetReport, scores: Mapping[str, float]) -> Entries:
    """The scores that the table has, under its names; real images have some of them."""
    classifier = report.classifier
    wanted = {
        "score": score_name(classifier),
        "FID": distance_name(classifier, "fid"),
        "KID": distance_name(classifier, "kid"),
        _SSIM: "ssim",
        "FSIM": "fsim",
        _COLORS: "color_agreement",
        "SSIM between captions": "ssim_between_captions",
    }
    found = {name: scores[own] for name, own in wanted.items() if own in scores}
    if _COLORS in found:
        found[_COLORS] *= 100
    return list(found.items())


def _trained(shared: StudyJob, trial: FrozenTrial) -> Entries:
    """Size, epochs, images and hours of a trial's training, without what it scored in between."""
    images = len(shared.job.images.dataset.rows_of(shared.job.split.train))
    rates = [one["images_per_second"] for one in read_metrics(shared.trial_folder(trial.number))]
    seconds = sum(images / rate for rate in rates)
    seen = images * len(rates)
    found = (_size(shared, trial), len(rates), seen, seen / seconds, seconds / 3600)
    return list(zip(_TRAINING, found, strict=True))


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
    title: str,
    headers: Sequence[str],
    cells: Sequence[Sequence[str]],
    notes: Sequence[str],
    display: Display,
) -> None:
    """A column a method: a terminal has no room for a column a score."""
    methods = (Column(line[0], overflow="fold", justify="right") for line in cells)
    table = Table(headers[0], *methods, title=title, title_justify="left", box=SIMPLE)
    for place, name in enumerate(headers[1:], 1):
        table.add_row(name, *(line[place] for line in cells))
    display.console.print(table)
    for note in notes:
        display.line(note)


def _write(
    folder: Path,
    title: str,
    headers: Sequence[str],
    cells: Sequence[Sequence[str]],
    notes: Sequence[str],
    rows: Sequence[Row],
) -> list[Path]:
    """The table as JSON (each seed by itself), Markdown, LaTeX and a picture."""
    paths = [folder / f"table.{suffix}" for suffix in ("json", "md", "tex", "png")]
    values = {row.name: {"seeds": row.seeds, **row.found} for row in rows}
    write_text(paths[0], json.dumps(values, indent=1) + "\n")
    write_text(paths[1], "\n\n".join([title, markdown(headers, cells), *notes]) + "\n")
    write_text(paths[2], latex(headers, cells, notes))
    _picture(paths[3], title, headers, cells, notes)
    return paths


def _picture(
    path: Path,
    title: str,
    headers: Sequence[str],
    cells: Sequence[Sequence[str]],
    notes: Sequence[str],
) -> None:
    from matplotlib.figure import Figure  # which takes a second to import

    figure = Figure(figsize=(1.3 * len(headers), 0.4 * (len(cells) + 2)))
    axes = figure.add_subplot()
    axes.axis("off")
    axes.set_title(title, fontsize=9)
    axes.text(0, 0, "\n".join(notes), transform=axes.transAxes, va="top", fontsize=8)
    table = axes.table([list(line) for line in cells], colLabels=list(headers), loc="center")
    table.auto_set_font_size(False)
    table.set_fontsize(8)
    table.auto_set_column_width(list(range(len(headers))))
    with replacing(path) as partial:
        figure.savefig(partial, format="png", dpi=150, bbox_inches="tight")
