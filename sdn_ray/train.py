"""python -m sdn_ray.train: from captioned images to a trained generator, on Ray Train."""

from collections.abc import Sequence

from sdn_ray.runs.command_line import read_run_arguments, run_command
from sdn_ray.runs.terminal import LOADING, Display

PROG = "python -m sdn_ray.train"
DESCRIPTION = (
    "Train a Symmetrical Distillation Network. Without --config it runs jobs/quickstart.yaml: the "
    "embedded data set and the whole pipeline, in minutes on two cores."
)


def main(arguments: Sequence[str]) -> int:
    """The command; returns its exit status."""
    config, folder, known = read_run_arguments(PROG, DESCRIPTION, arguments)
    with Display() as display:
        display.wait(LOADING)
        from sdn_ray.training.run import train  # here: it takes seconds, which are named first

        train(config, folder, display, known=known)
    return 0


if __name__ == "__main__":
    raise SystemExit(run_command(main, None))
