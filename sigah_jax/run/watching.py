"""Watching a training: TensorBoard, Weights & Biases, a profiler trace, the devices' memory.

All of it is off unless the config asks, except for the memory, which costs nothing. Of several
processes the first is watched.

Not responsible for metrics.jsonl nor what a person sees (`logs`).
"""

import contextlib
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import jax

from sigah_jax.devices import hosts, parallel
from sigah_jax.errors import BadInput
from sigah_jax.files import whole


@contextlib.contextmanager
def open_sinks(config, workdir: Path, done: int) -> Iterator[Callable[[dict], None]]:
    """Yields `send(row)` for rows of metrics.jsonl: `{"step": …, name: number}`.

    TensorBoard files are in `workdir/tensorboard`, those of W&B in `workdir/wandb`; where W&B sends
    them is its own settings' matter (WANDB_MODE, WANDB_PROJECT, …). A resumed run continues both.

    Args:
        done: steps done before; TensorBoard hides rows of later ones, which come again.
    """
    senders, sinks = [], config.sinks if hosts.first() else ()
    with contextlib.ExitStack() as stack:
        if "tensorboard" in sinks:
            from tensorboardX import SummaryWriter

            board = SummaryWriter(
                str(workdir / "tensorboard"), purge_step=done + 1, filename_suffix=f".{done}"
            )
            stack.callback(board.close)
            senders.append(
                lambda row: [board.add_scalar(k, row[k], row["step"]) for k in row if k != "step"]
            )
        if "wandb" in sinks:
            import wandb

            known = workdir / "wandb" / "id"  # so that a resumed run is the same one
            if not known.exists():
                known.parent.mkdir(exist_ok=True)
                whole.write_text(known, secrets.token_hex(4))
            facts = {"name": str(workdir), "config": config.to_dict()}
            try:
                run = wandb.init(dir=workdir, id=known.read_text("utf-8"), resume="allow", **facts)
            except wandb.errors.Error as e:
                reason = str(e).splitlines()[0].rstrip(".")
                raise BadInput(f"config.sinks: wandb: {reason}; or set WANDB_MODE=offline") from e
            stack.callback(run.finish)
            senders.append(lambda row: run.log(row, step=row["step"]))

        def send(row: dict) -> None:
            for sender in senders:
                sender(row)

        yield send


@contextlib.contextmanager
def profiling(config, workdir: Path) -> Iterator[Callable]:
    """Yields `profile(finished, given)`, to be told how far training is.

    The devices have finished the steps up to `finished`, and have those up to `given` or get them
    next. One `jax.profiler` trace in `workdir/profile` lasts from before the steps asked for are
    given until they are finished, or training stops. Open it with TensorBoard's profile plugin, or
    in Perfetto. A run that resumes after the first of these steps makes none.
    """
    wanted = config.profile.steps if hosts.first() else ""
    first, last = map(int, wanted.split(":")) if wanted else (0, 0)
    with contextlib.ExitStack() as trace:
        begun = False

        def profile(finished: int, given: int) -> None:
            nonlocal begun
            if finished < first <= given and not begun:
                begun = True
                jax.profiler.start_trace(str(workdir / "profile"))
                trace.callback(jax.profiler.stop_trace)
            if finished >= last:
                trace.close()

        yield profile


def memory() -> dict[str, int]:
    """`memory/peak_bytes` of the fullest device of this process; nothing where no one knows it."""
    stats = [device.memory_stats() for device in parallel.local_devices()]
    peaks = [s["peak_bytes_in_use"] for s in stats if s and "peak_bytes_in_use" in s]
    return {"memory/peak_bytes": max(peaks)} if peaks else {}
