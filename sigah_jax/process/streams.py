"""Standard output and error that never stop the work: closed, broken, full or of few letters.

Imports nothing of the package: commands call it before their heavy imports. Not responsible for
what is printed.
"""

import contextlib
import io
import os
import sys


def outlive() -> None:
    """Makes standard output and error of a command usable, whatever they are.

    A stream that fails goes to the null device from then on, and the command continues; of
    standard output, standard error gets one line. A letter that the terminal's encoding does not
    have is shown as an escape. A descriptor that is closed is opened on the null device: the next
    file that is opened would get its number, and all that C libraries print.
    """
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            # takes the lowest free number, which is this one
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    for fd, name in ((1, "stdout"), (2, "stderr")):
        old = getattr(sys, name)
        if old is not None:
            with contextlib.suppress(OSError):
                old.flush()
        setattr(sys, name, _Outliving(fd, name, old))


def show(text: str) -> None:
    """Prints a line of progress, also in a user's own program, whose output may be anything."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    shown = text.encode(encoding, "backslashreplace").decode(encoding)
    with contextlib.suppress(OSError):  # the log has the line
        print(shown, flush=True)


class _Outliving(io.TextIOWrapper):
    """Text to a descriptor, which becomes the null device at the first error."""

    def __init__(self, fd: int, name: str, old: io.TextIOWrapper | None):
        os.set_blocking(fd, True)  # a terminal that is slow has not failed
        at_once = getattr(old, "write_through", False)  # as `python -u` asks for
        binary = open(fd, "wb", buffering=0 if at_once else -1, closefd=False)  # noqa: SIM115
        super().__init__(
            binary,
            getattr(old, "encoding", "utf-8"),
            "backslashreplace",
            line_buffering=name == "stderr" or binary.isatty(),
            write_through=at_once,
        )
        self._name = name

    def write(self, text: str) -> int:
        with self._enduring():
            super().write(text)
        return len(text)

    def flush(self) -> None:
        with self._enduring():
            super().flush()

    @contextlib.contextmanager
    def _enduring(self):
        try:
            yield
        except OSError as e:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.fileno())
            os.close(null)
            if self._name == "stdout":
                print(
                    f"warning: standard output is lost ({e.strerror}); the command continues",
                    file=sys.stderr,
                )
