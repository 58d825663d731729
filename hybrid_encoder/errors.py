"""The one error of this package that is meant for the person at the keyboard."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class UserError(ValueError):
    """Something the user can mend: says what was found, what was expected and what to type.

    The command line prints its message without a traceback and exits with status 2.
    """


@contextmanager
def naming(source: object) -> Iterator[None]:
    """Puts what is being read, such as a file's path, in front of the message of a `UserError` from inside."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{source}: {error}") from error
