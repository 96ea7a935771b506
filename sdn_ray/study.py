"""python -m sdn_ray.study: people put the pictures of several methods in order (Table 2)."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from sdn_ray.data.references import PARTS
from sdn_ray.errors import UserError
from sdn_ray.runs.command_line import add_address_options, check_at_least, new_folder, run_command
from sdn_ray.runs.experiment import absolute, parse
from sdn_ray.runs.terminal import LOADING, Display

DESCRIPTION = "A human study of pictures: make it, put it to raters as a page, report on it."
_QUESTIONS = ("quality", "correlation", "match")


def main(arguments: Sequence[str]) -> int:
    """The command; returns its exit status."""
    options = parse(_parser(), arguments)
    _RUN[options.subcommand](options[options.subcommand])
    return 0


def _create(options: Any) -> None:
    least = {"captions": 2, "raters": 1, "raters_per_caption": 1, "common": 0, "size": 32}
    check_at_least(options, seed=0, **least)
    for question in options.questions:
        if question not in _QUESTIONS:
            expected = ", ".join(_QUESTIONS)
            raise UserError(f"--questions: found {question}, expected some of {expected}")
    folder = new_folder(options.output)
    with Display() as display:
        display.wait(LOADING)
        from sdn_ray.judging.create import create  # here: it takes seconds, named first

        create(options, folder, display)


def _serve(options: Any) -> None:
    from sdn_ray.judging.serve import serve_study

    serve_study(_folder(options), options.host, options.port, options.token, options.database)


def _report(options: Any) -> None:
    folder = _folder(options)
    with Display() as display:
        display.wait(LOADING)
        from sdn_ray.judging.report import report_study

        report_study(folder, options.database, display)


def _folder(options: Any) -> Path:
    return Path(absolute(options.study, "--study"))


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="python -m sdn_ray.study", description=DESCRIPTION, exit_on_error=False
    )
    kinds = parser.add_subcommands(required=True)
    for kind, (help_text, add_options) in {
        "create": ("Choose captions, and hide who drew what.", _add_create),
        "serve": ("Put the study to raters as a page.", _add_serve),
        "report": ("Mean ranks, intervals, tests and agreement.", _add_study),
    }.items():
        own = ArgumentParser(description=help_text, exit_on_error=False)
        add_options(own)
        kinds.add_subcommand(kind, own, help=help_text)
    return parser


def _add_create(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--images",
        type=str,
        nargs="+",
        required=True,
        help="Folders of images of the same captions, one a method: DIR or NAME=DIR.",
    )
    add("--reference", type=str, required=True, help="Data set with the real images.")
    add("--split", type=str, default="test", help=f"Its part: {', '.join(PARTS)}.")
    add("--captions", type=int, default=1000, help="How many are judged.")
    add("--common", type=int, default=50, help="How many of them by every rater, for agreement.")
    add("--raters", type=int, default=10, help="Among whom the captions are dealt.")
    add("--raters_per_caption", type=int, default=3, help="Of the captions that are not common.")
    add(
        "--questions",
        type=str,
        nargs="+",
        default=["quality", "correlation"],
        help=f"Blocks of trials: {', '.join(_QUESTIONS)}.",
    )
    add("--size", type=int, default=256, help="Pixels a side at which all pictures are shown.")
    add("--seed", type=int, default=0, help="Of captions, orders and checks.")
    add("--output", type=str, required=True, help="Folder of the study.")


def _add_study(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("--study", type=str, required=True, help="Folder that `create` made.")
    add(
        "--database",
        type=str,
        help="URL of SQLAlchemy for the answers. Default: answers.db in the study's folder.",
    )


def _add_serve(parser: ArgumentParser) -> None:
    _add_study(parser)
    add_address_options(parser, 8001)


_RUN: dict[str, Callable[[Any], None]] = {
    "create": _create,
    "serve": _serve,
    "report": _report,
}


if __name__ == "__main__":
    raise SystemExit(run_command(main, None))
