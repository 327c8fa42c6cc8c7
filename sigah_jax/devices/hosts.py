"""Several processes, on one host or many: joining, taking turns, agreeing, leaving.

Every process runs the same command with the same working directory, on a file system that all
see. Each reads the data itself and takes its own slice of every batch; process 0 alone writes,
except for checkpoints, which orbax writes from all. One process needs none of this: every function
here then does the plain thing.

Not responsible for devices (`parallel`).
"""

import ctypes
import errno
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax._src import distributed
from jax.experimental import multihost_utils

from sigah_jax.errors import BadInput
from sigah_jax.process import interrupts

JOIN_SECS = 60  # all processes have joined by then, or none continues
HEARTBEAT_SECS = 30  # a process that is silent so long is lost, and ends the others
LOST = 75  # exit code if another process is lost or late: EX_TEMPFAIL, worth another try
_LOST_LINE = "another process of this run was lost; the same command resumes"
_SIGTERM = "sigah_jax/sigterm"  # a key in the store of all processes
_POLL_SECS = 0.25
_PARTED = threading.Event()
_ON_ABORT = None  # the handler of SIGABRT, kept alive


def from_environment() -> dict | None:
    """What the environment says of the processes, for `jax.distributed.initialize`.

    Returns:
        What JAX does not find, or would take otherwise, by itself; maybe nothing. None if there is
        one process.
    """
    env = os.environ
    if "JAX_COORDINATOR_ADDRESS" in env:
        found = {"coordinator_address": env["JAX_COORDINATOR_ADDRESS"]}
        if not re.fullmatch(r".+:\d+", found["coordinator_address"]):
            raise BadInput(
                f"JAX_COORDINATOR_ADDRESS={found['coordinator_address']}: expected host:port"
            )
        for name in ("num_processes", "process_id"):
            variable = f"JAX_{name.upper()}"
            if variable in env:
                if not env[variable].isdecimal():
                    raise BadInput(f"{variable}={env[variable]}: expected a whole number")
                found[name] = int(env[variable])
        return found
    # a shell inside an allocation may be a step of one task, and SLURM_NTASKS counts others too
    tasks = env.get("SLURM_STEP_NUM_TASKS", env.get("SLURM_NTASKS", "1"))
    if "SLURM_STEP_NODELIST" in env and int(tasks) > 1:
        # JAX gives each task of a node the GPU of its number there; without ids it sees all
        alone = tasks == env.get("SLURM_STEP_NUM_NODES")
        bound = "," not in env.get("CUDA_VISIBLE_DEVICES", ",")  # SLURM has given it one
        if (alone or bound) and "JAX_LOCAL_DEVICE_IDS" not in env:
            return {"local_device_ids": []}
        return {}
    # JAX sets the first where it finds TPU chips, and the second where there is no pod to ask for
    if "TPU_ML_PLATFORM" in env and "TPU_SKIP_MDS_QUERY" not in env:
        return {}
    return None


def join(choice: str, timeout_secs: float = JOIN_SECS) -> None:
    """Joins the other processes; to be called before anything asks JAX for devices.

    Args:
        choice: "off"; "auto": if `from_environment` says that there are others; "on": also where
            JAX alone finds them (Open MPI, Kubernetes), and it is an error if there are none.

    Raises:
        BadInput: nothing or nonsense is said of the processes. If they do not all come in time,
            the process ends with one line and exit code `LOST`, for JAX would abort it.
    """
    if choice not in ("auto", "on") or jax.distributed.is_initialized():
        return
    processes = from_environment()
    if processes is None and choice == "auto":
        return
    processes = processes or {}
    coordinator = processes.get("coordinator_address")  # None: JAX asks the cluster
    address = coordinator or "the first host of the job"
    # SIGTERM is noted by `train`, which saves first; JAX's own service would swallow it
    jax.config.update("jax_enable_preemption_service", False)
    late = f"{address}: not all processes of this run were there after {timeout_secs:.0f} s; check "
    taken = f"{address}: is in use by another program; free the port, or try again"
    starts = processes.get("process_id") == 0
    if coordinator and starts and _in_use(coordinator):  # in which JAX may crash
        _give_up(taken)
    timer = threading.Timer(timeout_secs, _give_up, [late + "the address, and start all at once"])
    timer.daemon = True
    timer.start()
    try:
        jax.distributed.initialize(
            **processes,
            initialization_timeout=int(10 * timeout_secs + 10),  # the timer comes first
            heartbeat_timeout_seconds=HEARTBEAT_SECS,
        )
    except (ValueError, TypeError, RuntimeError) as e:
        reason = str(e).splitlines()[0]
        if coordinator and "RPC server" in reason and _in_use(coordinator):
            _give_up(taken)
        raise BadInput(
            f"config.distributed={choice}: {reason} Set JAX_COORDINATOR_ADDRESS, "
            "JAX_NUM_PROCESSES and JAX_PROCESS_ID, or start by SLURM or on a TPU pod"
        ) from e
    finally:
        timer.cancel()
    _tell_before_abort()
    interrupts.before_leaving.append(_share_sigterm)
    threading.Thread(target=_await_sigterm, daemon=True).start()


def first() -> bool:
    """Whether this is process 0, which writes."""
    return not jax.distributed.is_initialized() or jax.process_index() == 0


def all_flags(flag: bool) -> np.ndarray:
    """The flags of all processes, `[processes] bool`."""
    return multihost_utils.process_allgather(np.bool_(flag)).reshape(-1)


def any_of(flag: bool) -> bool:
    """Whether the flag is set on any process: all get the same answer."""
    return bool(all_flags(flag).any())


def from_first(tree: Any) -> Any:
    """Process 0's arrays, on the host, on every process."""
    return multihost_utils.broadcast_one_to_all(tree)


def in_turn(compute: Callable[[], Any]) -> Any:
    """Runs `compute` on process 0, then on the others, which find the files that it wrote.

    Raises:
        BadInput: raised by `compute` here; or on another process, so that none waits for it.
    """
    result = problem = None
    for turn in (True, False):
        if first() == turn:
            try:
                result = compute()
            except BadInput as e:
                problem = e
        failed = np.flatnonzero(all_flags(problem is not None))
        if problem:
            raise problem
        if len(failed):
            raise BadInput(f"process {failed[0]} cannot continue, its own message says why")
    return result


def check_same(name: str, digest: str) -> None:
    """BadInput on every process unless all have the same `digest`, of 16 characters."""
    mine = np.frombuffer(digest.encode(), np.uint8)
    theirs = multihost_utils.process_allgather(mine).reshape(-1, len(mine))
    (differ,) = np.nonzero((theirs != theirs[0]).any(1))
    if len(differ):
        zero, other = (theirs[i].tobytes().decode() for i in (0, differ[0]))
        raise BadInput(
            f"{name}: process 0 has {zero}, process {differ[0]} has {other}; "
            "start every process with the same command"
        )


def leave() -> None:
    """Waits for all processes, and parts from them."""
    if jax.distributed.is_initialized():
        multihost_utils.sync_global_devices("leave")
        _PARTED.set()
        jax.distributed.shutdown()


def quit_with(code: int) -> int:
    """Ends a process that failed without waiting for the others; alone, returns `code`.

    Process 0 ends last: the others cannot live without it, and may have something to say.
    """
    if not jax.distributed.is_initialized():
        return code
    sys.stdout.flush()
    sys.stderr.flush()
    if code == interrupts.CODES[signal.SIGTERM]:
        _share_sigterm(code)
    elif first():
        time.sleep(2)
    os._exit(code)


def lost(error: Exception) -> str | None:
    """The line that tells of another process's loss, or None if `error` is of another kind."""
    if not jax.distributed.is_initialized():
        return None
    lines = [line for line in str(error).splitlines() if re.search("gloo|nccl|UNAVAIL", line, re.I)]
    return f"{_LOST_LINE} ({lines[0][:150]})" if lines else None


def _in_use(address: str) -> bool:
    """Whether another process listens on the port of this host."""
    try:
        with socket.socket() as s:
            # what an earlier run left closing is not in use
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            s.bind(("", int(address.rpartition(":")[2])))
        return False
    except OSError as e:
        return e.errno == errno.EADDRINUSE


def _give_up(line: str) -> None:
    print(f"error: {line}", file=sys.stderr, flush=True)
    os._exit(LOST)


def _share_sigterm(code: int) -> None:
    """Tells all processes of a SIGTERM that ends this one, and waits until they know.

    A process that leaves before would be lost to the others.
    """
    if code == interrupts.CODES[signal.SIGTERM]:
        _store().key_value_set(_SIGTERM, "came", allow_overwrite=True)
        time.sleep(8 * _POLL_SECS if first() else 4 * _POLL_SECS)


def _await_sigterm() -> None:
    """Sends this process the SIGTERM that another one got."""
    while not _PARTED.wait(_POLL_SECS):
        try:
            _store().key_value_try_get(_SIGTERM)
        except Exception:  # no process got one, or process 0 is gone, which others tell
            continue
        os.kill(os.getpid(), signal.SIGTERM)
        return


def _store():
    """The small store that process 0 keeps for all; JAX has no public name for it."""
    return distributed.global_state.client


def _tell_before_abort() -> None:
    """Lets the process end with our line and code where JAX aborts it, for a loss that it noticed.

    JAX has no way to be asked for that: a handler in Python runs too late for an abort.
    """
    global _ON_ABORT

    def tell(_: int) -> None:
        os.write(2, f"error: {_LOST_LINE}\n".encode())
        os._exit(LOST)

    _ON_ABORT = ctypes.CFUNCTYPE(None, ctypes.c_int)(tell)
    ctypes.CDLL(None).signal(signal.SIGABRT, _ON_ABORT)
