"""python -m sdn_ray.generate: captions to images with an exported model, one or many thousands."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from sdn_ray.data.references import PARTS
from sdn_ray.errors import UserError
from sdn_ray.models.export import Model, load_model
from sdn_ray.runs.command_line import check_at_least, run_command
from sdn_ray.runs.experiment import absolute, parse
from sdn_ray.runs.terminal import Display
from sdn_ray.scoring.captions import (
    Request,
    file_requests,
    given_captions,
    reference_rows,
    row_requests,
)
from sdn_ray.scoring.drawing import FORMATS, DrawingSettings, check_output, draw_requests

DESCRIPTION = (
    "Draw images for captions with a trained model (the `model` folder of a run): for one caption, "
    "for those of a file, or for those of a part of a data set. Interrupted, the same command goes "
    "on with what is missing."
)


def main(arguments: Sequence[str]) -> int:
    """The command; returns its exit status."""
    options = parse(_parser(), arguments)
    check_at_least(options, captions_per_image=1, workers=1)
    folder = Path(absolute(options.model, "--model"))
    output = Path(absolute(options.output, "--output"))
    captions = _given_captions(options)
    check_output(output)
    model = load_model(folder)
    model.reader()  # refuses a model that has none
    requests = captions or _reference_captions(options, model)
    settings = DrawingSettings(options.samples, options.format, options.workers)
    with Display() as display:
        count = draw_requests(requests, folder, model, output, settings, display)
    print(f"{count} images in {output}, the first on one sheet in {output / 'grid.png'}")
    return 0


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="python -m sdn_ray.generate", description=DESCRIPTION, exit_on_error=False
    )
    parser.add_argument("--model", type=str, required=True, help="Model folder: RUN/model.")
    parser.add_argument("--text", type=str, nargs="+", help="Captions.")
    parser.add_argument("--captions", type=str, help="File with one caption a line.")
    parser.add_argument("--reference", type=str, help="Data set whose captions are drawn.")
    parser.add_argument("--split", type=str, default="test", help=f"Its part: {', '.join(PARTS)}.")
    parser.add_argument(
        "--captions_per_image", type=int, help="Of each of its images the first N captions."
    )
    parser.add_argument("--output", type=str, required=True, help="Folder for the images.")
    parser.add_argument(
        "--samples", type=int, default=1, help="Images a caption, of a diverse model."
    )
    parser.add_argument("--format", type=str, default="png", help="png or parquet.")
    parser.add_argument(
        "--workers", type=int, help="Processes that draw. Default: one a GPU, else one a CPU."
    )
    return parser


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


def _reference_captions(options: Any, model: Model) -> list[Request]:
    _, rows = reference_rows(options.reference, options.split, {"model": model.origin})
    return row_requests(rows, options.captions_per_image)


if __name__ == "__main__":
    raise SystemExit(run_command(main, None))
