"""Commands on this machine: a queue of processes, one in each slot at a time.

A job is finished when the file that it leaves is there. Its log is locked while it runs: the
launcher takes the lock and the process inherits it, whatever becomes of the launcher. A second
queue with the same jobs leaves a locked one alone, takes another, and at last waits for what the
first one left or did not finish; in the same way for a run directory that any process uses.

Not responsible for what a command does: one that is stopped is started again and resumes by
itself.
"""

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, NamedTuple

from tqdm import tqdm

from sigah_jax.errors import BadInput, NonFinite, printable
from sigah_jax.files import locks
from sigah_jax.process import interrupts

POLL_SECS = 0.2
LOG_BYTES = 65536  # of a log's end, in which its last words are looked for
FRAME = re.compile(r' {4}|  File "')  # lines of a traceback between its head and the exception
TERMINATED = interrupts.CODES[signal.SIGTERM]  # exit code of a run that saved at SIGTERM
FINAL = (BadInput.exit_code, NonFinite.exit_code)  # the same command would end the same way
# what says how much of a GPU's memory a process takes at its start
MEMORY = (
    "XLA_CLIENT_MEM_FRACTION",
    "XLA_PYTHON_CLIENT_MEM_FRACTION",
    "XLA_PYTHON_CLIENT_PREALLOCATE",
)
MEMORY_SHARE = 0.75  # which is what JAX takes if nothing says it
MAX_TERMINATIONS = 100  # of one job; ours: four days of preemptions an hour apart


class Job(NamedTuple):
    """One command."""

    name: str  # for people
    argv: Sequence[str]
    log: Path  # takes its output, both streams
    done: Path  # or whatever else `exists()` once it is finished
    lock: Path  # the command locks it while it runs, if it ever makes it


class Running(NamedTuple):
    """A job in a slot."""

    job: Job
    process: subprocess.Popen
    start: float


def device_slots(devices: str) -> list[dict[str, str]]:
    """The environment of each slot: one of the GPUs `"0,1,…"`; `""`: one slot with all.

    A GPU that is named several times has as many slots, and each of their runs an equal part of the
    memory that JAX would otherwise take for one run, unless the environment says how much to take.
    """
    names = devices.split(",")
    # " 0" would be another name than "0", and its run would not share
    if devices and not all(re.fullmatch(r"\S+", name) for name in names):
        raise BadInput(f"--devices={devices}: name GPUs with commas between, as in --devices=0,1")
    slots = [{"CUDA_VISIBLE_DEVICES": name} for name in names] if devices else [{}]
    if not any(name in os.environ for name in MEMORY):
        for name, slot in zip(names, slots, strict=True):
            if names.count(name) > 1:
                slot[MEMORY[0]] = f"{MEMORY_SHARE / names.count(name):.3f}"
    return slots


def run_jobs(
    jobs: Sequence[Job], slots: Sequence[Mapping[str, str]], retries: int
) -> list[tuple[Job, str]]:
    """Runs all jobs, as many at a time as there are slots, and returns those that failed, and why.

    Args:
        slots: what a process of each slot has in its environment beside ours.
        retries: how often a job that ends otherwise than by `FINAL` is started again. One that
            was terminated (SIGTERM) is started again up to `MAX_TERMINATIONS` times beside these.

    A job that cannot be started, for instance because the disk of its log is full, has failed.

    An interrupt (Ctrl-C) or SIGTERM ends the running processes with SIGTERM, waits for them and
    is raised as KeyboardInterrupt or SystemExit(143). A second one ends the waiting.
    """
    waiting, running, ends = deque(jobs), {}, Counter()
    board = Board(len(jobs))
    with _noting_signals() as asked:
        try:
            while waiting or running:
                for slot in (s for s in range(len(slots)) if s not in running):
                    started = _start_next(waiting, slots[slot], board)
                    if started:
                        running[slot] = started
                time.sleep(POLL_SECS)
                for slot, run in list(running.items()):
                    if run.process.poll() is None:
                        continue
                    del running[slot]
                    verdict = _judge(run, ends, retries)
                    board.ended(run, verdict)
                    if verdict not in ("done", "failed"):
                        waiting.append(run.job)
                if asked:
                    raise asked[0]
        finally:
            _stop(running.values(), asked)
    return board.failed


def check_line(text: str) -> str:
    """The text, for a file of lines; BadInput if a control character could begin another line."""
    if printable(text) != text:
        raise BadInput(f"{printable(text)}: holds a control character; take it out, or rename")
    return text


def in_use(lock: Path) -> bool:
    """Whether a living process holds the lock of a run directory.

    The look takes the lock for a moment, in which the process of another queue would be refused
    the directory: look only while you hold the lock of the job's log.
    """
    try:
        with lock.open("r+") as f:
            return not locks.take(f, lock)
    except FileNotFoundError:
        return False


def last_line(log: Path) -> str:
    """What the last command of a log said last: its error, if there is one, or its last line.

    Of a traceback that is the line of the exception, and of a progress bar its last state.
    """
    try:
        with log.open("rb") as f:
            f.seek(max(0, log.stat().st_size - LOG_BYTES))
            lines = f.read().decode(errors="replace").splitlines()
    except OSError as e:
        return f"no log ({e.strerror})"
    start = max((i + 1 for i, line in enumerate(lines) if line.startswith("$ ")), default=0)
    said = [line.strip() for line in lines[start:] if line.strip() and not FRAME.match(line)]
    errors = [line for line in said if line.startswith("error: ")]
    last = (errors or said or ["no output"])[-1]
    return "a traceback that was cut off" if last.startswith("Traceback (most ") else last


def _start_next(waiting: deque, environment: Mapping[str, str], board: "Board") -> Running | None:
    """Starts the first job that is neither finished nor held elsewhere; drops finished ones."""
    for _ in range(len(waiting)):
        job = waiting.popleft()
        if job.done.exists():
            board.skipped(job)
            continue
        try:
            process = _start(job, environment)
        except OSError as e:
            board.cannot_start(job, e)
            continue
        if process:
            return Running(job, process, time.monotonic())
        waiting.append(job)
    return None


def _start(job: Job, environment: Mapping[str, str]) -> subprocess.Popen | None:
    """The process of a job, which inherits the lock of its log; None if it runs elsewhere."""
    job.log.parent.mkdir(parents=True, exist_ok=True)
    with job.log.open("a", encoding="utf-8", errors="surrogateescape") as log:
        if not _take(job, log):
            return None
        log.write(f"$ {shlex.join(job.argv)}\n")
        log.flush()
        return subprocess.Popen(
            job.argv,
            env=os.environ | environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is ours alone: a run is to save, not to break
        )


def _take(job: Job, log: IO) -> bool:
    """Locks the open log of a job; False if the job runs already, in a queue or by itself."""
    return locks.take(log, job.log) and not in_use(job.lock)


def _judge(run: Running, ends: Counter, retries: int) -> str:
    """What became of a process: done, terminated, busy (directory in use), broken, or failed."""
    code = run.process.returncode
    if code == 0 and run.job.done.exists():
        return "done"
    if code == BadInput.exit_code:
        # without its log, which may be removed or on a full disk, no other queue runs it
        with contextlib.suppress(OSError), run.job.log.open("ab") as log:
            if not _take(run.job, log):
                return "busy"
    terminated = code in (TERMINATED, -signal.SIGTERM)
    end, limit = ("terminated", MAX_TERMINATIONS) if terminated else ("broken", retries)
    ends[run.job.name, end] += 1
    return "failed" if code in FINAL or ends[run.job.name, end] > limit else end


def _stop(running: Collection[Running], asked: list[BaseException]) -> None:
    """Ends the processes and waits for them, until one more signal comes."""
    before = len(asked)  # before anything is said: an answer may come at once
    for run in running:
        run.process.terminate()
    if running:
        names = ", ".join(run.job.name for run in running)
        text = f"waiting until these have saved and ended, or for another interrupt: {names}"
        print(text, file=sys.stderr, flush=True)
    while len(asked) == before and any(run.process.poll() is None for run in running):
        time.sleep(POLL_SECS)


@contextlib.contextmanager
def _noting_signals() -> Iterator[list[BaseException]]:
    """The list in which SIGTERM, and SIGINT unless it is ignored, put what is to be raised.

    A handler that raises might do so between the start of a process and our knowing it.
    """
    asked = []
    causes = {signal.SIGTERM: SystemExit(TERMINATED), signal.SIGINT: KeyboardInterrupt()}
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        del causes[signal.SIGINT]
    with interrupts.handling(lambda signum, _: asked.append(causes[signum]), *causes):
        yield asked


def _why(run: Running) -> str:
    """Why a process ended, as far as its code, its log and the disk tell."""
    code, log = run.process.returncode, run.job.log
    words = last_line(log)
    if not words.startswith("error: "):
        words = f"{f'signal {-code}' if code < 0 else f'exit code {code}'}, {words}"
        with contextlib.suppress(OSError):
            if shutil.disk_usage(log.parent).free < LOG_BYTES:  # the log may lack its last words
                words += ", its disk is full"
    return f"{words} ({log})"


class Board:
    """How the queue stands: a line for each event."""

    def __init__(self, total: int):
        self.start, self.total = time.monotonic(), total
        self.done = self.here = 0  # `here`: ended in this queue
        self.failed: list[tuple[Job, str]] = []  # and why

    def skipped(self, job: Job) -> None:
        """A job was finished before, or elsewhere."""
        self.done += 1
        self._say(job, "finished before")

    def ended(self, run: Running, verdict: str) -> None:
        """A process of ours ended."""
        words = f"{verdict}, {time.monotonic() - run.start:.0f} s"
        self.here += verdict in ("done", "failed")
        if verdict == "done":
            self.done += 1
        else:
            why = _why(run)
            words += f", {why}"
            self.failed += [(run.job, why)] if verdict == "failed" else []
        self._say(run.job, words)

    def cannot_start(self, job: Job, error: OSError) -> None:
        """A job has failed because there is no process for it."""
        why = f"cannot be started ({error.strerror}: {job.log})"
        self.failed.append((job, why))
        self._say(job, why)

    def _say(self, job: Job, words: str) -> None:
        left = self.total - self.done - len(self.failed)
        spent = time.monotonic() - self.start
        time_left = tqdm.format_interval(spent / self.here * left) if self.here else "?"
        counts = f"{self.done}/{self.total} done, {len(self.failed)} failed, {time_left} left"
        print(f"{counts} | {job.name}: {words}", flush=True)
