"""python -m sdn_ray.serve: a page on which people try captions, and its JSON API."""

from collections.abc import Sequence

from jsonargparse import ArgumentParser

from sdn_ray.runs.command_line import (
    add_address_options,
    add_index_options,
    check_at_least,
    run_command,
)
from sdn_ray.runs.experiment import parse
from sdn_ray.runs.terminal import LOADING, Display

DESCRIPTION = (
    "A page on which people try captions: pictures of several models side by side, the way from "
    "one caption to another, the nearest training images. Ray Serve draws in one batch what many "
    "ask for. The JSON API is told by /openapi.json."
)


def main(arguments: Sequence[str]) -> int:
    """The command; returns its exit status."""
    options = parse(_parser(), arguments)
    check_at_least(options, replicas=1, requests_per_second=1, epochs=1, fc_width=1)
    with Display() as display:
        display.wait(LOADING)
        from sdn_ray.serving.run import serve_models  # here: it takes seconds, named first
    serve_models(options)
    return 0


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="python -m sdn_ray.serve", description=DESCRIPTION, exit_on_error=False
    )
    add = parser.add_argument
    add(
        "--model",
        type=str,
        nargs="+",
        action="extend",
        required=True,
        help="Model folders, RUN/model or NAME=RUN/model, or URIs of them.",
    )
    add_address_options(parser, 8000)
    add("--replicas", type=int, help="Of each model. Default: one a GPU; on CPUs one or two.")
    add("--cpus_per_replica", type=float, help="Default: an equal share of the cluster's.")
    add("--requests_per_second", type=int, default=50, help="Of one client, on the long run.")
    add(
        "--reference",
        type=str,
        help="Data set whose training images are looked for beside a picture (Figure 7).",
    )
    add_index_options(parser, required=False)
    return parser


if __name__ == "__main__":
    raise SystemExit(run_command(main, None))
