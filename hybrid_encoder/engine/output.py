"""What a program says to its terminal: no write to it may end a run."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_NOBODY_READS = (errno.EPIPE, errno.EIO, errno.EBADF)
"""A reader such as `head` that has enough, a terminal that is gone, a stream that was closed."""


class SteadyStream:
    """A text stream whose writes do not fail: what cannot be written is lost.

    Attributes:
        error: of the last write that failed.
    """

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.error: Exception | None = None

    def write(self, text: str) -> int:
        """Writes what can be written."""
        with self._keeping_error():
            try:
                self.stream.write(text)
            except UnicodeEncodeError:  # a file's name, in a locale that lacks its letters
                self.stream.write(text.encode("ascii", "backslashreplace").decode("ascii"))
        return len(text)

    def flush(self) -> None:
        """Hands on what was written."""
        with self._keeping_error():
            self.stream.flush()

    def abandon(self) -> None:
        """Lets the interpreter's last flush succeed, once a write has failed."""
        self.flush()
        if self.error is not None:
            with contextlib.suppress(OSError, ValueError):  # a stream of a test, or one that was closed, has no number
                number = self.stream.fileno()
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, number)
                os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    @contextmanager
    def _keeping_error(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:  # ValueError: the stream was closed
            self.error = error


@contextmanager
def steady_output() -> Iterator[None]:
    """Within the block no write to stdout or stderr raises: whether they are closed, full, or their terminal is gone.

    What stdout lost for want of room is told of on stderr.
    """
    _open_standard_files()
    before = sys.stdout, sys.stderr
    out, err = (SteadyStream(stream or open(os.devnull, "w")) for stream in before)  # noqa: SIM115
    sys.stdout, sys.stderr = out, err
    try:
        yield
    finally:
        out.abandon()
        if isinstance(out.error, OSError) and out.error.errno not in _NOBODY_READS:
            print(f"hybrid-encoder: output is lost, stdout could not be written ({out.error.strerror})", file=err)
        err.abandon()
        sys.stdout, sys.stderr = before


def _open_standard_files() -> None:
    """Opens those of the files 0, 1 and 2 that are closed: else the next file opened, such as a state, would be taken
    for the terminal."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)
