"""An experiment: a run, and the evaluation of its encoder and the baselines on test queries.

Not responsible for flags (`main`) nor for what is written (`results`).
"""

import functools
import time
from pathlib import Path

from sigah_jax.data.datasets import Dataset, load_dataset
from sigah_jax.devices import hosts
from sigah_jax.errors import BadInput
from sigah_jax.report import tables
from sigah_jax.run import loading, rundir
from sigah_jax.training import results
from sigah_jax.training.run import claimed, run


def train_and_evaluate(config, workdir: Path, cache: Path) -> None:
    """Trains, or resumes, in `workdir`, then evaluates its encoder and writes `results.json`.

    Of several processes the first evaluates. A run that has its results shows them, and reads no
    data.

    Args:
        cache: directory of ground truth and graph, which runs on equal data may share.
    """
    seconds = {}

    @functools.cache
    def data() -> Dataset:
        start = time.monotonic()
        dataset = load_dataset(config)
        seconds["load"] = round(time.monotonic() - start, 3)
        return dataset

    h = run(config, workdir, cache, data)
    path = workdir / "results.json"
    with claimed(config, workdir) as log:
        if hosts.any_of(path.exists()):
            values = results.read(path)["metrics"]
            log.line(tables.method_table(values, tables.COLUMNS, config.model.bits))
            log.line(f"finished before: {path}; remove {workdir} to train again")
            return
        dataset = hosts.in_turn(data)
        rundir.claim_data(workdir, dataset.hashes)
        if hosts.first():
            seconds |= h.facts["seconds"]
            results.write(config, workdir, cache, log, dataset, h, seconds, path, workdir / "plots")


def evaluate_only(config, workdir: Path, cache: Path, checkpoint: str) -> None:
    """Evaluates a checkpoint of a finished or interrupted run and writes `eval_<checkpoint>.json`.

    Its pictures are in `plots/eval_<checkpoint>`. `results.json` and its pictures are left to
    training: they say that a run is finished. Of several processes the first evaluates.
    """
    if not (workdir / "config.json").exists():
        raise BadInput(f"{workdir}: no run there; train first, or give --workdir")
    with claimed(config, workdir) as log:
        dataset = hosts.in_turn(lambda: load_dataset(config))
        rundir.claim_data(workdir, dataset.hashes)
        if hosts.first():
            h = loading.load(workdir, checkpoint)
            log.line(f"evaluating checkpoint {checkpoint} of {workdir}")
            name = f"eval_{checkpoint}"
            path, pictures = workdir / f"{name}.json", workdir / "plots" / name
            results.write(config, workdir, cache, log, dataset, h, {}, path, pictures)
