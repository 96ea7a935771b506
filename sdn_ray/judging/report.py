"""`study report`: what was found, as text, LaTeX, a picture, and in the models' MLflow runs."""

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict
from io import StringIO
from pathlib import Path

from sdn_ray.errors import UserError
from sdn_ray.files import replacing, write_text
from sdn_ray.judging.answers import Answer, Answers, sqlite_url
from sdn_ray.judging.findings import PHOTOGRAPH, Findings, QuestionFindings, find
from sdn_ray.judging.study import Key, Study, read_key, read_study, record
from sdn_ray.judging.trials import rater_trials
from sdn_ray.metrics.rankings import Interval
from sdn_ray.runs.tables import latex, markdown
from sdn_ray.runs.terminal import Display
from sdn_ray.runs.tracking import Recorder

REPORT = "report"
# Of the single answers.
_COLUMNS = (
    "rater", "trial", "question", "kind", "caption",
    "shown", "answer", "picture", "milliseconds", "page", "answered",
)  # fmt: skip
_RANKS = ("method", "mean rank", "95 % interval", "± of single ranks", "with all raters")
_PAIRS = ("pair", "difference", "95 % interval", "before, %", "p (Holm)")


def report_study(folder: Path, database: str | None, display: Display) -> Findings:
    """Write a study's report beside it; an older one is replaced.

    Args:
        folder: of the study.
        database: of its answers; None: the file in the folder.
        display: told what was found.

    Raises:
        UserError: there is no study, or nobody has answered.
    """
    study = read_study(folder)
    key = read_key(folder, study)
    kept = Answers(database or sqlite_url(folder), study.id)
    answers = kept.all()
    kept.close()
    if not answers:
        raise UserError(f"--study: {folder} has no answers yet; expected some to report on")
    slots = {one.slot for one in answers}
    trials = {slot: len(rater_trials(study, slot)) for slot in slots}
    display.wait("10,000 replicates of each question")
    found = find(study, key, answers, trials)
    out = folder / REPORT
    out.mkdir(exist_ok=True)
    text = report_text(study, found)
    write_text(out / "report.md", text)
    write_text(out / "report.tex", tables(found))
    write_text(
        out / "report.json", json.dumps({"study": record(study)} | asdict(found), indent=1) + "\n"
    )
    write_text(out / "answers.csv", _single_answers(study, key, answers))
    (out / "report.png").unlink(missing_ok=True)
    if found.questions:
        _picture(out / "report.png", found.questions)
    _into_mlflow(key, found, out, display)
    display.console.print(text, markup=False, highlight=False)
    display.line(str(out))
    return found


def report_text(study: Study, found: Findings) -> str:
    """The whole report."""
    parts = [
        f"# Study {study.name}",
        f"{len(study.captions)} captions drawn by {study.methods} methods, one picture each, shown "
        f"at {study.size} pixels; {study.common} captions common to all raters, "
        f"{study.raters_per_caption} raters for each of the others; seed {study.seed}; made "
        f"{study.created} with sdn_ray {study.version}.",
        f"{found.raters} raters, {found.finished} of whom finished. {study.exclusion} "
        f"{len(found.excluded)} were left out.",
        *(f"- rater {slot}: {'; '.join(why)}" for slot, why in sorted(found.excluded.items())),
    ]
    asked = {one.question for one in found.questions}
    parts += [f"No answer to the question of {q} is left." for q in study.ranked if q not in asked]
    for one in found.questions:
        parts += [f"## {one.question.capitalize()}", *_about(one)]
        parts += [markdown(_RANKS, _rank_cells(one)), markdown(_PAIRS, _pair_cells(one))]
    if found.matches:
        parts += ["## Match", "Share of pictures that were given their own caption of four."]
        parts += [markdown(("pictures of", "right, %", "95 % interval"), _match_cells(found))]
    return "\n\n".join(parts) + "\n"


def _single_answers(study: Study, key: Key, answers: Sequence[Answer]) -> str:
    """Every answer with the methods' names, for whoever wants to compute something else."""
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    names = (*key.methods, PHOTOGRAPH)
    for one in answers:
        item = (study.gold if one.kind == "gold" else study.captions)[one.item]
        if one.question == "match":
            shown, said = (
                [study.captions[c].text for c in places] for places in (one.shown, one.answer)
            )
        else:
            shown, said = ([names[c] for c in places] for places in (one.shown, one.answer))
        picture = "" if one.picture is None else names[one.picture]
        lists = (json.dumps(texts, ensure_ascii=False) for texts in (shown, said))
        asked = (one.slot, one.trial, one.question, one.kind, item.text)
        writer.writerow((*asked, *lists, picture, one.milliseconds, one.page, one.answered))
    return text.getvalue()


def tables(found: Findings) -> str:
    """The tables of mean ranks as LaTeX, a comment before each."""
    parts = [f"% {one.question}\n" + latex(_RANKS, _rank_cells(one)) for one in found.questions]
    if found.matches:
        headers = ("pictures of", "right, %", "95 % interval")
        parts.append("% match\n" + latex(headers, _match_cells(found)))
    return "\n".join(parts)


def _about(one: QuestionFindings) -> list[str]:
    lines = [
        f"{one.rankings} rankings of {one.captions} captions by {one.raters} raters; 1 is best. "
        "Intervals by bootstrap over captions and raters, not corrected for the number of pairs.",
    ]
    if one.friedman:
        lines.append(
            f"Friedman: χ² = {one.friedman.statistic:.2f}, {one.friedman.degrees} degrees of "
            f"freedom, p {_p(one.friedman.p)}, a block a caption."
        )
    agreement = []
    if one.concordance:
        w = one.concordance
        agreement.append(
            f"Kendall's W of {w.captions} common captions {w.mean:.2f} ({_interval(w.interval)}), "
            f"of random rankings {w.chance:.2f}"
        )
    if one.alpha is not None:
        agreement.append(f"Krippendorff's α (ordinal) {one.alpha:.2f}")
    if one.repeats:
        agreement.append(f"of raters with themselves, Kendall's τ {one.repeats.mean:.2f}")
    return [*lines, *([f"Agreement: {'; '.join(agreement)}."] if agreement else [])]


def _rank_cells(one: QuestionFindings) -> list[list[str]]:
    return [
        [
            row.method,
            f"{row.mean:.2f}",
            _interval(row.interval),
            f"{row.deviation:.2f}",
            f"{one.with_excluded[row.method]:.2f}",
        ]
        for row in sorted(one.comparison.methods, key=lambda row: row.mean)
    ]


def _pair_cells(one: QuestionFindings) -> list[list[str]]:
    return [
        [
            f"{pair.first} − {pair.second}",
            f"{pair.mean:+.2f}".replace("-", "−"),
            _interval(pair.interval),
            f"{100 * pair.before:.0f}",
            _p(pair.p_holm),
        ]
        for pair in one.comparison.pairs
    ]


def _match_cells(found: Findings) -> list[list[str]]:
    return [
        [
            name,
            f"{100 * share.value:.0f}",
            f"{100 * share.interval.low:.0f} to {100 * share.interval.high:.0f}",
        ]
        for name, share in found.matches.items()
    ]


def _interval(of: Interval) -> str:
    return f"{of.low:.2f} to {of.high:.2f}".replace("-", "−")


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _picture(path: Path, questions: Sequence[QuestionFindings]) -> None:
    """Mean ranks with their intervals, a panel a question."""
    from matplotlib.figure import Figure  # which takes a second to import

    figure = Figure(
        figsize=(4.5 * len(questions), 0.9 + 0.5 * len(questions[0].comparison.methods))
    )
    panels = figure.subplots(1, len(questions), squeeze=False)[0]
    for panel, one in zip(panels, questions, strict=True):
        rows = sorted(one.comparison.methods, key=lambda row: -row.mean)
        means = [row.mean for row in rows]
        apart = [
            [row.mean - row.interval.low for row in rows],
            [row.interval.high - row.mean for row in rows],
        ]
        panel.errorbar(means, range(len(rows)), xerr=apart, fmt="o", capsize=4)
        panel.set_yticks(range(len(rows)), [row.method for row in rows])
        panel.set_ylim(-0.5, len(rows) - 0.5)
        panel.set_xlim(1, len(rows))
        panel.set_xlabel("mean rank, 1 is best")
        panel.set_title(f"{one.question}, {one.rankings} rankings", fontsize=10)
        panel.grid(axis="x", alpha=0.3)
    figure.tight_layout()
    with replacing(path) as partial:
        figure.savefig(partial, format="png", dpi=150)


def _into_mlflow(key: Key, found: Findings, out: Path, display: Display) -> None:
    """Each method's mean ranks, and the report, into the run that trained it."""
    for name, tracked in zip(key.methods, key.tracked, strict=True):
        if tracked is None:
            continue
        values = {
            f"study/{one.question}_mean_rank": row.mean
            for one in found.questions
            for row in one.comparison.methods
            if row.method == name
        }
        if name in found.matches:
            values["study/match_right"] = found.matches[name].value
        recorder = Recorder(tracked, display.line)
        recorder.metrics(values, 0)
        recorder.folder(out, "study")
