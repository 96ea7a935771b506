"""What every command shares: errors in words, exit codes."""

import sys
from collections.abc import Callable, Sequence

from sdn_ray.errors import Interrupted, UserError

USER_ERROR, INTERRUPTED = 2, 130


def run_command(main: Callable[[Sequence[str]], int], arguments: Sequence[str] | None) -> int:
    """Run a command; what the user got wrong is one line on stderr, not a traceback."""
    try:
        return main(sys.argv[1:] if arguments is None else arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return USER_ERROR
    except (Interrupted, KeyboardInterrupt):
        return INTERRUPTED
