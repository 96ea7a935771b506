"""What every command shares: errors in words, exit codes."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sdn_ray.config import absolute
from sdn_ray.errors import Interrupted, UserError

USER_ERROR, INTERRUPTED = 2, 130


def check_at_least(options: Any, **least: int) -> None:
    """Refuse options below their least value; those that were not given are left alone.

    Raises:
        UserError: for the first.
    """
    for name, minimum in least.items():
        if options.get(name) is not None and options[name] < minimum:
            raise UserError(f"--{name}: found {options[name]}, expected at least {minimum}")


def new_folder(output: str) -> Path:
    """The folder of --output, for something new.

    Raises:
        UserError: when something is there.
    """
    folder = Path(absolute(output, "--output"))
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(
            f"--output: {folder} already holds files; expected a new or empty folder. "
            f"To go on with what is there, use --resume {folder}"
        )
    return folder


def refuse_others(names: Sequence[str], *allowed: str) -> None:
    """Refuse options beside --resume, which would contradict what it goes on with.

    Raises:
        UserError: naming them.
    """
    others = [name for name in names if name.startswith("--") and name not in allowed]
    if others:
        raise UserError(
            f"--resume: found {', '.join(others)} beside it; expected no other option, since the "
            "folder's own files say everything"
        )


def run_command(main: Callable[[Sequence[str]], int], arguments: Sequence[str] | None) -> int:
    """Run a command; what the user got wrong is one line on stderr, not a traceback."""
    try:
        return main(sys.argv[1:] if arguments is None else arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return USER_ERROR
    except (Interrupted, KeyboardInterrupt):
        return INTERRUPTED
