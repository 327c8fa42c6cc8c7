"""The run directory: its name, its owner, and whose config it holds.

Not responsible for what is logged there (`logs`) or saved (`checkpoints`).
"""

import fcntl
import hashlib
import json
import re
from pathlib import Path
from typing import IO

from ml_collections import config_dict

from sigah_jax import logs
from sigah_jax.errors import BadInput


def run_directory(config, experiment: str, overrides: dict) -> Path:
    """`runs/<experiment>/<arguments>/seed<k>`, a pure function of the command line.

    Args:
        experiment: name of the config file without ending.
        overrides: dotted field -> value, as given by `--config.field=value`.
    """
    fields = {"preset": config.preset, "bits": config.model.bits}
    fields |= {k: v for k, v in sorted(overrides.items()) if k not in ("seed", "model.bits")}
    arguments = ",".join(f"{name}={value}" for name, value in fields.items())
    safe = re.sub(r"[^\w.,=+-]", "_", arguments)
    if safe != arguments or len(safe) > 200:
        digest = hashlib.blake2b(arguments.encode(), digest_size=4).hexdigest()
        safe = f"{safe[:190]}-{digest}"
    return Path("runs") / experiment / safe / f"seed{config.seed}"


def config_hash(config) -> str:
    """16 hex digits over every field of the config."""
    return hashlib.blake2b(_dump(config).encode(), digest_size=8).hexdigest()


def claim(workdir: Path, config) -> IO:
    """Makes the directory if needed, locks it, and writes or compares `config.json`.

    Returns:
        The locked file. The lock ends with the process, however it ends; keep the file.

    Raises:
        BadInput: not writable, in use by another process, or made by another config.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        lock = (workdir / "lock").open("w")
    except OSError as e:
        raise BadInput(f"{workdir}: cannot be written ({e.strerror}); use another --workdir") from e
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as e:
        raise BadInput(
            f"{workdir}: another process is running here; wait for it or use another --workdir"
        ) from e
    path = workdir / "config.json"
    if path.exists():
        _compare(path, config)
    elif any(p.name != "lock" for p in workdir.iterdir()):
        raise BadInput(f"{workdir}: holds files but no config.json; use an empty --workdir")
    else:
        logs.write_json(path, {"hash": config_hash(config), "config": json.loads(_dump(config))})
    return lock


def read_config(workdir: Path) -> tuple[config_dict.ConfigDict, str]:
    """The config of a run directory and its hash; BadInput if there is none."""
    path = workdir / "config.json"
    if not path.exists():
        raise BadInput(f"{workdir}: no config.json, so no run directory; train first")
    try:
        held = json.loads(path.read_text())
        return config_dict.ConfigDict(held["config"]), held["hash"]
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise BadInput(f"{path}: cannot be read as a run's config ({e}); train anew") from e


def _compare(path: Path, config) -> None:
    try:
        theirs, ours = json.loads(path.read_text())["config"], json.loads(_dump(config))
    except (ValueError, KeyError) as e:
        raise BadInput(f"{path}: damaged; remove {path.parent} or use another --workdir") from e
    if theirs != ours:
        a, b = _flat(theirs), _flat(ours)
        differ = [f"{k}={a.get(k)} there" for k in sorted(a | b) if a.get(k) != b.get(k)]
        raise BadInput(
            f"{path.parent}: made by another config ({', '.join(differ[:3])}); "
            "use another --workdir"
        )


def _dump(config) -> str:
    return json.dumps(config.to_dict(), sort_keys=True)


def _flat(tree: dict, prefix: str = "") -> dict:
    out = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            out |= _flat(value, f"{prefix}{name}.")
        else:
            out[prefix + name] = value
    return out
