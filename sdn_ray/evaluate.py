"""python -m sdn_ray.evaluate: the paper's scores of generated images, alone or beside real ones."""

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from sdn_ray.data.references import PARTS, RealImages
from sdn_ray.errors import UserError
from sdn_ray.files import write_text
from sdn_ray.metrics.scoring import SetScores, check_splits
from sdn_ray.models.classifiers import INCEPTION, load_classifier
from sdn_ray.runs.command_line import check_at_least, new_output, run_command
from sdn_ray.runs.experiment import absolute, parse
from sdn_ray.runs.terminal import Display
from sdn_ray.runs.tracking import Recorder
from sdn_ray.scoring.captions import reference_rows
from sdn_ray.scoring.colors import fit_colors, named_colors
from sdn_ray.scoring.image_sets import (
    Entry,
    ScoredSet,
    image_entries,
    model_entry,
    open_set,
    origins_of,
    usable,
)
from sdn_ray.scoring.report import print_reports, set_report
from sdn_ray.scoring.score import score_sets
from sdn_ray.scoring.text_encoder import score_text_encoder

DESCRIPTION = (
    "Score images, of folders or drawn by a model on the way: inception score (or the same by "
    "another classifier), and against the real images of a data set SSIM, FSIM, FID and KID."
)


def main(arguments: Sequence[str]) -> int:
    """The command; returns its exit status."""
    options = parse(_parser(), arguments)
    output = _check_options(options)
    if options.text_encoder:
        return score_text_encoder(options, output)
    entries = [model_entry(options.model)] if options.model else image_entries(options.images)
    with Display() as display, ExitStack() as stack:
        real = _real_images(options, entries, display)
        named = _named_colors(options, entries)
        classifier = load_classifier(options.classifier)  # its errors belong here, not in an actor
        sets = [open_set(entry, real, options.captions_per_image) for entry in entries]
        left_out = [_left_out(one, real, options, display) for one in sets]
        sets = [one for one, _ in left_out]
        colors = None
        if named:
            limits = {"skip_bad": options.skip_bad, "workers": options.workers}
            colors = fit_colors(named, display=display, **limits)
        gathered = [
            stack.enter_context(SetScores(len(one.images), options.splits, options.seed))
            for one in sets
        ]
        settings = _classifier_settings(options) | {"colors": colors}
        score_sets(sets, gathered, real, settings, options.workers, display)
        reports = [
            set_report(one.name, found, classifier, options, reasons, colors)
            for (one, reasons), found in zip(left_out, gathered, strict=True)
        ]
    print_reports(reports)
    if output:
        entries_found = {report.name: asdict(report) for report in reports}
        write_text(output, json.dumps(entries_found, indent=1) + "\n")
        print(f"written to {output}")
    for one, report in zip(sets, reports, strict=True):
        if one.tracked is not None:
            recorder = Recorder(one.tracked)
            recorder.metrics(report.metrics(), 0)
            if output:
                recorder.file(output, "evaluate")
    return 0


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="python -m sdn_ray.evaluate", description=DESCRIPTION, exit_on_error=False
    )
    add = parser.add_argument
    add("--images", type=str, nargs="+", help="Folders of images or models: DIR or NAME=DIR.")
    add("--model", type=str, help="Model folder: draws and scores, and writes no image.")
    add(
        *("--text_encoder", "--text-encoder"),
        type=str,
        help="The text_encoder folder of a run of train_text: scored by itself on --reference.",
    )
    add("--reference", type=str, help="Data set with the real images.")
    add("--split", type=str, default="test", help=f"Its part: {', '.join(PARTS)}.")
    add("--captions_per_image", type=int, help="With --model: the first N captions of each image.")
    add("--limit", type=int, help="Score the first N images of each set alone.")
    add("--classifier", type=str, default=INCEPTION, help="NAME or NAME:WEIGHTS.")
    add("--splits", type=int, default=10, help="Splits of the classifier score.")
    add("--seed", type=int, default=0, help="Of the shuffle before the splits.")
    flag = partial(add, type=bool, nargs="?", const=True, default=False)
    flag("--skip_bad", "--skip-bad", help="Leave bad images out, and report them.")
    flag(
        "--colors",
        help="Add how often images have the colour that their captions name, of the pairs whose "
        "caption names one, by a classifier fitted on the training images of --reference.",
    )
    add("--output", type=str, help="JSON file for the scores.")
    add("--workers", type=int, help="Processes that score. Default: one a GPU, else one a CPU.")
    return parser


def _check_options(options: Any) -> Path | None:
    """Refuse what cannot be meant; the file for the scores."""
    kinds = [options.images, options.model, options.text_encoder]
    if sum(kind is not None for kind in kinds) != 1:
        raise UserError("expected one of --images, --model and --text_encoder, and no two")
    if options.images is None and options.reference is None:
        kind = "--model" if options.model is not None else "--text_encoder"
        raise UserError(f"--reference: found none; with {kind} expected a data set with captions")
    if options.text_encoder:
        others = ("limit", "captions_per_image", "workers", "colors")
        idle = [name for name in others if options[name]]
        if idle:
            raise UserError(f"--{idle[0]}: found beside --text_encoder, where it means nothing")
    if options.colors and options.reference is None:
        raise UserError("--reference: found none; with --colors expected a data set with captions")
    if options.colors and options.split == "train":
        raise UserError(
            "--split: found train, whose images --colors is fitted on; expected validation or test"
        )
    check_at_least(options, splits=1, limit=1, captions_per_image=1, seed=0, workers=1)
    if options.output is None:
        return None
    output = Path(absolute(options.output, "--output"))
    if output.is_dir():
        raise UserError(f"--output: {output} is a folder, expected a file such as scores.json")
    return new_output(output)


def _classifier_settings(options: Any) -> dict[str, Any]:
    """What workers need for the classifier score."""
    name, colon, file = options.classifier.partition(":")
    classifier = f"{name}:{absolute(file, '--classifier')}" if colon else name
    return {"classifier": classifier, "splits": options.splits, "seed": options.seed}


def _real_images(options: Any, entries: Sequence[Entry], display: Display) -> RealImages | None:
    if options.reference is None:
        return None
    dataset, rows = reference_rows(
        options.reference, options.split, origins_of(entries), skip_bad=options.skip_bad
    )
    for item in dataset.bad_items:
        display.line(f"left out {item.path}: {item.reason}")
    return RealImages.of(rows)


def _named_colors(options: Any, entries: Sequence[Entry]) -> dict[str, str]:
    """The training images for --colors; none without it."""
    if not options.colors:
        return {}
    return named_colors(options.reference, origins_of(entries), skip_bad=options.skip_bad)


def _left_out(
    one: ScoredSet, real: RealImages | None, options: Any, display: Display
) -> tuple[ScoredSet, list[str]]:
    """The part of a set that is scored, at most --limit images, and why others are left out."""
    one = replace(one, images=one.images[: options.limit])
    check_splits(len(one.images), options.splits, one.name)
    one, reasons = usable(
        one,
        real,
        skip_bad=options.skip_bad,
        workers=options.workers,
        on_progress=display.progress,
    )
    for reason in reasons:
        display.line(f"left out {reason}")
    check_splits(len(one.images), options.splits, f"{one.name}, without bad images")
    return one, reasons


if __name__ == "__main__":
    raise SystemExit(run_command(main, None))
