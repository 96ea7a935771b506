"""python -m sdn_ray.evaluate: the paper's scores of generated images, alone or beside real ones."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from jsonargparse import ArgumentParser

from sdn_ray.data.references import PARTS
from sdn_ray.errors import UserError, in_python
from sdn_ray.runs.command_line import check_at_least, new_file, run_command, typed
from sdn_ray.runs.experiment import absolute, parse
from sdn_ray.runs.terminal import LOADING, Display

if TYPE_CHECKING:
    from sdn_ray.scoring.report import SetReport

DESCRIPTION = (
    "Score images, of folders or drawn by a model on the way: inception score (or the same by "
    "another classifier), and against the real images of a data set SSIM, FSIM, FID and KID."
)


def main(arguments: Sequence[str]) -> int:
    """The command; returns its exit status."""
    _evaluate(arguments)
    return 0


@overload
def evaluate(
    images: str | Path, reference: str | Path | None = None, **options: Any
) -> "SetReport": ...


@overload
def evaluate(
    images: Sequence[str | Path] | Mapping[str, str | Path],
    reference: str | Path | None = None,
    **options: Any,
) -> "dict[str, SetReport]": ...


@in_python()
def evaluate(
    images: str | Path | Sequence[str | Path] | Mapping[str, str | Path],
    reference: str | Path | None = None,
    **options: Any,
) -> "SetReport | dict[str, SetReport]":
    """Score images: `python -m sdn_ray.evaluate` as a function, which shows the same table.

    Args:
        images: a folder of images or the `model` folder of a run; or several, of which a dictionary
            names each.
        reference: data set with the real images.
        options: of the command, such as ``colors=True`` or ``output="scores.json"``; its --help
            explains them.

    Returns:
        What the command writes of a set of images: its ``scores`` by name, ``real_scores``, and
        what they depend on. Of several, a dictionary by their names.

    Raises:
        UserError: an option, a model or an image is not as expected.

    Example:
        >>> options = {"classifier": "squeezenet1_1:weights.safetensors", "splits": 2}
        >>> report = sdn_ray.evaluate("images", "DIR", **options)
        >>> 0 < report.scores["ssim"] < 1
        True
    """
    if isinstance(images, str | Path):
        sets = [_set_argument(images)]
    elif isinstance(images, Mapping):
        sets = [f"{name}={folder}" for name, folder in images.items()]
    else:
        sets = [_set_argument(folder) for folder in images]
    given = {"reference": reference} | options
    arguments = typed({name: value for name, value in given.items() if value is not None})
    reports = _evaluate(["--images", *sets, *arguments])
    return reports[0] if isinstance(images, str | Path) else {one.name: one for one in reports}


def _set_argument(folder: str | Path) -> str:
    """A folder as it is typed: a path is one, and no NAME=DIR, whatever is in it."""
    return str(folder.absolute()) if isinstance(folder, Path) else folder


def _evaluate(arguments: Sequence[str]) -> "list[SetReport]":
    """Score as arguments say."""
    options = parse(_parser(), arguments)
    output = _check_options(options)
    with Display() as display:
        display.wait(LOADING)
        from sdn_ray.scoring import run  # here: it takes seconds, which are named first

        return run.evaluate(options, output, display)


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
