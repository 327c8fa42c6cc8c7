"""Ctrl-C and SIGTERM: a command leaves at once with one line, or where its work is saved.

A command calls `begin` before its heavy imports. From then on a signal prints a line and ends the
process by `os._exit`, whatever the main thread does: an exception would be swallowed inside a
callback of JAX, and an orderly exit while JAX compiles may crash. Where work is to be saved or
child processes are to be stopped first, `handling` gives the signals to a function.

Imports nothing heavy: it has to be there first. Not responsible for what is saved.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator

from sigah_jax.process import environment, streams

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}  # as a shell reports them
_WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
_LEAVE_SECS = 5  # a terminal or pipe that takes nothing must not keep the process

# called with the exit code before the process ends at once
before_leaving: list[Callable[[int], None]] = []

_remedy = ""  # what to do then, for the line
_handled: set[int] = set()  # signals that `handling` has
_wakeup: int | None = None  # where Python writes a byte for each signal, after `begin`
_MARK = 0  # a byte that is no signal
_caught_up = threading.Event()  # the thread of `_watch` has read the mark
_leaving = threading.Lock()


def begin() -> None:
    """Makes this process, which runs a command, leave at Ctrl-C and SIGTERM; in its main thread.

    A signal that is ignored stays so, as Ctrl-C in a process that a script put in the background.
    Its standard output and error cannot stop it from then on.
    """
    global _wakeup
    streams.outlive()  # first, for a descriptor that is opened may get the number of a closed one
    read, _wakeup = os.pipe()
    os.set_blocking(_wakeup, False)
    # Python calls handlers in the main thread alone, once it is back from a compilation, say; a
    # byte comes here at once
    signal.set_wakeup_fd(_wakeup, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(read,), daemon=True).start()
    for signum in CODES:
        if signal.getsignal(signum) is not signal.SIG_IGN:
            signal.signal(signum, lambda signum, _: _leave(signum))
    environment.check()


def say(remedy: str) -> None:
    """Sets what the line says beside "interrupted": what is left, or how to resume."""
    global _remedy
    _remedy = f"; {remedy}"


@contextlib.contextmanager
def handling(handler: Callable, *signums: int) -> Iterator[None]:
    """Gives signals to `handler(signum, frame)`, called in the main thread, until the end.

    Does nothing outside the main thread, as Python has no handlers there.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {signum: signal.signal(signum, handler) for signum in signums}
    ours = {*signums} - _handled
    _handled.update(ours)
    try:
        yield
    finally:
        _catch_up()
        for signum, old in previous.items():
            signal.signal(signum, old)
        _handled.difference_update(ours)


@contextlib.contextmanager
def deferring() -> Iterator[None]:
    """Ctrl-C in a user's own program waits for the end of the block, where it is raised.

    A compilation of JAX that an exception breaks off may crash the process when it ends.
    """
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    came = []
    with handling(lambda *_: came.append(True), signal.SIGINT):
        yield
    if came:
        raise KeyboardInterrupt


def _catch_up() -> None:
    """Waits until `_watch` has read all signals so far, so that it does not leave at one later."""
    if _wakeup is None:
        return
    _caught_up.clear()
    with contextlib.suppress(BlockingIOError):  # the pipe is full of signals
        os.write(_wakeup, bytes([_MARK]))
        _caught_up.wait(_LEAVE_SECS)


def _watch(read: int) -> None:
    while True:
        for signum in os.read(read, 64):
            if signum == _MARK:
                _caught_up.set()
            elif signum in CODES and signum not in _handled:
                _leave(signum)


def _leave(signum: int) -> None:
    if not _leaving.acquire(blocking=False):
        return
    code = CODES[signum]
    timer = threading.Timer(_LEAVE_SECS, os._exit, [code])
    timer.daemon = True
    timer.start()
    with contextlib.suppress(Exception):  # a terminal that is gone, a flush within a flush
        sys.stdout.flush()
    with contextlib.suppress(Exception):
        line = f"{_WORDS[signum]}{_remedy}"
        print(f"\n{line}" if sys.stderr.isatty() else line, file=sys.stderr, flush=True)
    for function in before_leaving:
        with contextlib.suppress(Exception):  # nothing may stand in the way now
            function(code)
    os._exit(code)
