"""What ends a command early: something wrong with its input, or the user's wish.

And, for dataclasses of options, what is wrong with a value by its annotation alone.
"""

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from jsonargparse.typing import (
    ClosedUnitInterval,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)


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


@contextmanager
def in_python() -> Iterator[None]:
    """Name options as they are spelled in Python, where users call what commands do: undashed."""
    try:
        yield
    except UserError as error:
        error.args = (_DASHES.sub("", str(error)),)
        raise


_DASHES = re.compile(r"(?<![^\s(])--(?=[a-z])")


def one_line(error: BaseException, most: int | None = None) -> str:
    """What an error of another library says, on one line and at most so many characters long."""
    return " ".join(str(error).split())[:most]


Section = TypeVar("Section", bound=type)


def checked(section: Section) -> Section:
    """A dataclass that refuses numbers out of their ranges and unknown words, whoever makes it."""
    section.__post_init__ = _check  # type: ignore[attr-defined]  # which dataclasses call
    return section


def _check(section: Any) -> None:
    """Try every field against its annotation.

    Raises:
        OptionError: naming the option, what was found and what was expected.
    """
    for spec in fields(section):
        value = getattr(section, spec.name)
        if not _fits(value, spec.type):
            raise OptionError(
                type(section).__name__,
                spec.name,
                f"found {_shown(value)}, expected {_in_words(spec.type)}",
            )


def _shown(value: object) -> str:
    """A value as it stands in an error, nothing where it is null."""
    if isinstance(value, int) and abs(value) > 1e18:
        return "a number of more than 18 digits"
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 100 else f"{text[:100]}…"


def _fits(value: object, kind: Any) -> bool:
    """Whether a value is one that an annotation names."""
    if get_origin(kind) in (Union, UnionType):
        return any(_fits(value, one) for one in get_args(kind))
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if get_origin(kind) is dict:
        key, entry = get_args(kind)
        return isinstance(value, dict) and all(
            _fits(k, key) and _fits(v, entry) for k, v in value.items()
        )
    if kind is NoneType:
        return value is None
    if kind in _RANGES:
        try:
            if not math.isfinite(kind(value)):
                return False
        except (OverflowError, TypeError, ValueError):
            return False
        return isinstance(value, int if issubclass(kind, int) else int | float) and not isinstance(
            value, bool
        )
    return isinstance(value, kind)


def _in_words(kind: Any) -> str:
    if get_origin(kind) in (Union, UnionType):
        return " or ".join(_in_words(one) for one in get_args(kind))
    if get_origin(kind) is Literal:
        return ", ".join(get_args(kind))
    if get_origin(kind) is dict:
        return f"{_in_words(get_args(kind)[1])} for each name"
    return _WORDS.get(kind) or ("options" if is_dataclass(kind) else kind.__name__)


_RANGES: dict[Any, str] = {
    ClosedUnitInterval: "a number from 0 to 1",
    NonNegativeFloat: "a number of at least 0",
    NonNegativeInt: "a whole number of at least 0",
    PositiveFloat: "a number above 0",
    PositiveInt: "a whole number above 0",
}
_WORDS = _RANGES | {NoneType: "nothing", bool: "true or false", str: "text"}
