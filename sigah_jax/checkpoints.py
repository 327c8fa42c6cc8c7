"""Checkpoints through orbax; no other file knows orbax.

Kept are the latest two and the best by validation map. A save appears whole or not at all.
Of several processes all save and restore together, but each may read alone.

Not responsible for when to save: `train`.
"""

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from sigah_jax import parallel
from sigah_jax.errors import BadInput


@contextlib.contextmanager
def open_manager(workdir: Path, read_only: bool) -> Iterator[ocp.CheckpointManager]:
    """The checkpoints of a run directory; unfinished saves of a killed process are removed.

    With `read_only` nothing is written or removed: a training may be saving there. A process
    then reads alone; otherwise all processes open together.

    Closed at the end whatever happens: a thread of orbax would complain on standard error.
    """
    me = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(
        primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"reader{me}"
    )
    options = ocp.CheckpointManagerOptions(
        multiprocessing_options=alone if read_only else ocp.options.MultiprocessingOptions(),
        preservation_policy=policies.AnyPreservationPolicy(
            [
                policies.LatestN(2),
                policies.BestN(get_metric_fn=_score, n=1, keep_checkpoints_without_metrics=False),
            ]
        ),
        best_fn=_score,  # without it orbax forgets the scores of before a restart
        cleanup_tmp_directories=not read_only,
        create=not read_only,
        enable_async_checkpointing=False,
    )
    manager = ocp.CheckpointManager((workdir / "checkpoints").resolve(), options=options)
    try:
        yield manager
    finally:
        manager.close()


def save(
    manager: ocp.CheckpointManager, step: int, state: Any, shape: list[int], metrics: dict | None
) -> None:
    """Saves `state` under `step`.

    Args:
        state: whole on every process.
        shape: `[d, P]` of the standardiser's projection, from which `restore`'s target is built.
        metrics: holds `eval/map`; None without validation.
    """
    facts = {"shape": list(shape), "metrics": metrics, "arrays": _arrays(state)}
    state = parallel.across_processes(state)
    args = ocp.args.Composite(state=ocp.args.StandardSave(state), facts=ocp.args.JsonSave(facts))
    manager.save(step, args=args, metrics=metrics or {"eval/map": -math.inf})


def facts(manager: ocp.CheckpointManager, step: int) -> dict:
    """What is known beside the state: `{"shape", "metrics", "arrays"}`."""
    path = Path(manager.directory) / str(step)
    if step not in manager.all_steps():
        raise BadInput(f"{path}: no such checkpoint; there are {sorted(manager.all_steps())}")
    try:
        return manager.restore(step, args=ocp.args.Composite(facts=ocp.args.JsonRestore()))["facts"]
    except (ValueError, KeyError, FileNotFoundError) as e:
        raise BadInput(f"{path}: damaged; remove it, the run goes on from an earlier one") from e


def best_step(manager: ocp.CheckpointManager) -> int | None:
    """The validated step of highest `eval/map`, the latest of equals, which is the one kept."""
    metrics = {step: facts(manager, step)["metrics"] for step in sorted(manager.all_steps())}
    scores = {step: m["eval/map"] for step, m in metrics.items() if m}
    return max(scores, key=lambda step: (scores[step], step)) if scores else None


def number_of(manager: ocp.CheckpointManager, workdir: Path, checkpoint: str) -> int:
    """The step that "best", "latest" or a step's number means; BadInput if there is none."""
    steps = list(manager.all_steps())
    if not steps:
        raise BadInput(f"{workdir}: no checkpoint yet; train first")
    if checkpoint not in ("best", "latest") and not checkpoint.isdecimal():
        raise BadInput(f"--checkpoint={checkpoint}: expected best, latest or a step of {steps}")
    if checkpoint == "best":
        number = best_step(manager)
        if number is None:
            raise BadInput(f"{workdir}: no checkpoint is validated yet; use --checkpoint=latest")
        return number
    return max(steps) if checkpoint == "latest" else int(checkpoint)


def restore(manager: ocp.CheckpointManager, step: int, like: Any, sharding: Any) -> Any:
    """The state saved under `step`, placed by `sharding`, by all processes that it spans.

    Args:
        like: a state of the same structure and shapes; arrays or `ShapeDtypeStruct`.

    Raises:
        BadInput: the checkpoint is missing, damaged or of another shape.
    """
    path = Path(manager.directory) / str(step)
    # compared here, for a restore that fails inside orbax leaves threads that complain at exit
    there, wanted = facts(manager, step)["arrays"], _arrays(like)
    differ = [name for name in sorted(there | wanted) if there.get(name) != wanted.get(name)]
    if differ:
        name = differ[0]
        raise BadInput(
            f"{path}: of another shape than the config: {name} is {there.get(name)} there, "
            f"{wanted.get(name)} is expected; use another --workdir"
        )
    target = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding), like)
    try:
        args = ocp.args.Composite(state=ocp.args.StandardRestore(target))
        return manager.restore(step, args=args)["state"]
    except (ValueError, KeyError, FileNotFoundError) as e:
        reason = str(e).strip().splitlines()[0][:200]
        raise BadInput(
            f"{path}: damaged ({reason}); remove it, the run goes on from an earlier one"
        ) from e


def _score(metrics: dict) -> float:
    return metrics["eval/map"]


def _arrays(state: Any) -> dict[str, str]:
    """Name -> "float32[2,3]" of every array of a tree."""
    return {
        jax.tree_util.keystr(path): f"{a.dtype}{list(a.shape)}".replace(" ", "")
        for path, a in jax.tree_util.tree_leaves_with_path(state)
    }
