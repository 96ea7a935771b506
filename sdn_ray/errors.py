"""The one exception for what a user or a file got wrong."""


class UserError(Exception):
    """Bad input: the message names the option or file, what was found and what was expected.

    Commands print the message alone, without a traceback, and exit with status 2.
    """
