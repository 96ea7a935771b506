"""python -m sdn_ray.generate: captions to images with an exported model, one or many thousands."""

from collections.abc import Sequence

from jsonargparse import ArgumentParser

from sdn_ray.data.references import PARTS
from sdn_ray.runs.command_line import check_at_least, run_command
from sdn_ray.runs.experiment import parse
from sdn_ray.runs.terminal import LOADING, Display

DESCRIPTION = (
    "Draw images for captions with a trained model (the `model` folder of a run): for one caption, "
    "for those of a file, or for those of a part of a data set. Interrupted, the same command goes "
    "on with what is missing."
)


def main(arguments: Sequence[str]) -> int:
    """The command; returns its exit status."""
    options = parse(_parser(), arguments)
    check_at_least(options, captions_per_image=1, workers=1, seed=0)
    with Display() as display:
        display.wait(LOADING)
        from sdn_ray.scoring.run import generate  # here: it takes seconds, which are named first

        generate(options, display)
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
        "--samples",
        type=int,
        default=1,
        help="Images a caption, of a model that is diverse or takes noise.",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="Of the noise, where the model takes some."
    )
    parser.add_argument(
        "--first_stage",
        type=bool,
        default=False,
        help="Of StackGAN: draw its first stage's images.",
    )
    parser.add_argument(
        "--boxes",
        type=str,
        help="Of GAWWN: file with left, top, width and height for each caption, in fractions of "
        "the image; or reference, for those of the images of --reference.",
    )
    parser.add_argument(
        "--keypoints",
        type=str,
        help="Of GAWWN: file with parts for each caption, such as beak 0.2 0.3, tail 0.8 0.6, the "
        "others being generated; or reference.",
    )
    parser.add_argument("--format", type=str, default="png", help="png or parquet.")
    parser.add_argument(
        "--workers", type=int, help="Processes that draw. Default: one a GPU, else one a CPU."
    )
    return parser


if __name__ == "__main__":
    raise SystemExit(run_command(main, None))
