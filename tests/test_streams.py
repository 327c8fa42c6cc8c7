"""Standard output and error that are closed, broken, full or of few letters, in small processes."""

import io
import os
import subprocess
import sys

import pytest

from sigah_jax.process import streams

BEGIN = "from sigah_jax.process import streams; streams.outlive()\nimport os, sys\n"
# more than a buffer and a pipe hold
WORK = "for i in range(3): print('κ', i, 'x' * 70000, flush=i < 2)\nprint('e', file=sys.stderr)\n"
DONE = "open('done', 'w').write('all of it'); sys.exit(5)"
PYTHON = f'"{sys.executable}" work.py'


@pytest.fixture
def work(tmp_path):
    """Runs a program in a shell; returns its exit code, output and errors."""

    def run(program, redirected, **variables):
        (tmp_path / "work.py").write_text(BEGIN + program, "utf-8")
        python_path = os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")])
        done = subprocess.run(
            ["bash", "-c", f"set -o pipefail; {PYTHON} {redirected}"],
            env=os.environ | {"PYTHONPATH": python_path} | variables,
            cwd=tmp_path,
            capture_output=True,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr.decode()

    return run


@pytest.mark.parametrize(
    "redirected, errors",
    [
        ("| head -c 1 >/dev/null", "warning: standard output is lost (Broken pipe); the command"),
        (">/dev/full", "warning: standard output is lost (No space left on device); the command"),
        (">&-", "e"),
        ("2>/dev/full", ""),
        ("2>&-", ""),
        ("<&- >&- 2>&-", ""),
        (">/dev/full 2>/dev/full", ""),
    ],
)
def test_the_work_is_done_and_its_exit_code_is_kept(work, tmp_path, redirected, errors):
    code, _, stderr = work(WORK + DONE, redirected)
    assert code == 5 and (tmp_path / "done").read_text() == "all of it"
    assert stderr.startswith(errors) and stderr.count("\n") == (
        0 if not errors else 1 + (errors != "e")
    )


def test_what_is_printed_does_not_come_into_a_file_that_is_opened(work, tmp_path):
    # without `outlive` the file would get descriptor 1
    program = "with open('file', 'w') as f:\n    print('line', flush=True)\n"
    program += "    os.write(1, b'of a library')\n    os.system('echo of a child')\n"
    assert work(program, ">&-") == (0, b"", "")
    assert (tmp_path / "file").read_bytes() == b""


@pytest.mark.parametrize(
    "variables, shown",
    [
        ({"PYTHONIOENCODING": "utf-8"}, "κ é ".encode() + rb"\udcff"),
        ({"PYTHONIOENCODING": "ascii"}, rb"\u03ba \xe9 \udcff"),
        ({"PYTHONIOENCODING": "latin-1"}, b"\\u03ba \xe9 \\udcff"),
        (
            {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
            rb"\u03ba \xe9 \udcff",
        ),
    ],
)
def test_the_terminal_gets_what_it_can_show(work, variables, shown):
    assert work("print('κ é \\udcff')", "", **variables) == (0, shown + b"\n", "")


def test_output_of_an_unbuffered_python_comes_at_once(work):
    program = "print('half a line', end='')\nos._exit(0)"
    assert work(program, "", PYTHONUNBUFFERED="1")[1] == b"half a line"
    assert work(program, "", PYTHONUNBUFFERED="")[1] == b""


def test_a_line_of_progress_stops_no_program_of_a_user(monkeypatch):
    with open("/dev/full", "w", encoding="utf-8") as full:
        for stdout in (None, full, io.StringIO()):
            monkeypatch.setattr(sys, "stdout", stdout)
            streams.show("κ \udcff")
        monkeypatch.undo()
        os.dup2(os.open(os.devnull, os.O_WRONLY), full.fileno())  # or closing it fails


def test_a_line_of_progress_has_escapes_where_letters_are_missing(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, "ascii"))
    streams.show("κ \udcff")
    assert raw.getvalue() == b"\\u03ba \\udcff\n"
