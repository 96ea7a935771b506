"""python -m sdn_ray.evaluate: the paper's scores of generated images, alone or beside real ones."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from sdn_ray.data.references import PARTS
from sdn_ray.errors import UserError
from sdn_ray.runs.command_line import check_at_least, new_file, run_command
from sdn_ray.runs.experiment import absolute, parse
from sdn_ray.runs.terminal import LOADING, Display

DESCRIPTION = (
    "Score images, of folders or drawn by a model on the way: inception score (or the same by "
    "another classifier), and against the real images of a data set SSIM, FSIM, FID and KID."
)


def main(arguments: Sequence[str]) -> int:
    """The command; returns its exit status."""
    options = parse(_parser(), arguments)
    output = _check_options(options)
    with Display() as display:
        display.wait(LOADING)
        from sdn_ray.scoring.run import evaluate  # here: it takes seconds, which are named first

        evaluate(options, output, display)
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
        help="The text_encoder folder of a run of train_text, or a model: scored by itself.",
    )
    add("--reference", type=str, help="Data set with the real images.")
    add("--split", type=str, default="test", help=f"Its part: {', '.join(PARTS)}.")
    add("--captions_per_image", type=int, help="With --model: the first N captions of each image.")
    add("--limit", type=int, help="Score the first N images of each set alone.")
    add(
        "--classifier", type=str, help="NAME or NAME:WEIGHTS. Default: the Inception of TensorFlow."
    )
    add("--splits", type=int, default=10, help="Splits of the classifier score.")
    add("--seed", type=int, default=0, help="Of the shuffle before the splits.")
    flag = partial(add, type=bool, nargs="?", const=True, default=False)
    flag("--skip_bad", "--skip-bad", help="Leave bad images out, and report them.")
    flag(
        "--colors",
        help="Add how often images have the colour that their captions name, of the pairs whose "
        "caption names one, by a classifier fitted on the training images of --reference.",
    )
    add(
        "--compare_size",
        type=int,
        help="Pixels a side at which SSIM and FSIM compare images with real ones (both bicubic, "
        "antialiased), such as 224, so that sets of different sizes can be compared. Default: the "
        "size of each image.",
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
    if options.text_encoder is not None:
        others = ("limit", "captions_per_image", "workers", "colors", "compare_size")
        idle = [name for name in others if options[name]]
        if idle:
            raise UserError(f"--{idle[0]}: found beside --text_encoder, where it means nothing")
    needs = next((name for name in ("colors", "compare_size") if options[name]), None)
    if needs and options.reference is None:
        raise UserError(
            f"--reference: found none; with --{needs} expected a data set with captions"
        )
    if options.colors and options.split == "train":
        raise UserError(
            "--split: found train, whose images --colors is fitted on; expected validation or test"
        )
    if options.seed >= 1 << 32:
        raise UserError(f"--seed: found {options.seed}, expected less than 2^32")
    check_at_least(options, splits=1, limit=1, captions_per_image=1, seed=0, workers=1)
    if options.output is None:
        return None
    return new_file(Path(absolute(options.output, "--output")), "a file such as scores.json")


if __name__ == "__main__":
    raise SystemExit(run_command(main, None))
