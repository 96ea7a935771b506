"""Captions as users give them."""

from collections.abc import Sequence

from sdn_ray.errors import UserError

LONGEST_CAPTION = 2000  # characters; encoders read some hundreds


def given_captions(texts: Sequence[str], option: str) -> list[str]:
    """Captions that a user gives, without the spaces around them.

    Raises:
        UserError: one is empty, or no text.
    """
    for text in texts:
        if not text.strip():
            raise UserError(f"{option}: found an empty caption, expected some words")
        if len(text) > LONGEST_CAPTION or "\0" in text:
            found = f"{len(text)} characters" if "\0" not in text else "a zero byte in a caption"
            raise UserError(f"{option}: found {found}, expected text, at most {LONGEST_CAPTION}")
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise UserError(
                f"{option}: found {text!a}, which is no text ({error.reason}); expected UTF-8"
            ) from error
    return [text.strip() for text in texts]
