"""The run directory: its name, its owner, and whose config and data it holds.

Not responsible for what is logged there (`logs`) or saved (`checkpoints`).
"""

import glob
import hashlib
import json
import os
import re
from pathlib import Path
from typing import IO

from ml_collections import config_dict

from sigah_jax.config import DECODER_STAGES, as_json, fields_of
from sigah_jax.devices import hosts
from sigah_jax.errors import BadInput, printable
from sigah_jax.files import locks, whole

SEAL = "seal.json"  # in the directory of a checkpoint that is whole
OLD_SEAL = "facts/metadata"  # the same, of versions before there were seals
# what a killed run may leave of the files that it alone writes
_PARTIAL = [f"{name}.json.partial-*" for name in ("config", "data", "results", "eval_*")]
_PARTIAL += [f"{name}.partial-*" for name in ("encoder.npz", "metrics.jsonl", "plots/**/*")]
_PARTIAL += ["*/metrics.jsonl.partial-*"]  # of the decoder's trainings

# fields of where and how a run is started and watched, on which no result depends
NOT_IDENTITY = ("distributed", "sinks", "profile.steps", "engine", "data.dir", "train.gather")
# fields that versions before did not have, and the values by which they trained
BEFORE = {"data.metric": "l2", "data.queries_train": ""}
BEFORE |= {"train.graph": "exact", "train.graph_probes": 32, "train.gather": "auto"}
BEFORE |= {"loss.neighbours": 1, "apart.neighbours": 1, "train.epochs": 0}
BEFORE |= {"refit.epochs": 0}


def run_directory(config, experiment: str, overrides: dict) -> Path:
    """`runs/<experiment>/<arguments>/seed<k>`, a pure function of the command line.

    Args:
        experiment: name of the config file without ending.
        overrides: dotted field -> value, as given by `--config.field=value`.
    """
    fields = {"preset": config.preset, "bits": config.model.bits}
    elsewhere = ("seed", *NOT_IDENTITY)  # in the path, or without a part in the result
    fields |= {k: v for k, v in sorted(overrides.items()) if k not in elsewhere}
    arguments = ",".join(f"{name}={value}" for name, value in fields.items())
    # ASCII: a file system counts bytes, and not every locale has every letter
    safe = re.sub(r"[^\w.,=+-]", "_", arguments, flags=re.ASCII)
    if safe != arguments or len(safe) > 200:
        given = arguments.encode(errors="surrogateescape")
        safe = f"{safe[:190]}-{hashlib.blake2b(given, digest_size=4).hexdigest()}"
    return Path("runs") / experiment / safe / f"seed{config.seed}"


def config_hash(config) -> str:
    """16 hex digits over every field of the config but those of `NOT_IDENTITY`."""
    text = json.dumps(_identity(config.to_dict()), sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def stage_directory(workdir: Path, stage: str) -> Path:
    """Where a run keeps a training of its decoder: a stage of `config.decoder_stages`."""
    return workdir / stage


def encoder_path(workdir: Path) -> Path:
    """The encoder that a finished training leaves."""
    return workdir / "encoder.npz"


def check_output(output: Path, workdir: Path) -> None:
    """BadInput if a command would replace the encoder that it reads, or leave one in a run."""
    workdir = Path(os.path.expanduser(workdir))
    for encoder in (workdir, encoder_path(workdir)):
        if os.path.realpath(output) == os.path.realpath(encoder):
            raise BadInput(f"--output={output}: is the encoder of --workdir; use another name")


def claim(workdir: Path, config) -> IO:
    """Makes the directory if needed, locks it, and writes or compares `config.json`.

    A run that has not `begun`, because it failed on its data or config, does not hold the
    directory: another config takes its place. Of the processes of one run, all call this; the
    first has the lock, the others compare.

    Returns:
        The locked file. The lock ends with the process, however it ends; keep the file.

    Raises:
        BadInput: not writable, a bucket, a name with which checkpoints cannot be saved, in use by
            another run, or made by another config.
    """
    _check_name(workdir)
    whole.check_on_disk(workdir)
    if glob.has_magic(str(workdir.absolute())):  # the library of checkpoints takes it for a pattern
        raise BadInput(
            f"{workdir.absolute()}: holds one of the letters * ? [, with which checkpoints cannot "
            "be saved; rename the directory, or use another --workdir"
        )
    return hosts.in_turn(
        lambda: _claim(workdir, config) if hosts.first() else _join(workdir, config)
    )


def _check_name(workdir: Path) -> None:
    """BadInput if checkpoints cannot be written or read there: their library takes UTF-8 only."""
    try:
        str(workdir.absolute()).encode()
    except UnicodeEncodeError as e:
        raise BadInput(
            f"{printable(str(workdir))}: the name holds bytes that are not UTF-8, or letters that "
            "the locale does not have; rename the directory, or set LC_ALL=C.UTF-8"
        ) from e


def _claim(workdir: Path, config) -> IO:
    with whole.telling(workdir, "use another --workdir"):
        workdir.mkdir(parents=True, exist_ok=True)
        lock = locks.open_file(workdir / "lock")
    path = workdir / "config.json"
    try:
        if not locks.take(lock, workdir / "lock"):
            raise BadInput(
                f"{workdir}: another process is running here; wait for it or use another --workdir"
            )
        for pattern in _PARTIAL:  # no other process writes these while we have the lock
            for left in workdir.glob(pattern):
                left.unlink(missing_ok=True)
        ours = path.exists() and bool(_held(path))  # a foreign config.json is refused
        if ours and begun(workdir):
            _compare(path, config)
        elif not ours and any(p.name != "lock" for p in workdir.iterdir()):
            if not os.fstat(lock.fileno()).st_size:
                (workdir / "lock").unlink(missing_ok=True)  # the directory is somebody else's
            raise BadInput(f"{workdir}: holds files but no config.json; use an empty --workdir")
        else:
            (workdir / "data.json").unlink(missing_ok=True)
            whole.write_json(path, {"hash": config_hash(config), "config": config.to_dict()})
    except BaseException:
        lock.close()
        raise
    return lock


def begun(workdir: Path) -> bool:
    """Whether a run there has left anything that is used again: a checkpoint, or its end."""
    ends = workdir / "results.json", encoder_path(workdir)
    trainings = workdir, *(stage_directory(workdir, stage) for stage in DECODER_STAGES)
    return any(path.exists() for path in ends) or any(saved_steps(path) for path in trainings)


def saved_steps(workdir: Path) -> list[int]:
    """The steps of the checkpoints there, rising: those that are sealed, see `checkpoints`."""
    try:
        found = [p for p in (workdir / "checkpoints").iterdir() if p.name.isdecimal()]
        return sorted(int(p.name) for p in found if (p / SEAL).exists() or (p / OLD_SEAL).exists())
    except FileNotFoundError:
        return []
    except OSError as e:
        raise BadInput(f"{e.filename}: cannot be read ({e.strerror}); check its permissions") from e


def _join(workdir: Path, config) -> IO:
    path = workdir / "config.json"
    if not path.exists():
        raise BadInput(
            f"{path}: process 0 wrote it, but it is not here; give every process the same "
            "--workdir, on a file system that all see"
        )
    _compare(path, config)
    return path.open()


def claim_data(workdir: Path, hashes: dict[str, str]) -> None:
    """Writes or compares `data.json`, the hashes of the rows that a run depends on.

    The config names files, and their rows may change while the name stays. Until the run has
    `begun` the first process writes, and the others compare.

    Args:
        hashes: of the parts of the data set, by name.

    Raises:
        BadInput: the run there has other rows.
    """
    hosts.in_turn(lambda: _claim_data(workdir, hashes))


def _claim_data(workdir: Path, hashes: dict[str, str]) -> None:
    path = workdir / "data.json"
    if hosts.first() and not begun(workdir):
        whole.write_json(path, {"hashes": hashes})
        return
    try:
        held = whole.read_json(path, f"start anew in another --workdir than {workdir}")
    except FileNotFoundError as e:
        raise BadInput(
            f"{path}: is missing, so nothing tells which rows the run there has; bring it back or "
            "use another --workdir"
        ) from e
    if "hashes" not in held:
        raise BadInput(f"{workdir}: begun by another version; train in another --workdir")
    if held["hashes"] != hashes:
        raise BadInput(
            f"{workdir}: the run there has other rows than the data now; bring them back or use "
            "another --workdir"
        )


def read_config(workdir: Path) -> tuple[config_dict.ConfigDict, str]:
    """The config of a run directory, with the fields of `BEFORE`, and its hash.

    Raises:
        BadInput: there is none.
    """
    _check_name(workdir)
    path = workdir / "config.json"
    try:
        held = whole.read_json(path, "train in another --workdir")
        return config_dict.ConfigDict(with_fields_of_before(held["config"])), held["hash"]
    except FileNotFoundError as e:
        raise BadInput(f"{workdir}: has no config.json, so it is not a run's; train first") from e
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        if isinstance(e, BadInput):
            raise
        raise BadInput(f"{path}: is not a run's config ({e}); train anew") from e


def with_fields_of_before(groups: dict) -> dict:
    """A config, or some of its groups, with the fields of `BEFORE` that it lacks."""
    filled = dict(groups)
    for name, value in BEFORE.items():
        group, field = name.split(".")
        if group in filled:
            filled[group] = {field: value} | filled[group]
    return filled


def _held(path: Path) -> dict:
    """The identity in a run's `config.json`; BadInput if it is not one."""
    try:
        return _identity(whole.read_json(path, "use another --workdir")["config"])
    except (KeyError, TypeError, AttributeError) as e:
        raise BadInput(f"{path}: is not a run's; use another --workdir") from e


def _compare(path: Path, config) -> None:
    a = _held(path)
    b = _identity(as_json(config))
    if a != b:
        differ = [
            f"{k}={a.get(k, BEFORE.get(k))} there" for k in sorted(a | b) if a.get(k) != b.get(k)
        ]
        raise BadInput(
            f"{path.parent}: made by another config ({', '.join(differ[:3])}); "
            "give these values to resume it, or use another --workdir"
        )


def _identity(tree: dict) -> dict:
    """Dotted field -> value, of all that a result depends on; those of `BEFORE` are left out."""
    fields = fields_of(tree).items()
    return {
        name: value
        for name, value in fields
        if name not in NOT_IDENTITY and BEFORE.get(name) != value
    }
