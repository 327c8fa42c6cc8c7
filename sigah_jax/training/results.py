"""What a run leaves at its end: the results file, the pictures, the table for people.

Not responsible for how metrics are computed (`evaluate`) nor for drawing (`report`).
"""

import platform
import resource
import subprocess
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from sigah_jax.config import first_steps
from sigah_jax.data.datasets import Dataset
from sigah_jax.encoder import hasher
from sigah_jax.errors import BadInput
from sigah_jax.files import whole
from sigah_jax.report import plots, tables
from sigah_jax.retrieval import codes
from sigah_jax.retrieval.metric import rows_of
from sigah_jax.run import checkpoints, logs, rundir
from sigah_jax.training import evaluate

SHEET_IMAGES = 20
_REMEDY = "remove it, then the training's command evaluates again"


def write(
    config,
    workdir: Path,
    cache: Path,
    log: logs.Log,
    data: Dataset,
    h: hasher.Hasher,
    seconds: dict,
    path: Path,
    pictures: Path,
) -> None:
    """Evaluates on the test queries, writes `path` and `pictures`, a directory, prints a table."""
    start, euclidean = time.monotonic(), h.euclidean
    values, curves, parts = evaluate.test(config, cache, data, euclidean)
    seconds = seconds | parts | {"evaluate": round(time.monotonic() - start, 3)}
    checkpoints.tell_of_changed_rows(workdir, first_steps(config, len(data.xt)), log)
    draw(config, logs.read_rows(workdir / "metrics.jsonl"), pictures, data, euclidean, curves)
    curves = {method: curve_of(curve) for method, curve in curves.items()}
    made = facts(config, data, seconds)
    made["refinement"] = h.refinement._asdict() | h.facts.get("refinement", {})
    made["query_scale"] = h.query_scale
    whole.write_json(path, made | {"metrics": values, "pr_curves": curves})
    log.line("\n" + tables.method_table(values, tables.COLUMNS, config.model.bits))
    log.line(f"results: {path}  plots: {pictures}")


def read(path: Path) -> dict:
    """A results file; BadInput if it is damaged."""
    results = whole.read_json(path, _REMEDY)
    if not isinstance(results.get("metrics"), dict):
        raise BadInput(f"{path}: damaged (it has no metrics); {_REMEDY}")
    return results


def facts(config, data: Dataset, seconds: dict) -> dict:
    """What a results file says beside metrics: config, code, machine, data, time, memory."""
    return {
        "config_hash": rundir.config_hash(config),
        "config": config.to_dict(),
        "commit": commit(),
        "device": f"{len(jax.devices())} x {jax.devices()[0].device_kind}",
        "processes": jax.process_count(),
        "versions": {"python": platform.python_version(), "jax": jax.__version__},
        "data": data.origin,
        "rows": {"base": len(data.xb), "training": len(data.xt), "queries": len(data.xq)},
        "seed": config.seed,
        "bits": config.model.bits,
        "seconds": seconds,
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def curve_of(curve: tuple[list, list]) -> list[list]:
    """A precision-recall curve as JSON has it: null where a radius retrieves nothing."""
    return [[None if np.isnan(x) else x for x in values] for values in curve]


def draw(
    config, rows: list[dict], pictures: Path, data: Dataset, h: hasher.Hasher, curves: dict
) -> None:
    """Training curves, precision-recall curves, and for images a sheet of synthetic features."""
    if rows:
        plots.training_curves(rows, pictures / "training.png")
    title = f"{config.data.name}, {config.model.bits} bits"
    plots.precision_recall(curves, title, pictures / "precision_recall.png")
    if data.image_shape:
        x = data.xq[:SHEET_IMAGES]
        packed = h.encode(x)
        images = (rows_of(data.metric, points) for points in (x, h.synthesise(packed)))
        real, synthetic = (rows.reshape(-1, *data.image_shape) for rows in images)
        plots.feature_sheet(
            real,
            np.asarray(codes.unpack(jnp.asarray(packed), h.bits)),
            synthetic,
            pictures / "synthetic.png",
        )


def commit() -> str:
    """The git commit of the code, or "unknown" outside a checkout.

    An installed package may lie in somebody else's repository, which does not hold this file.
    """
    here = Path(__file__)

    def git(*arguments: str) -> str:
        command = ["git", *arguments]
        options = {"cwd": here.parent, "capture_output": True, "text": True, "check": True}
        return subprocess.run(command, **options).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", here.name)
        return git("rev-parse", "HEAD")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
