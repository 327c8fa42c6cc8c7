"""The ways a run may fail by its user's or its data's doing.

A command ends with one line and an exit code for each (`command_line`); any other exception is
a bug of ours and keeps its traceback.
"""

import importlib
import re
from types import ModuleType


class BadInput(ValueError):
    """A flag, config field, file or directory that cannot be used. Exit code 2.

    The message names the field or path, says what was wrong and what to do; a command
    prints it on one line.
    """

    exit_code = 2


class BitsRefused(BadInput):
    """A method cannot have codes of that length on this data; a table says "n/a" there."""


class NonFinite(ArithmeticError):
    """Training met a loss that is not finite. Exit code 3.

    The message is one line that names the range of steps and the last good
    checkpoint.
    """

    exit_code = 3


def optional(name: str, needs: str, extra: str) -> ModuleType:
    """A module of an optional package.

    Args:
        needs: what needs it, for the message.
        extra: of this package, which installs it.

    Raises:
        BadInput: it cannot be imported.
    """
    try:
        return importlib.import_module(name)
    except ImportError as e:
        package = name.partition(".")[0]
        raise BadInput(f"{needs} needs {package}; run pip install 'sigah_jax[{extra}]'") from e


def printable(text: str) -> str:
    """The text on one line: control characters, line ends and bytes that are not UTF-8 as escapes.

    What a stranger wrote, a server or a file name, may otherwise steer the terminal.
    """
    unsafe = r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]"
    return re.sub(unsafe, lambda match: match[0].encode("unicode_escape").decode(), text)
