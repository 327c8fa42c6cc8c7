"""Waiting for what another process or thread does, with an end."""

import time


def wait_for(condition, *processes, secs=60):
    """Until the condition holds; an AssertionError after `secs`, or if a process ends before."""
    end = time.monotonic() + secs
    while not condition():
        assert time.monotonic() < end, f"this did not come in {secs} s"
        assert all(process.poll() is None for process in processes), "a process ended before"
        time.sleep(0.01)
