"""Commands on this machine: a queue of processes, one a slot at a time.

Not responsible for what a command does nor for whether it must run: a command that is killed may
be given again, and goes on where it was.
"""

import os
import subprocess
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

POLL_SECS = 0.2


class Job(NamedTuple):
    """One command."""

    name: str  # for people
    argv: Sequence[str]
    log: Path  # takes its output, both streams


def device_slots(devices: str) -> list[dict[str, str]]:
    """The environment of each slot: `"0,1"` is a process a device, `""` one process for all."""
    if not devices:
        return [{}]
    return [{"CUDA_VISIBLE_DEVICES": d, "TPU_VISIBLE_CHIPS": d} for d in devices.split(",")]


def run_jobs(
    jobs: Sequence[Job], slots: Sequence[Mapping[str, str]], tell: Callable[[str], None]
) -> list[Job]:
    """Runs all jobs, as many at a time as there are slots, and returns those that failed.

    Args:
        slots: what a process of each slot has in its environment beside ours.
        tell: is given a line when a job starts and when it ends.

    An interrupt (Ctrl-C) ends the running processes with SIGTERM, waits for them and goes on up.
    """
    waiting, running, failed, ended = deque(jobs), {}, [], 0
    try:
        while waiting or running:
            for slot in (s for s in range(len(slots)) if s not in running and waiting):
                job = waiting.popleft()
                running[slot] = (job, _start(job, slots[slot]), time.monotonic())
            time.sleep(POLL_SECS)
            for slot, (job, process, start) in list(running.items()):
                if process.poll() is None:
                    continue
                del running[slot]
                ended += 1
                seconds = time.monotonic() - start
                if process.returncode:
                    failed.append(job)
                    tell(f"{ended}/{len(jobs)} {job.name}: failed, {_last_line(job.log)}")
                else:
                    tell(f"{ended}/{len(jobs)} {job.name}: {seconds:.0f} s")
    finally:
        for _, process, _ in running.values():
            process.terminate()
        for _, process, _ in running.values():
            process.wait()
    return failed


def _start(job: Job, environment: Mapping[str, str]) -> subprocess.Popen:
    job.log.parent.mkdir(parents=True, exist_ok=True)
    with job.log.open("a") as log:
        return subprocess.Popen(
            job.argv, env=os.environ | environment, stdout=log, stderr=subprocess.STDOUT
        )


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text().splitlines() if line.strip()]
    return f"{lines[-1] if lines else 'no output'} ({log})"
