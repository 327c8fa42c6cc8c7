import errno
import importlib
import re
import sys
from pathlib import Path

import pytest

from sigah_jax.command_line import Parser, command
from sigah_jax.errors import BadInput, BitsRefused, NonFinite

ROOT = Path(__file__).parent.parent
SOURCES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): path.read_text("utf-8")
    for top in ("sigah_jax", "experiments", "launch")
    for path in sorted((ROOT / top).rglob("*.py"))
}
COMMANDS = [module for module, text in SOURCES.items() if " = Parser(" in text]


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
        (
            MemoryError("Unable to allocate 89.4 GiB"),
            2,
            "error: out of memory (Unable to allocate 89.4 GiB); ask for fewer rows, queries or "
            "neighbours at once, or take a machine with more\n",
        ),
        (
            MemoryError(),
            2,
            "error: out of memory; ask for fewer rows, queries or neighbours at once, or take a "
            "machine with more\n",
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


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        ([], "the following arguments are required: --k"),
        (["--k=x"], "--k: invalid int value: 'x'"),
        (["--k"], "--k: expected one argument"),
        (["--k=1", "--by=c"], "--by: invalid choice: 'c' .*"),
        (["--k=1", "--no=3", "x"], "unrecognized arguments: --no=3 x"),
    ],
)
def test_flags_that_are_wrong_are_named_on_one_line(argv, line, capsys):
    parser = Parser()
    parser.add_argument("--k", type=int, required=True)
    parser.add_argument("--by", choices=("a", "b"))
    assert command("")(parser.parse_args)(argv) == 2
    out, err = capsys.readouterr()
    assert out == "" and re.fullmatch(f"error: {line}; see --help\n", err)


@pytest.mark.parametrize("argv", [["--k=1", "--by="], ["--by", "", "--k=1"], ["--by", ""]])
def test_a_flag_without_a_value_is_not_one_that_was_left_out(argv, capsys):
    parser = Parser()
    parser.add_argument("--k", type=int)
    parser.add_argument("--by")
    assert command("")(parser.parse_args)(argv) == 2
    line = "error: --by: is empty; give a value, or leave it out\n"
    assert capsys.readouterr() == ("", line)


@pytest.mark.parametrize("module", COMMANDS)
def test_every_command_names_a_wrong_flag_on_one_line(module, monkeypatch, capsys):
    imported = importlib.import_module(module)
    main = getattr(imported, "main", None) or imported.run
    monkeypatch.setattr(sys, "argv", [module, "--no_such_flag=3"])
    assert main() == 2
    # where others are required, it names those
    words = "(unrecognized arguments: --no_such_flag=3|the following arguments are required: .+)"
    out, err = capsys.readouterr()
    assert out == "" and re.fullmatch(f"error: {words}; see --help\n", err)


def test_no_command_has_another_parser():
    assert len(COMMANDS) > 15
    with_one = [m for m, text in SOURCES.items() if "ArgumentParser" in text]
    assert with_one == ["sigah_jax.command_line"]
