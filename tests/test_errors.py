import errno
from pathlib import Path

import pytest

from sigah_jax.errors import BadInput, BitsRefused, NonFinite, command


@pytest.mark.parametrize(
    "failure, code, line",
    [
        (BadInput("--k=0: expected more"), 2, "error: --k=0: expected more\n"),
        (BadInput("a\nb\x1b[31m: no such run"), 2, "error: a\\nb\\x1b[31m: no such run\n"),
        (BitsRefused("itq: bits=9"), 2, "error: itq: bits=9\n"),
        (NonFinite("steps 3 to 4"), 3, "error: steps 3 to 4\n"),
        (KeyboardInterrupt(), 130, "interrupted; nothing was written\n"),
        (
            PermissionError(errno.EACCES, "Permission denied", "shut/x.npy"),
            2,
            "error: shut/x.npy: Permission denied; check the path and its permissions\n",
        ),
    ],
)
def test_a_failure_of_the_users_doing_is_a_line_and_an_exit_code(failure, code, line, capsys):
    @command("nothing was written")
    def main(argv):
        raise failure

    assert main([]) == code
    assert capsys.readouterr() == ("", line)


@pytest.mark.parametrize("returned, code", [(None, 0), (0, 0), (1, 1)])
def test_a_command_that_ends_returns_its_code(returned, code):
    assert command("")(lambda: returned)() == code


def test_a_bug_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        command("")(lambda: 1 / 0)()
    with pytest.raises(FileNotFoundError):
        command("")(lambda: Path("/nowhere").stat())()


def test_a_name_that_is_too_long_is_named(capsys):
    assert command("")(lambda: Path("x" * 300).exists())() == 2
    assert "x: File name too long; check the path" in capsys.readouterr().err
