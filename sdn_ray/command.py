"""What every command shares: errors in words, exit codes."""

import sys
from collections.abc import Callable, Sequence
from typing import Any

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


def run_command(main: Callable[[Sequence[str]], int], arguments: Sequence[str] | None) -> int:
    """Run a command; what the user got wrong is one line on stderr, not a traceback."""
    try:
        return main(sys.argv[1:] if arguments is None else arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return USER_ERROR
    except (Interrupted, KeyboardInterrupt):
        return INTERRUPTED
