"""The queue of local processes."""

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from waiting import wait_for

from launch import local
from sigah_jax.errors import BadInput

PATHS = [os.path.dirname(__file__), os.path.dirname(os.path.dirname(__file__))]
# counts its starts, then runs the rest
COUNT = "import os, sys, time; open('{starts}', 'a').write('x'); "


def job(tmp_path, name, code):
    """A job of Python code, in which {done} is the file to leave and {starts} counts starts."""
    done, starts = tmp_path / f"{name}.done", tmp_path / f"{name}.starts"
    code = (COUNT + code).format(done=done, starts=starts)
    lock = tmp_path / f"{name}.lock"
    return local.Job(name, [sys.executable, "-c", code], tmp_path / f"{name}.log", done, lock)


def starts(tmp_path, name):
    path = tmp_path / f"{name}.starts"
    return len(path.read_text()) if path.exists() else 0


DONE = "open('{done}', 'w').close()"


def test_all_jobs_run_with_their_slot(tmp_path, capsys):
    code = "print(os.environ['CUDA_VISIBLE_DEVICES']); " + DONE
    jobs = [job(tmp_path, str(i), code) for i in range(4)]
    assert local.run_jobs(jobs, local.device_slots("4,7"), 0) == []
    seen = [j.log.read_text().splitlines()[-1] for j in jobs]
    assert set(seen) == {"4", "7"}
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 and lines[-1].startswith("4/4 done, 0 failed, 00:00 left | ")


def test_a_slot_has_one_device_or_one_slot_has_all():
    assert local.device_slots("") == [{}]
    assert local.device_slots("0,5") == [{"CUDA_VISIBLE_DEVICES": gpu} for gpu in "05"]
    for devices in ("0,,1", "0, 0", "0 1"):
        with pytest.raises(BadInput, match=f"--devices={devices}: name GPUs with commas between"):
            local.device_slots(devices)


def test_runs_that_share_a_gpu_share_its_memory_unless_the_environment_divides_it(
    tmp_path, monkeypatch
):
    for name in local.MEMORY:
        monkeypatch.delenv(name, raising=False)
    # what JAX itself makes of the environment of a run, and the devices that the run has
    code = (
        "import jax; from jaxlib import xla_client;"
        "share = xla_client.generate_pjrt_gpu_plugin_options().get('memory_fraction');"
        "print(os.environ['CUDA_VISIBLE_DEVICES'], share, jax.device_count());"
    )

    def seen(directory, devices):
        directory.mkdir()
        jobs = [job(directory, str(i), code + DONE) for i in range(len(devices.split(",")) + 1)]
        assert local.run_jobs(jobs, local.device_slots(devices), 0) == []
        return {j.log.read_text().splitlines()[-1] for j in jobs}

    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "2")
    # half of three quarters for the runs of GPU 0, JAX's own choice for that of GPU 1
    assert seen(tmp_path / "shared", "0,0,1") == {"0 0.375 2", "1 None 2"}
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.25")
    assert seen(tmp_path / "given", "0,0") == {"0 0.25 2"}


def test_no_more_processes_than_slots(tmp_path):
    here = tmp_path / "running"
    here.mkdir()
    code = (
        f"import pathlib; here = pathlib.Path({str(here)!r}); (here / str(os.getpid())).touch();"
        "time.sleep(0.5); print(len(list(here.iterdir()))); (here / str(os.getpid())).unlink();"
    )
    jobs = [job(tmp_path, str(i), code + DONE) for i in range(5)]
    local.run_jobs(jobs, [{}, {}], 0)
    assert max(int(local.last_line(j.log)) for j in jobs) == 2


@pytest.mark.parametrize(
    "name, code, expected",
    [
        ("finished", DONE, 1),
        ("breaks", "sys.exit(1)", 3),  # the first time and two retries
        ("bad_input", "sys.exit(2)", 1),
        ("not_finite", "sys.exit(3)", 1),
        ("leaves_nothing", "pass", 3),
        ("killed", "os.kill(os.getpid(), 9)", 3),
    ],
)
def test_how_often_a_job_is_started(tmp_path, name, code, expected, capsys):
    bad = job(tmp_path, name, f"print('words of {name}'); sys.stdout.flush(); {code}")
    failed = local.run_jobs([bad, job(tmp_path, "other", DONE)], [{}], 2)
    assert starts(tmp_path, name) == expected and starts(tmp_path, "other") == 1
    assert [failure[0] for failure in failed] == ([] if name == "finished" else [bad])
    if failed:
        out = capsys.readouterr().out
        how = {"bad_input": "exit code 2", "not_finite": "exit code 3", "killed": "signal 9"}
        why = f", words of {name} ({bad.log})"
        assert f"{name}: failed, " in out and why in out
        assert how.get(name, "exit code") in failed[0][1] and failed[0][1].endswith(why)


@pytest.mark.parametrize("end", ["sys.exit(143)", "os.kill(os.getpid(), 15)"])
def test_a_terminated_job_is_given_again_without_being_counted(tmp_path, end):
    four = f"(len(open('{{starts}}').read()) < 4 and {end})"
    assert local.run_jobs([job(tmp_path, "a", f"{four}; {DONE}")], [{}], 0) == []
    assert starts(tmp_path, "a") == 4


def test_a_job_that_is_terminated_for_ever_is_given_up(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(local, "MAX_TERMINATIONS", 2)
    a = job(tmp_path, "a", "sys.exit(143)")
    assert len(local.run_jobs([a], [{}], 0)) == 1
    assert starts(tmp_path, "a") == 3 and "a: failed, " in capsys.readouterr().out


def test_a_finished_job_is_not_started(tmp_path, capsys):
    a = job(tmp_path, "a", DONE)
    a.done.touch()
    assert local.run_jobs([a], [{}], 0) == []
    assert starts(tmp_path, "a") == 0 and "finished before" in capsys.readouterr().out


QUEUE = """
import sys
sys.path[:0] = {paths!r}
import test_local
from launch import local
from pathlib import Path
jobs = [test_local.job(Path({tmp!r}), str(i), "time.sleep(0.4); " + test_local.DONE) for i in range(6)]
sys.exit(len(local.run_jobs(jobs, [{{}}] * 2, 0)))
"""  # noqa: E501


def queue_process(tmp_path):
    code = QUEUE.format(paths=PATHS, tmp=str(tmp_path))
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)


def test_two_queues_of_the_same_jobs_share_them(tmp_path):
    both = [queue_process(tmp_path) for _ in range(2)]
    outs = [p.communicate(timeout=60)[0] for p in both]
    assert [p.returncode for p in both] == [0, 0]
    assert [starts(tmp_path, str(i)) for i in range(6)] == [1] * 6
    assert all("6/6 done" in out for out in outs)


def test_a_queue_that_was_killed_leaves_its_processes_to_the_next(tmp_path):
    first = queue_process(tmp_path)
    wait_for(lambda: starts(tmp_path, "0"), first)
    first.kill()
    first.communicate(timeout=60)
    second = queue_process(tmp_path)
    assert second.communicate(timeout=60) and second.returncode == 0
    assert [starts(tmp_path, str(i)) for i in range(6)] == [1] * 6


def test_a_directory_in_use_is_waited_for(tmp_path):
    a = job(tmp_path, "a", DONE)
    with a.lock.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        threading.Timer(1.0, lock.close).start()
        assert local.in_use(a.lock)
        begin = time.monotonic()
        assert local.run_jobs([a], [{}], 0) == []
    assert time.monotonic() - begin > 0.9 and starts(tmp_path, "a") == 1
    assert not local.in_use(a.lock)


def test_the_lock_of_a_run_is_tried_only_under_that_of_its_log(tmp_path, monkeypatch):
    """Else a queue turns away the process that another has just started, for good."""
    a = job(tmp_path, "a", "sys.exit(2)")
    look, looks = local.in_use, []

    def locked_look(lock):
        with a.log.open("a") as log, pytest.raises(BlockingIOError):
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        looks.append(lock)
        return look(lock)

    monkeypatch.setattr(local, "in_use", locked_look)
    assert len(local.run_jobs([a], [{}], 0)) == 1
    assert len(looks) == 2  # before its start, and to see why it ended


def test_a_job_refused_because_its_directory_is_in_use_is_no_failure(tmp_path):
    a = job(tmp_path, "a", f"len(open('{{starts}}').read()) < 2 and sys.exit(2); {DONE}")

    def use():  # by a process of no queue, that came between our look and our process
        wait_for(lambda: starts(tmp_path, "a"))
        with a.lock.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            time.sleep(1)

    threading.Thread(target=use).start()
    assert local.run_jobs([a], [{}], 0) == []
    assert starts(tmp_path, "a") == 2


@pytest.mark.parametrize("number, error", [(signal.SIGINT, KeyboardInterrupt), (15, SystemExit)])
def test_an_interrupt_lets_the_running_processes_save(tmp_path, number, error):
    code = (
        "import signal; signal.signal(15, lambda *_: (print('saved'), sys.exit(143)));"
        "open('{done}x', 'w').close(); time.sleep(60)"
    )
    a = job(tmp_path, "a", code)

    def interrupt():
        wait_for((tmp_path / "a.donex").exists)
        os.kill(os.getpid(), number)

    threading.Thread(target=interrupt).start()
    with pytest.raises(error) as e:
        local.run_jobs([a], [{}], 0)
    assert local.last_line(a.log) == "saved"
    assert error is KeyboardInterrupt or e.value.code == 143


def test_an_interrupt_while_a_process_starts_ends_that_process_too(tmp_path, monkeypatch, capsys):
    code = (
        "import signal; signal.signal(15, lambda *_: sys.exit(print('saved')));"
        "open('{done}x', 'w').close(); time.sleep(60)"
    )
    a, popen, started = job(tmp_path, "a", code), subprocess.Popen, []

    def start(*args, **more):
        started.append(popen(*args, **more))
        wait_for((tmp_path / "a.donex").exists)
        os.kill(os.getpid(), signal.SIGINT)
        return started[0]

    monkeypatch.setattr(subprocess, "Popen", start)
    with pytest.raises(KeyboardInterrupt):
        local.run_jobs([a, job(tmp_path, "b", DONE)], [{}], 0)
    assert started[0].poll() == 0 and local.last_line(a.log) == "saved"
    assert "saved and ended, or for another interrupt: a" in capsys.readouterr().err
    assert starts(tmp_path, "b") == 0


# takes long to save: until a file says that it may end
STUBBORN = (
    "import signal; signal.signal(15, lambda *_: ("
    "[time.sleep(.01) for _ in range(3000) if not os.path.exists('{done}z')], "
    + DONE.replace("done}", "done}y")
    + ", sys.exit(143))); open('{done}x', 'w').close(); time.sleep(60)"
)
SWEEP = """
import sys
sys.path[:0] = {paths!r}
import test_local
from launch import local
from pathlib import Path
local.run_jobs([test_local.job(Path({tmp!r}), "point 7", test_local.STUBBORN)], [{{}}], 0)
"""


def test_an_interrupt_says_at_once_what_is_waited_for_and_a_second_one_leaves(tmp_path):
    code = SWEEP.format(paths=PATHS, tmp=str(tmp_path))
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    wait_for((tmp_path / "point 7.donex").exists, process)
    process.send_signal(signal.SIGINT)
    line = process.stderr.readline()
    assert line.startswith("waiting until these have saved and ended") and "point 7" in line
    assert not (tmp_path / "point 7.doney").exists()
    process.send_signal(signal.SIGINT)
    assert process.wait(60) and not (tmp_path / "point 7.doney").exists()
    (tmp_path / "point 7.donez").touch()
    wait_for((tmp_path / "point 7.doney").exists)  # it saves all the same


def test_a_job_that_cannot_be_started_fails_alone_and_says_why(tmp_path, monkeypatch, capsys):
    bad, good = job(tmp_path, "bad", DONE), job(tmp_path, "good", DONE)
    popen = subprocess.Popen

    def start(argv, **more):
        if argv == bad.argv:
            raise OSError(28, "No space left on device")
        return popen(argv, **more)

    monkeypatch.setattr(subprocess, "Popen", start)
    ((failed, why),) = local.run_jobs([bad, good], [{}], 2)
    assert failed == bad and "No space left on device" in why and str(bad.log) in why
    assert good.done.exists() and "1/2 done, 1 failed" in capsys.readouterr().out


LOGS = {
    "step 1\n\nstep 2\r step 3\n \n": "step 3",
    "": "no output",
    "$ run\n": "no output",
    "$ run\nerror: of the first start\n$ run\nstep 1\n": "step 1",
    "error: x.npy: cut off\nException ignored in: <f>\nValueError: late\n": "error: x.npy: cut off",
    'Traceback (most recent call last):\n  File "a.py", line 1, in f\n    g(\nOSError: full\n': (
        "OSError: full"
    ),
    'step 1\nTraceback (most recent call last):\n  File "a.py", line 1, in f\n    g(\n    ^^^^': (
        "a traceback that was cut off"
    ),
}


@pytest.mark.parametrize("text, expected", LOGS.items())
def test_the_last_line_of_a_log_is_the_one_that_says_something(tmp_path, text, expected):
    (tmp_path / "log").write_text(text)
    assert local.last_line(tmp_path / "log") == expected


def test_a_log_that_was_removed_ends_no_queue(tmp_path):
    place = tmp_path / "runs"
    a = job(place, "a", f"import shutil; shutil.rmtree({str(place)!r}); sys.exit(2)")
    place.mkdir()
    ((failed, why),) = local.run_jobs([a], [{}], 0)
    assert failed == a and why.startswith("exit code 2, no log (No such file or directory)")
