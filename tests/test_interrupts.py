"""What a command says and leaves at Ctrl-C and SIGTERM, in processes that load nothing heavy."""

import os
import signal
import subprocess
import sys
import time

import pytest

from sigah_jax.process import interrupts

BEGIN = (
    "from sigah_jax.process import interrupts; interrupts.begin(); interrupts.say('try again')\n"
)
SIGNALS = [
    (signal.SIGINT, 130, "interrupted; try again\n"),
    (signal.SIGTERM, 143, "terminated; try again\n"),
]


def start(text):
    """A Python process that has printed a line."""
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", text],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    process.stdout.readline()
    return process


@pytest.mark.parametrize("signum, code, line", SIGNALS)
@pytest.mark.parametrize(
    "work",
    [
        "time.sleep(60)",
        # as in JAX's callbacks, where an exception would be swallowed
        "while True:\n    try:\n        time.sleep(.01)\n    except BaseException:\n        pass",
        # in C, without a look at Python's handlers, as a compilation
        "import ctypes\nwhile True:\n    ctypes.CDLL(None).sleep(60)",
    ],
)
def test_a_command_leaves_at_once_with_one_line(signum, code, line, work):
    process, moment = start(f"{BEGIN}import time\nprint('ready')\n{work}"), time.monotonic()
    process.send_signal(signum)
    assert process.communicate(timeout=20)[1] == line
    assert process.returncode == code and time.monotonic() - moment < 10


def test_its_temporary_files_are_removed_and_what_was_printed_is_not_lost(tmp_path):
    text = "import os, pathlib, time\nfrom sigah_jax.files import whole\n"
    text += f"with whole.writing(pathlib.Path({str(tmp_path)!r}) / 'a') as f:\n"
    text += "    f.write(b'1'); f.flush(); print('half a line', end='')\n"
    text += "    os.write(1, b'ready\\n'); time.sleep(60)"
    process = subprocess.Popen(
        [sys.executable, "-c", BEGIN + text],
        env=os.environ | {"PYTHONUNBUFFERED": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout.readline() == b"ready\n"
    assert list(tmp_path.iterdir())
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=20)[0] == b"half a line"
    assert process.returncode == 130 and not list(tmp_path.iterdir())


def test_signals_can_be_handled_for_a_while():
    text = "came = []\nwith interrupts.handling(lambda *_: came.append(1), 15):\n"
    text += "    print('ready')\n    import time\n    while not came: time.sleep(.01)\n"
    text += "print('saved'); time.sleep(60)"
    process = start(BEGIN + text)
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "saved\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 143


def test_a_signal_that_was_handled_is_not_taken_again_by_a_thread_that_is_late():
    late = "import os, time; read = os.read\n"
    late += "def slowly(*args):\n    data = read(*args); time.sleep(.3); return data\n"
    late += "os.read = slowly\n"
    text = "came = []\nwith interrupts.handling(lambda *_: came.append(1), 15):\n"
    text += "    print('ready')\n    while not came: time.sleep(.01)\n"
    process = start(late + BEGIN + text + "time.sleep(.6); print('alive')")
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=20)[0] == "alive\n" and process.returncode == 0


def test_handlers_are_put_back_also_after_an_error():
    before, came = signal.getsignal(signal.SIGTERM), []
    handled = interrupts.handling(lambda signum, _: came.append(signum), signal.SIGTERM)
    with pytest.raises(ZeroDivisionError), handled:
        os.kill(os.getpid(), signal.SIGTERM)
        _ = 1 / 0
    assert came == [signal.SIGTERM] and signal.getsignal(signal.SIGTERM) is before


def test_an_ignored_interrupt_stays_ignored():
    text = "import signal; signal.signal(2, signal.SIG_IGN)\n" + BEGIN
    process = start(text + "print('ready'); import time; time.sleep(.5); print('done')")
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=20)[0] == "done\n" and process.returncode == 0


def test_in_a_users_own_program_an_interrupt_waits_for_the_end_of_a_call():
    text = "from sigah_jax.process import interrupts\nimport time\ntry:\n"
    text += "    with interrupts.deferring():\n        print('ready')\n        time.sleep(.5)\n"
    text += "        print('compiled')\n    print('never')\nexcept KeyboardInterrupt:\n"
    text += "    print('raised')"
    process = start(text)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=20)[0] == "compiled\nraised\n"


COMMANDS = [
    f"sigah_jax.{name}"
    for name in ("main", "measure", "encode", "search", "export", "data.download", "data.synthetic")
]
COMMANDS += ["sigah_jax encode"]
COMMANDS += [f"launch.{name}" for name in ("sweep", "collect", "encode_ray")]
COMMANDS += [f"experiments.{name}" for name in ("cell", "decoder", "paper_tables", "speed")]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_can_be_interrupted_while_it_imports(name, tmp_path):
    # the first heavy import of all commands says that it has begun, and never ends
    slow = "print('ready', flush=True)\nimport time\ntime.sleep(60)\n"
    for module in ("jax", "numpy"):
        (tmp_path / f"{module}.py").write_text(slow)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(
        [sys.executable, "-m", *name.split()],
        env=os.environ | {"PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=20)[1] == "interrupted\n" and process.returncode == 130
