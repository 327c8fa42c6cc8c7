import pytest

from sigah_jax.errors import BadInput, BitsRefused, NonFinite, command


@pytest.mark.parametrize(
    "failure, code, line",
    [
        (BadInput("--k=0: expected more"), 2, "error: --k=0: expected more\n"),
        (BitsRefused("itq: bits=9"), 2, "error: itq: bits=9\n"),
        (NonFinite("steps 3 to 4"), 3, "error: steps 3 to 4\n"),
        (KeyboardInterrupt(), 130, "interrupted; nothing was written\n"),
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
