"""python -m sdn_ray.figures: the paper's figures, of models and of folders of images."""

from collections.abc import Callable, Sequence
from pathlib import Path

from jsonargparse import ArgumentParser

from sdn_ray.data.references import PARTS
from sdn_ray.errors import UserError
from sdn_ray.runs.command_line import add_index_options, new_file, run_command
from sdn_ray.runs.experiment import absolute, parse
from sdn_ray.runs.terminal import LOADING, Display

DESCRIPTION = "Draw one of the paper's figures; it is also recorded with the models' MLflow runs."


def main(arguments: Sequence[str]) -> int:
    """The command; returns its exit status."""
    options = parse(_parser(), arguments)
    kind = options.subcommand
    options = options[kind]
    output = Path(absolute(options.output, "--output"))
    if output.suffix.lower() != ".png":
        raise UserError(f"--output: found {options.output}, expected a file that ends in .png")
    new_file(output, "a PNG file")
    with Display() as display:
        display.wait(LOADING)
        from sdn_ray.scoring.run import draw_figure  # here: it takes seconds, named first

        draw_figure(kind, options, output, display)
    return 0


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="python -m sdn_ray.figures", description=DESCRIPTION, exit_on_error=False
    )
    kinds = parser.add_subcommands(required=True)
    for kind, help_text in {
        "comparison": "Figures 3, 4, 6: a row a caption, its real image, a column a model.",
        "diverse": "Figure 5: all samples of a diverse model for each caption.",
        "retrieval": "Figure 7: the training images nearest to a generated one.",
        "interpolation": "Figure 8: from one caption to another in k steps.",
        "worst": "Figure 9: the images that are least like the real ones, by FSIM.",
    }.items():
        own = ArgumentParser(description=help_text, exit_on_error=False)
        own.add_argument("--output", type=str, required=True, help="PNG file.")
        _ADD_OPTIONS[kind](own)
        kinds.add_subcommand(kind, own, help=help_text)
    return parser


def _add_sets(parser: ArgumentParser, many: bool) -> None:
    add = parser.add_argument
    what = "Folders of images or models" if many else "Folder of images, or model"
    add("--images", type=str, nargs="+", required=True, help=f"{what}: DIR or NAME=DIR.")
    add("--reference", type=str, required=True, help="Data set with the real images.")
    add("--split", type=str, default="test", help=f"Its part: {', '.join(PARTS)}.")
    add("--rows", type=int, default=8, help="Rows of the figure.")


def _add_sources(parser: ArgumentParser) -> None:
    _add_sets(parser, many=True)
    parser.add_argument(
        "--sources", type=str, nargs="+", help="Real images to show. Default: evenly spread ones."
    )


def _add_comparison(parser: ArgumentParser) -> None:
    _add_sources(parser)
    parser.add_argument(
        "--best_of",
        type=int,
        default=1,
        help="Pictures of each caption, such as 16, of which each set shows the one with the "
        "highest FSIM to the real image; a set with fewer has the best of those.",
    )


def _add_worst(parser: ArgumentParser) -> None:
    _add_sets(parser, many=False)
    parser.add_argument("--workers", type=int, help="Processes. Default: one a GPU, else a CPU.")


def _add_retrieval(parser: ArgumentParser) -> None:
    _add_sources(parser)
    add_index_options(parser)


def _add_model(parser: ArgumentParser) -> None:
    parser.add_argument("--model", type=str, required=True, help="Model folder: RUN/model.")


def _add_diverse(parser: ArgumentParser) -> None:
    _add_model(parser)
    parser.add_argument("--text", type=str, nargs="+", help="Captions.")
    parser.add_argument("--captions", type=str, help="File with one caption a line.")


def _add_interpolation(parser: ArgumentParser) -> None:
    _add_model(parser)
    add = parser.add_argument
    add("--text", type=str, nargs="+", required=True, help="Captions to start from.")
    add("--to", type=str, nargs="+", required=True, help="For each of them the one to end at.")
    add("--steps", type=int, default=8, help="Images from the first to the second.")


_ADD_OPTIONS: dict[str, Callable[[ArgumentParser], None]] = {
    "comparison": _add_comparison,
    "diverse": _add_diverse,
    "retrieval": _add_retrieval,
    "interpolation": _add_interpolation,
    "worst": _add_worst,
}


if __name__ == "__main__":
    raise SystemExit(run_command(main, None))
