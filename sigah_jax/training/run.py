"""A run: trains an encoder in a directory, resumes there, or gives the one that is finished.

All that trains goes through `run`: the program, `fit` and `measure`.
"""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from sigah_jax.config_checks import validate
from sigah_jax.data.datasets import Dataset
from sigah_jax.devices import hosts, parallel
from sigah_jax.encoder import drift, radius
from sigah_jax.encoder.hasher import Hasher
from sigah_jax.retrieval import evenly
from sigah_jax.run import checkpoints, loading, logs, rundir
from sigah_jax.training import evaluate, prepare, query_scale, refinement, stages, step, train


@contextlib.contextmanager
def claimed(config, workdir: Path) -> Iterator[logs.Log]:
    """Checks the config and holds the directory, on all processes; gives the log of the run.

    Raises:
        BadInput: a bad field, or as `rundir.claim`.
    """
    hosts.check_same("config", rundir.config_hash(config))
    hosts.in_turn(lambda: validate(config, len(parallel.all_devices())))
    with rundir.claim(workdir, config), logs.Log(workdir / "log.txt") as log:
        yield log


@parallel.default_settings()
def run(config, workdir: Path, cache: Path, data: Callable[[], Dataset]) -> Hasher:
    """The encoder that the config describes, trained in `workdir` as far as it is not yet.

    Args:
        cache: directory of ground truth and graph, which runs on equal data may share.
        data: is called if something is left to train.

    Returns:
        What the run leaves in `encoder.npz`; its facts tell `seconds` of set-up and of each stage,
        as far as this call ran them.

    Raises:
        BadInput: as `claimed`, `prepare.check_data`, `rundir.claim_data`.
        NonFinite, Terminated: as `train.train`.
    """
    with claimed(config, workdir) as log:
        if not hosts.any_of(rundir.encoder_path(workdir).exists()):
            dataset = hosts.in_turn(data)
            rundir.claim_data(workdir, dataset.hashes)
            prepare.check_data(config, dataset, log)
            seconds = _train(config, workdir, cache, dataset, log)
            hosts.in_turn(lambda: _leave_encoder(config, workdir, cache, dataset, seconds, log))
        return hosts.in_turn(lambda: loading.load(workdir))


def _train(config, workdir: Path, cache: Path, data: Dataset, log: logs.Log) -> dict[str, float]:
    """Runs the stages that are not finished; the seconds of each, and of set-up."""
    prepared, seconds = None, {}
    for stage in stages.stages(config, workdir, data):
        start = time.monotonic()
        latest = _latest_step(stage)
        if latest == stage.training.steps:
            checkpoints.tell_of_changed_rows(stage.directory, latest, log)
            continue
        state = _state(config, stage, latest, data, log)
        if prepared is None:
            standardiser = parallel.fetch(state.standardiser)
            prepared = prepare.prepare(config, cache, data, standardiser, log)
            seconds["setup"] = round(time.monotonic() - start, 3)
            start = time.monotonic()
        train.train(config, stage, state, data, prepared, log)
        seconds[stage.name] = round(time.monotonic() - start, 3)
    return seconds


def _latest_step(stage: stages.Stage) -> int | None:
    """The step that a stage resumes from, on all processes what the first one finds.

    What a killed process left is removed before. On a shared disk others may see it a while longer.
    """

    def look() -> int:
        if not hosts.first():
            return 0
        stage.directory.mkdir(exist_ok=True)
        checkpoints.remove_torn(stage.directory)
        return max(rundir.saved_steps(stage.directory), default=0)

    return int(hosts.from_first(np.int32(hosts.in_turn(look)))) or None


def _state(config, stage: stages.Stage, latest: int | None, data: Dataset, log) -> step.State:
    """The state of the latest checkpoint, or the first, on all devices."""
    if latest is None:
        log.line(f"training {stage.about}, {stage.training.steps} of {stage.of} steps")
        if stage.validated and stage.training.steps < config.train.steps:
            log.line(f"these are the {config.train.epochs:g} passes of train.epochs over few rows")
        return stage.begin()
    tx = step.make_optimisers(config, stage.training)
    like = step.abstract_state(stage.training, tx, data.xt.shape[1])
    like = like.replace(standardiser=like.standardiser | data.metric.arrays)
    everywhere = parallel.replicated(parallel.all_devices())
    state = checkpoints.restore(stage.directory, latest, like, everywhere)
    log.line(f"training {stage.about}, resumed at step {stage.before + latest} of {stage.of}")
    # through a compiled copy: the step donates its state
    return parallel.replicate(parallel.fetch(state))


def _leave_encoder(
    config, workdir: Path, cache: Path, data: Dataset, seconds: dict[str, float], log: logs.Log
) -> None:
    if hosts.first():
        h, start = loading.of_checkpoint(workdir, "best"), time.monotonic()
        engine = parallel.engine(config.engine)
        rows = evenly.rows(len(data.xt), radius.MOST_ROWS)
        xb = evenly.of(data.xt, radius.MOST_ROWS)
        if config.refine.iterations:
            truth = evaluate.ground_truth(cache, data, "xv", "xt", engine)
            h, judged, cb = refinement.chosen(config, h, data, truth, log)
            seconds |= {"refinement": round(time.monotonic() - start, 3)}
            cb = refinement.completed(h, data.xt, rows, judged, cb)
        else:
            cb = h.euclidean.encode(xb)
        scale = query_scale.chosen(h.euclidean, data.xv, xb, cb, engine)
        h = dataclasses.replace(h, query_scale=scale)
        log.line(f"features of queries are scaled by {h.query_scale} for synthetic features")
        facts = h.facts | {"seconds": seconds}
        facts["recall"] = drift.recall_by_rows(h, data.xv, xb, cb, engine)
        if data.xa is None and not data.metric.added:  # else no rows of the base are held out
            facts["reference"] = drift.figures(h.euclidean, data.xv)._asdict()
        pairs = radius.pairs_of(h, data.xv, xb, cb)
        dataclasses.replace(h, facts=facts, pairs=pairs).save(rundir.encoder_path(workdir))
