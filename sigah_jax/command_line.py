"""What all commands share: flags, and failures that end in one line and an exit code."""

import argparse
import errno
import functools
import itertools
import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from sigah_jax.errors import BadInput, NonFinite, printable
from sigah_jax.process import interrupts

_PATH_ERRORS = (errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR)
_PATH_ERRORS += (errno.EEXIST, errno.ELOOP)
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG)


class Parser(argparse.ArgumentParser):
    """A parser of flags that raises BadInput for what it cannot take: one line, without usage.

    A flag without a value, `--queries=$UNSET`, is not a flag that was left out.
    """

    def parse_known_args(self, args=None, namespace=None):
        given = list(map(str, sys.argv[1:] if args is None else args))
        for before, text in itertools.pairwise(["", *given]):
            flag = before if text == "" else text.removesuffix("=")
            if flag != text and re.fullmatch("--[a-z_]+", flag):
                raise BadInput(f"{flag}: is empty; give a value, or leave it out")
        return super().parse_known_args(args, namespace)

    def error(self, message: str):
        raise BadInput(f"{message.removeprefix('argument ')}; see --help")


def add_encoder(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """The flags that name an encoder: `--workdir` and `--checkpoint`."""
    parser.add_argument(
        "--workdir", required=required, type=Path, help="run directory, or an encoder's .npz file"
    )
    parser.add_argument(
        "--checkpoint",
        help="of the run: best, latest or a step; default: the encoder of a finished training",
    )


def at_least(low: int) -> Callable[[str], int]:
    """The `type` of a flag that takes a whole number, `low` or more."""

    def integer(text: str) -> int:
        if int(text) < low:
            raise argparse.ArgumentTypeError(f"expected {low} or more, got {text}")
        return int(text)

    return integer


def whole_numbers(text: str) -> list[int]:
    """The `type` of a flag that takes whole numbers above 0: `64,128`, each once, as given."""
    if not all(k.isdecimal() and int(k) for k in text.split(",")):
        raise argparse.ArgumentTypeError(
            f"expected whole numbers above 0, with commas between, got {text}"
        )
    return list(dict.fromkeys(map(int, text.split(","))))


def tell(e: Exception) -> int | None:
    """Prints, on one line of stderr, what a command says of a failure by its user's doing.

    Returns:
        Its exit code; None for any other exception, a bug of ours, of which nothing is printed.
    """
    if isinstance(e, OSError):
        e = of_path(e) or e
    elif isinstance(e, MemoryError):
        e = out_of_memory(e)
    if not isinstance(e, BadInput | NonFinite):
        return None
    print(f"error: {printable(str(e))}", file=sys.stderr)
    return e.exit_code


def of_path(e: OSError) -> BadInput | None:
    """What to say of a path that cannot be used as it is asked for, or of a disk that refuses.

    None for any other error.
    """
    if not e.filename:
        return None
    name = os.fsdecode(e.filename)[:200]
    if e.errno in _PATH_ERRORS:
        return BadInput(f"{name}: {e.strerror}; check the path and its permissions")
    if e.errno in _DISK_ERRORS:
        return BadInput(
            f"{name}: cannot be written ({e.strerror}); free space or check the disk, then the "
            "same command resumes"
        )
    return None


def out_of_memory(e: MemoryError) -> BadInput:
    """What to say where the host has too little memory."""
    reason = f" ({e})" if str(e) else ""
    return BadInput(
        f"out of memory{reason}; ask for fewer rows, queries or neighbours at once, or take a "
        "machine with more"
    )


def command(interrupted: str) -> Callable:
    """Makes a `main` whose failures by its user's doing end in a line on stderr and an exit code.

    Args:
        interrupted: what Ctrl-C and SIGTERM leave behind, or how to resume.

    Returns:
        decorator of a function that returns its exit code, or None for 0.
    """

    def decorate(main: Callable) -> Callable:
        @functools.wraps(main)
        def run(*args, **kwargs) -> int:
            interrupts.say(interrupted)
            try:
                return main(*args, **kwargs) or 0
            except KeyboardInterrupt:  # of a caller that did not `interrupts.begin`
                print(f"interrupted; {interrupted}", file=sys.stderr)
                return interrupts.CODES[signal.SIGINT]
            except Exception as e:
                if (code := tell(e)) is None:
                    raise
                return code

        return run

    return decorate
