"""The queue of local processes."""

import os
import signal
import sys
import threading
import time

import pytest

from launch import local


def job(tmp_path, name, code):
    return local.Job(name, [sys.executable, "-c", code], tmp_path / f"{name}.log")


def test_all_jobs_run_with_their_slot_and_failures_are_named(tmp_path):
    code = "import os, sys; print(os.environ['CUDA_VISIBLE_DEVICES']); sys.exit({})"
    jobs = [job(tmp_path, str(i), code.format(int(i == 2))) for i in range(4)]
    lines = []
    failed = local.run_jobs(jobs, local.device_slots("4,7"), lines.append)
    assert [j.name for j in failed] == ["2"]
    seen = [(tmp_path / f"{i}.log").read_text().strip() for i in range(4)]
    assert set(seen) == {"4", "7"}
    assert len(lines) == 4 and any("2: failed, " in line and "2.log" in line for line in lines)


def test_no_more_processes_than_slots(tmp_path):
    code = (
        "import os, pathlib, time; here = pathlib.Path({0!r}); (here / str(os.getpid())).touch();"
        "time.sleep(0.5); print(len(list(here.iterdir()))); (here / str(os.getpid())).unlink()"
    )
    here = tmp_path / "running"
    here.mkdir()
    jobs = [job(tmp_path, str(i), code.format(str(here))) for i in range(5)]
    local.run_jobs(jobs, [{}, {}], lambda _: None)
    at_once = [int((tmp_path / f"{i}.log").read_text()) for i in range(5)]
    assert max(at_once) == 2


def test_an_interrupt_ends_the_running_processes(tmp_path):
    started = tmp_path / "started"
    code = f"import pathlib, time; pathlib.Path({str(started)!r}).touch(); time.sleep(60)"

    def interrupt():
        while not started.exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        local.run_jobs([job(tmp_path, "long", code)], [{}], lambda _: None)
    assert time.monotonic() - begin < 30


def test_without_devices_one_process_has_them_all():
    assert local.device_slots("") == [{}]
