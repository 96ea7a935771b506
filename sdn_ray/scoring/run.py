"""What generate, evaluate and figures do once their options are known."""

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from sdn_ray.cluster.resources import stop_ray
from sdn_ray.data.references import RealImages
from sdn_ray.data.splits import NOT_ZERO_SHOT
from sdn_ray.errors import UserError
from sdn_ray.files import write_text
from sdn_ray.metrics.scoring import SetScores, check_splits
from sdn_ray.metrics.ssim import WINDOW
from sdn_ray.models.classifiers import INCEPTION, load_classifier
from sdn_ray.models.export import load_model
from sdn_ray.runs.experiment import absolute
from sdn_ray.runs.terminal import Display
from sdn_ray.runs.tracking import Recorder
from sdn_ray.scoring.captions import (
    Request,
    file_requests,
    reference_rows,
    row_requests,
)
from sdn_ray.scoring.colors import fit_colors, named_colors
from sdn_ray.scoring.drawing import FORMATS, DrawingSettings, check_output, draw_requests
from sdn_ray.scoring.figures import FIGURES
from sdn_ray.scoring.image_sets import (
    Entry,
    ScoredSet,
    image_entries,
    model_entry,
    open_set,
    origins_of,
    usable,
)
from sdn_ray.scoring.locations import given_option, with_given_locations
from sdn_ray.scoring.report import SetReport, print_reports, set_report
from sdn_ray.scoring.score import score_sets
from sdn_ray.scoring.text_encoder import score_text_encoder
from sdn_ray.text.captions import given_captions

_MOST_PIXELS = 1024  # a side, at which images are compared


def generate(options: Any, display: Display) -> None:
    """Draw the images of `sdn_ray.generate`.

    Raises:
        UserError: an option, the model or the captions are not as expected.
    """
    folder = Path(absolute(options.model, "--model"))
    output = Path(absolute(options.output, "--output"))
    captions = _given_captions(options)
    given_option(options)
    check_output(output)
    display.wait("reading the model")
    model = load_model(folder)
    model.reader()  # refuses a model that has none
    dataset = None
    if captions is None:
        dataset, rows = reference_rows(options.reference, options.split, {"model": model.origin})
        captions = row_requests(rows, options.captions_per_image)
    requests = with_given_locations(captions, options, model, dataset)
    settings = DrawingSettings(
        options.samples, options.seed, options.format, options.workers, options.first_stage
    )
    count = draw_requests(requests, folder, model, output, settings, display)
    display.line(f"{count} images in {output}, the first on one sheet in {output / 'grid.png'}")
    stop_ray(display)


def _given_captions(options: Any) -> list[Request] | None:
    """The captions of --text or --captions; None where --reference names a data set."""
    given = [name for name in ("text", "captions", "reference") if options[name] is not None]
    if len(given) != 1:
        found = " and ".join(f"--{name}" for name in given) or "none of them"
        raise UserError(f"expected one of --text, --captions and --reference; found {found}")
    if options.format not in FORMATS:
        raise UserError(f"--format: found {options.format}, expected {' or '.join(FORMATS)}")
    if options.text is not None:
        return [Request(text) for text in given_captions(options.text, "--text")]
    return (
        file_requests(absolute(options.captions, "--captions"))
        if options.captions is not None
        else None
    )


def draw_figure(kind: str, options: Any, output: Path, display: Display) -> None:
    """Draw a figure of `sdn_ray.figures`, and record it with the runs of its models.

    Raises:
        UserError: an option, a model or an image is not as expected.
    """
    display.wait("reading models and images")
    runs = FIGURES[kind](options, output, display)
    display.wait("recording in MLflow")
    for run in {run.run_id: run for run in runs if run}.values():
        Recorder(run).file(output, "figures")
    display.line(f"written to {output}")
    stop_ray(display)


def evaluate(options: Any, output: Path | None, display: Display) -> list[SetReport]:
    """Score what `sdn_ray.evaluate` is given: print, write and record the scores.

    Args:
        options: of the command.
        output: a file for them.
        display: shows how far it has come, and the table.

    Returns:
        A report of each set of images; none of a text encoder.

    Raises:
        UserError: an option, a model or an image is not as expected.
    """
    options.classifier = options.classifier or INCEPTION
    _check_compare_size(options.compare_size)
    if options.text_encoder is not None:
        score_text_encoder(options, output, display)
        return []
    display.wait("reading models and images")
    entries = (
        [model_entry(options.model)] if options.model is not None else image_entries(options.images)
    )
    try:
        sets, reports = score_entries(options, entries, display)
        print_reports(reports, display.console)
        if output:
            entries_found = {report.name: asdict(report) for report in reports}
            write_text(output, json.dumps(entries_found, indent=1) + "\n")
            display.line(f"written to {output}")
        display.wait("recording in MLflow")
        for one, report in zip(sets, reports, strict=True):
            if one.tracked is not None:
                recorder = Recorder(one.tracked)
                recorder.metrics(report.metrics(), 0)
                if output:
                    recorder.file(output, "evaluate")
    finally:
        stop_ray(display)
    return reports


def _check_compare_size(size: int | None) -> None:
    if size is not None and not WINDOW <= size <= _MOST_PIXELS:
        raise UserError(f"--compare_size: found {size}, expected {WINDOW} to {_MOST_PIXELS}")


def score_entries(
    options: Any, entries: Sequence[Entry], display: Display
) -> tuple[list[ScoredSet], list[SetReport]]:
    """Score sets of images, each by itself.

    Args:
        options: of `sdn_ray.evaluate`, but for those that name sets and output.
        entries: folders of images, or models.
        display: shows how far it has come.

    Returns:
        The sets without what is left out of them, and a report of each.

    Raises:
        UserError: an option, a model or an image is not as expected.
    """
    with ExitStack() as stack:
        real = _real_images(options, entries, display)
        named = _named_colors(options, entries)
        display.wait("reading the classifier")
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
        compared = {"colors": colors, "compare_size": options.compare_size}
        settings = _classifier_settings(options) | compared
        score_sets(sets, gathered, real, settings, options.workers, display)
        reports = [
            set_report(one.name, found, classifier, options, reasons, colors)
            for (one, reasons), found in zip(left_out, gathered, strict=True)
        ]
    return sets, reports


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
    if not dataset.has_classes:
        display.line(f"{options.reference}: images without classes, {NOT_ZERO_SHOT}")
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
        terminal=display,
    )
    for reason in reasons:
        display.line(f"left out {reason}")
    check_splits(len(one.images), options.splits, f"{one.name}, without bad images")
    return one, reasons
