"""python -m sdn_ray.train_text: a text encoder from captioned images, on Ray Train."""

from collections.abc import Sequence

from sdn_ray.runs.command_line import read_run_arguments, run_command
from sdn_ray.runs.terminal import LOADING, Display

PROG = "python -m sdn_ray.train_text"
DESCRIPTION = (
    "Train a text encoder on the training classes of a data set: captions against fixed image "
    "features, by the symmetric structured joint embedding loss. The options are those of "
    "sdn_ray.train; `text` says what is trained."
)


def main(arguments: Sequence[str]) -> int:
    """The command; returns its exit status."""
    config, folder, known = read_run_arguments(PROG, DESCRIPTION, arguments)
    with Display() as display:
        display.wait(LOADING)
        from sdn_ray.training.run import train_text  # here: it takes seconds

        train_text(config, folder, display, known=known)
    return 0


if __name__ == "__main__":
    raise SystemExit(run_command(main, None))
