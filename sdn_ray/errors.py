"""What ends a command early: something wrong with its input, or the user's wish."""


class UserError(Exception):
    """Bad input: the message names the option or file, what was found and what was expected.

    Commands print the message alone, without a traceback, and exit with status 2.
    """


class OptionError(UserError):
    """An option whose value its section refuses.

    Args:
        section: the name of its dataclass.
        option: its own name.
        reason: what was found and what was expected.
    """

    def __init__(self, section: str, option: str, reason: str) -> None:
        super().__init__(f"{section}.{option}: {reason}")
        self.option, self.reason = option, reason


class Interrupted(Exception):
    """The user pressed Ctrl-C and the work has come to a clean stop."""


def one_line(error: BaseException, most: int | None = None) -> str:
    """What an error of another library says, on one line and at most so many characters long."""
    return " ".join(str(error).split())[:most]
