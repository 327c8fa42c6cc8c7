"""The ways a run may fail by its user's or its data's doing.

`main` prints either as one line and exits with its code; any other exception is
a bug of ours and keeps its traceback.
"""


class BadInput(ValueError):
    """A flag, config field, file or directory that cannot be used. Exit code 2.

    The message is one line that names the field or path, says what was wrong and
    what to do.
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
