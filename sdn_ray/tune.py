"""python -m sdn_ray.tune: a search over experiments, or a grid of them, on Ray Tune with Optuna."""

from collections.abc import Sequence

from jsonargparse import ArgumentParser

from sdn_ray.runs.command_line import parse_with_default_config, run_command
from sdn_ray.runs.experiment import experiment_parser
from sdn_ray.runs.terminal import LOADING, Display

PROG = "python -m sdn_ray.tune"
DESCRIPTION = (
    "Search learning rates, layer weights, stage lengths or any other option of an experiment, "
    "with Optuna's TPE and pruning through Ray Tune. The objective is measured on validation "
    "classes; the test classes are never looked at."
)


def main(arguments: Sequence[str]) -> int:
    """The command; returns its exit status."""
    options, names = parse_with_default_config(_parser(), arguments)
    with Display() as display:
        display.wait(LOADING)
        from sdn_ray.search.run import tune  # here: it takes seconds, which are named first

        tune(options, names, display)
    return 0


def _parser() -> ArgumentParser:
    parser = experiment_parser(PROG, DESCRIPTION)
    add = parser.add_argument
    add("--space", type=str, help="Search space: a YAML file such as those in search_spaces/.")
    add("--trials", type=int, default=20, help="Trials in all; a grid has its own number.")
    add("--output", type=str, help="New study folder. Default: runs/tune-<time>.")
    add("--resume", type=str, help="Study folder to go on with.")
    add(
        "--objective",
        type=str,
        help="classifier_score or perceptual_distance.",
    )
    add("--concurrent", type=int, default=1, help="Trials at a time; CPUs are shared equally.")
    add(
        "--gpus_per_worker",
        type=float,
        help="Of each trial's workers, such as 0.5. Default: 1 where there are any GPUs.",
    )
    add("--study_storage", type=str, help="Optuna URL. Default: a SQLite file in --output.")
    add(
        "--score_test",
        type=bool,
        default=False,
        help="Of a grid (an ablation, not a search): "
        "score every trial on the test classes, and end in their table.",
    )
    add(
        "--equal_minutes",
        type=float,
        help="Of a grid with rows: how long each trains. Their epochs, which then count in "
        "proportion alone, become as many as fit into it here.",
    )
    add(
        "--best_of",
        type=int,
        default=1,
        help="With --score_test: pictures of each caption, such as 16, of which the figure shows "
        "the one with the highest FSIM to the real image.",
    )
    add("--sampler", type=str, default="tpe", help="tpe or random.")
    add("--prune", type=bool, default=True, help="End trials early that promise little (ASHA).")
    return parser


if __name__ == "__main__":
    raise SystemExit(run_command(main, None))
