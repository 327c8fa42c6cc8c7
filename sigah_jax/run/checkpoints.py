"""Checkpoints: orbax writes and reads the arrays, and no other file knows orbax.

A checkpoint is the directory `checkpoints/<step>`: the arrays in `state`, and `seal.json`, which
holds what is known beside them and the hashes of their files. The seal is written last and removed
first: a save or a removal that was cut off leaves a directory without a seal, which nobody looks at
and the next training removes, and arrays that do not fit their seal are never restored. The latest
two are kept, and the best by validation map.

Of several processes all save together, and the first writes the seal and removes.

Not responsible for when to save: `train`.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from sigah_jax.devices import hosts, parallel
from sigah_jax.errors import BadInput
from sigah_jax.files import whole
from sigah_jax.run import logs
from sigah_jax.run.rundir import OLD_SEAL, SEAL, saved_steps

LATEST = 2  # kept beside the best
_OVERHEAD_BYTES = 2**20  # of a checkpoint beside its arrays: small files, each a block at least
_DAMAGED = "remove its directory, then a training resumes from an earlier one"


class Gone(BadInput):
    """A checkpoint that was listed is not there any more: a training has replaced it meanwhile."""


def remove_torn(workdir: Path) -> None:
    """Removes what killed saves and removals left; only for the process that owns `workdir`."""
    whole_ones = {str(step) for step in saved_steps(workdir)}
    for path in _directory(workdir).glob("*"):
        if path.is_file():
            path.unlink()
        elif path.name not in whole_ones:
            shutil.rmtree(path)


def save(
    workdir: Path,
    step: int,
    state: Any,
    metrics: dict | None,
    rows_hash: str,
    last: bool,
) -> None:
    """Saves `state` under `step`, and removes the checkpoints that are not to be kept.

    Args:
        state: whole on every process.
        metrics: holds `eval/map`; None without validation.
        rows_hash: of metrics.jsonl as it is now.
        last: whether the training ends with this step.

    Raises:
        BadInput: the disk is full or refuses; earlier checkpoints stay.
    """
    directory = _directory(workdir)
    path = directory / str(step)

    def make_room() -> None:
        if hosts.first():
            with _saving(path):
                arrays_bytes = sum(a.nbytes for a in jax.tree.leaves(state))
                _check_room(directory, 2 * arrays_bytes + _OVERHEAD_BYTES)

    def seal() -> None:
        if not hosts.first():
            return
        known = {"metrics": metrics, "rows_hash": rows_hash, "last": last}
        scores = _scores(_metrics(workdir) | {step: metrics})
        known |= {"best": _best(scores), "arrays": _arrays(state)}
        with _saving(path):
            _sync(path / "state")
            whole.write_json(path / SEAL, known | {"files": _hashes(path / "state")})
            steps = saved_steps(workdir)
            for old in set(steps) - {*steps[-LATEST:], known["best"]}:
                for name in (SEAL, OLD_SEAL):
                    (directory / str(old) / name).unlink(missing_ok=True)
                shutil.rmtree(directory / str(old))

    hosts.in_turn(make_room)
    with _saving(path), _checkpointer(ocp.StandardCheckpointHandler) as orbax:
        args = ocp.args.StandardSave(parallel.across_processes(state))
        orbax.save((path / "state").resolve(), args=args)
    hosts.in_turn(seal)


def facts(workdir: Path, step: int) -> dict:
    """What is known beside the arrays: `{"metrics", "rows_hash", "last", "best", "arrays", …}`.

    A checkpoint of a version before there were seals has no hashes and no best, and is not checked.

    Raises:
        Gone: it is not there.
        BadInput: it is damaged.
    """
    path = _directory(workdir) / str(step)
    with contextlib.suppress(FileNotFoundError):  # then it may be of an older version
        return whole.read_json(path / SEAL, _DAMAGED)
    try:
        return json.loads((path / OLD_SEAL).read_bytes())
    except FileNotFoundError as e:
        raise Gone(f"{path}: no such checkpoint; there are {saved_steps(workdir)}") from e
    except (OSError, ValueError) as e:
        raise BadInput(f"{path}: damaged ({e}); {_DAMAGED}") from e


def tell_of_changed_rows(workdir: Path, step: int, log: logs.Log) -> None:
    """Says so if metrics.jsonl is not what it was when the checkpoint of that step was saved."""
    if not hosts.first():
        return
    path, held = workdir / "metrics.jsonl", None
    with contextlib.suppress(BadInput):  # none, or damaged: who needs it refuses it
        held = facts(workdir, step).get("rows_hash")
    if held not in (None, logs.rows_hash(path)):
        log.line(
            f"{path}: is not as it was at step {step}: rows are missing or were changed. Plots "
            "show the rows that are there"
        )


def best_step(workdir: Path) -> int | None:
    """The validated step of highest `eval/map`, the latest of equals, which is the one kept.

    Raises:
        Gone: a training removes checkpoints meanwhile.
        BadInput: a checkpoint is damaged, or the latest knows a better one that is not there.
    """
    found = _metrics(workdir)
    best = _best(_scores(found))
    known = facts(workdir, max(found)).get("best", best) if found else best
    if known != best:
        path = _directory(workdir) / str(known)
        raise BadInput(
            f"{path}: the best checkpoint was removed; bring it back, name another by "
            "--checkpoint, or start anew in another --workdir"
        )
    return best


def number_of(workdir: Path, checkpoint: str) -> int:
    """The step that "best", "latest" or a step's number means; BadInput if there is none."""
    steps = saved_steps(workdir)
    if not steps:
        raise BadInput(f"{workdir}: no checkpoint yet; train first")
    if checkpoint not in ("best", "latest") and not checkpoint.isdecimal():
        raise BadInput(f"--checkpoint={checkpoint}: expected best, latest or a step of {steps}")
    if checkpoint == "best":
        number = best_step(workdir)
        if number is None:
            raise BadInput(f"{workdir}: no checkpoint is validated yet; use --checkpoint=latest")
        return number
    number = steps[-1] if checkpoint == "latest" else int(checkpoint)
    if number not in steps:
        raise BadInput(f"--checkpoint={checkpoint}: no such checkpoint; there are {steps}")
    return number


def restore(workdir: Path, step: int, like: Any, sharding: Any) -> Any:
    """The state saved under `step`, placed by `sharding`, by all processes that it spans.

    Args:
        like: a state of the same structure and shapes; arrays or `ShapeDtypeStruct`.

    Raises:
        Gone: it is not there, or was removed while it was read.
        BadInput: the checkpoint is damaged or of another shape.
    """
    path = _directory(workdir) / str(step)
    there, wanted = facts(workdir, step)["arrays"], _arrays(like)
    differ = [name for name in sorted(there | wanted) if there.get(name) != wanted.get(name)]
    if differ:
        name = differ[0]
        raise BadInput(
            f"{path}: of another shape than the config: {name} is {there.get(name)} there, "
            f"{wanted.get(name)} is expected; use another --workdir"
        )
    target = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding), like)
    with _reading(workdir, step) as arrays, _checkpointer(ocp.StandardCheckpointHandler) as orbax:
        return orbax.restore(arrays, args=ocp.args.StandardRestore(target))


def read(workdir: Path, step: int, fields: tuple[str, ...]) -> dict:
    """Fields of the state saved under `step`, as trees of numpy arrays, read by this process alone.

    Raises:
        Gone, BadInput: as `restore`.
    """
    item, args = {}, {}
    for name in facts(workdir, step)["arrays"]:  # for example .gen['decoder']['offset']
        *groups, last = names = re.findall(r"\w+", name)
        if names[0] in fields:
            for tree, value in ((item, 0), (args, ocp.RestoreArgs(restore_type=np.ndarray))):
                for group in groups:
                    tree = tree.setdefault(group, {})
                tree[last] = value
    wanted = ocp.args.PyTreeRestore(item, args, partial_restore=True)
    with (
        _reading(workdir, step) as arrays,
        _checkpointer(ocp.PyTreeCheckpointHandler, alone=True) as orbax,
    ):
        return orbax.restore(arrays, args=wanted)


@contextlib.contextmanager
def _reading(workdir: Path, step: int) -> Iterator[Path]:
    """The directory of arrays that fit their seal; what reading them raises becomes BadInput."""
    path = _directory(workdir) / str(step)
    try:
        if (held := facts(workdir, step).get("files")) is not None:
            found = _hashes(path / "state")
            wrong = [name for name in held if held[name] != found.get(name)]
            if wrong:
                raise ValueError(f"state/{wrong[0]} is missing or does not fit its hash")
        yield (path / "state").resolve()
    except PermissionError as e:
        raise BadInput(f"{e.filename}: cannot be read ({e.strerror}); check its permissions") from e
    except (OSError, ValueError, KeyError) as e:
        if isinstance(e, BadInput):
            raise
        facts(workdir, step)  # raises Gone if that is the reason
        raise BadInput(f"{path}: damaged ({_first_line(e)}); {_DAMAGED}") from e


def _directory(workdir: Path) -> Path:
    return workdir / "checkpoints"


def _checkpointer(handler: Callable, alone: bool = False) -> ocp.Checkpointer:
    """Orbax's, of all processes together or of this one alone."""
    me = jax.process_index()
    options = ocp.options.MultiprocessingOptions()
    if alone:
        options = ocp.options.MultiprocessingOptions(
            primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"reader{me}"
        )
    made = handler(multiprocessing_options=options)
    return ocp.Checkpointer(made, multiprocessing_options=options)


def _metrics(workdir: Path) -> dict[int, dict | None]:
    """Step -> metrics of all checkpoints."""
    return {step: facts(workdir, step)["metrics"] for step in saved_steps(workdir)}


def _scores(metrics: dict[int, dict | None]) -> dict[int, float]:
    """Step -> validation map of those that were validated."""
    return {step: m["eval/map"] for step, m in metrics.items() if m}


def _best(scores: dict[int, float]) -> int | None:
    return max(scores, key=lambda step: (scores[step], step)) if scores else None


@contextlib.contextmanager
def _saving(path: Path) -> Iterator[None]:
    """Turns what the disk says into BadInput, where orbax raises nearly anything."""
    try:
        yield
    except (OSError, ValueError, RuntimeError) as e:
        if hosts.lost(e):
            raise
        raise BadInput(
            f"{path}: cannot be saved ({_first_line(e)}); free space or check its directory, then "
            "the same command resumes from the last checkpoint"
        ) from e


def _check_room(directory: Path, needed_bytes: int) -> None:
    """Raises OSError if the disk has no room: orbax's threads would tell of that in pages."""
    directory.mkdir(exist_ok=True)
    path = directory / "room"
    try:
        with path.open("wb") as f:
            f.write(bytes(needed_bytes))
    finally:
        path.unlink(missing_ok=True)


def _hashes(directory: Path) -> dict[str, str]:
    """Name -> hash of every file below a directory."""
    found = {}
    for path in _files(directory):
        with path.open("rb") as f:
            digest = hashlib.file_digest(f, lambda: hashlib.blake2b(digest_size=16))
        found[str(path.relative_to(directory))] = digest.hexdigest()
    return found


def _sync(directory: Path) -> None:
    """Waits until all files are on the disk: after a crash none may be older than its seal."""
    for path in _files(directory):
        with path.open("rb") as f:
            os.fsync(f.fileno())


def _files(directory: Path) -> list[Path]:
    return sorted(p for p in directory.rglob("*") if p.is_file())


def _first_line(e: Exception) -> str:
    return next(iter(str(e).strip().splitlines()), type(e).__name__)[:200]


def _arrays(state: Any) -> dict[str, str]:
    """Name -> "float32[2,3]" of every array of a tree."""
    return {
        jax.tree_util.keystr(path): f"{a.dtype}{list(a.shape)}".replace(" ", "")
        for path, a in jax.tree_util.tree_leaves_with_path(state)
    }
