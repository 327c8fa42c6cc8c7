"""A run: set-up, the training loop, and the two things `main` can ask for.

Not responsible for flags (`main`) nor for what is left behind at the end (`results`).
"""

import contextlib
import json
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp

from sigah_jax import checkpoints, evaluate, hasher, logs, parallel, results, rundir
from sigah_jax.baselines import pca
from sigah_jax.config import validate
from sigah_jax.data import batches
from sigah_jax.data.cache import cached
from sigah_jax.data.datasets import Dataset, load_dataset
from sigah_jax.errors import BadInput, NonFinite
from sigah_jax.model import networks, step
from sigah_jax.model.standardise import init_standardiser, standardise
from sigah_jax.report import tables
from sigah_jax.retrieval import euclidean

TERMINATED = 143  # exit code after SIGTERM: 128 + 15, as a shell reports it


class Terminated(SystemExit):
    """SIGTERM was received and the state is saved."""


class Setup(NamedTuple):
    """What training needs beside its state."""

    data: Dataset
    nets: networks.Networks
    z_train: np.ndarray  # [nt, P] f32 standardised training set, on the host
    graph: np.ndarray | None  # [nt, k] i32
    state: step.State  # initial, or restored from the latest checkpoint
    validation_truth: np.ndarray  # [nv, k] i32


def check_data(config, data: Dataset, log: logs.Log) -> None:
    """Tells of the data set; BadInput if a batch or the graph needs more training rows."""
    nt = len(data.xt)
    log.line(f"data: {data.origin}")
    log.line(
        f"base {len(data.xb)}, training {nt}, queries {len(data.xq)}, columns {data.xt.shape[1]}"
    )
    per_step = config.train.anchors * (1 + config.train.others)
    if per_step > nt:
        raise BadInput(
            f"config.train: a batch of {per_step} rows from a training set of {nt}; lower anchors"
        )
    if config.train.graph_neighbours >= nt:
        raise BadInput(f"config.train.graph_neighbours: expected less than the {nt} training rows")
    if not np.ptp(data.xt, axis=0).any():
        raise BadInput(f"data: the {nt} training rows are all equal; check where they come from")


def setup(
    config, cache: Path, data: Dataset, manager: ocp.CheckpointManager, log: logs.Log
) -> Setup:
    """Restores or makes the state, standardises, finds or reads graph and ground truth."""
    d, nt = data.xt.shape[1], len(data.xt)
    features = min(config.model.input_dims, d)
    nets = networks.make_networks(config, features)
    latest = manager.latest_step()
    if latest is None:
        # PCA is deterministic, but a resumed run takes it from the checkpoint all the same
        standardiser, variances = init_standardiser(*pca.principal_directions(data.xt, d), features)
        tx = step.make_optimisers(config)
        init = jax.jit(
            lambda key, s, v: step.init_state(key, nets, tx, s, v),
            out_shardings=parallel.replicated(),
        )
        host = jax.tree.map(np.asarray, (standardiser, variances))
        state = init(jax.random.key(config.seed), *host)
    else:
        like = step.abstract_state(config, nets, d)
        state = checkpoints.restore(manager, latest, like, parallel.replicated())
        # through a compiled copy: the step donates its state
        state = parallel.replicate(parallel.fetch(state))
        log.line(f"resumed at step {latest} of {config.train.steps}")
    arrays = parallel.fetch(state.standardiser)
    z_train = parallel.map_rows(standardise, config.eval.block_rows)(arrays, data.xt)
    engine = parallel.engine(config.engine)
    graph, k = None, config.train.graph_neighbours
    if k:
        log.line(f"neighbour graph of {nt} training rows, k={k}")
        graph = cached(
            cache,
            "graph",
            [z_train, k],
            lambda: euclidean.neighbour_graph(z_train, k, engine),
        )
    truth = evaluate.cached_ground_truth(cache, data.xv, data.xt, engine)
    return Setup(data, nets, z_train, graph, state, truth)


@contextlib.contextmanager
def noting_sigterm() -> Iterator[list]:
    """SIGTERM fills the list in place of ending the process; not outside the main thread."""
    came = []
    if threading.current_thread() is not threading.main_thread():
        yield came
        return
    previous = signal.signal(signal.SIGTERM, lambda *_: came.append(True))
    try:
        yield came
    finally:
        signal.signal(signal.SIGTERM, previous)


def train(config, workdir: Path, manager, log: logs.Log, s: Setup, terminated: list) -> step.State:
    """Trains to the last step; validates and saves every `eval.every_steps` and at the end.

    Args:
        terminated: of `noting_sigterm`.

    Raises:
        NonFinite: a loss is not finite; the last checkpoint stays.
        Terminated: SIGTERM came; the state is saved.
    """
    train_steps = parallel.pmap(
        step.make_train_steps(
            config, s.nets, step.make_optimisers(config), len(s.z_train), parallel.AXIS
        ),
        in_axes=(None, None, 0),
        out_axes=(None, None),
        donate_argnums=(0,),
    )
    state, z_device = s.state, parallel.replicate(s.z_train)
    h = hasher.make_hasher(s.nets, {}, config.eval.block_rows)
    shape = list(s.state.standardiser["projection"].shape)
    call, done = config.train.steps_per_call, int(parallel.fetch(state.step))
    metrics_path, score = workdir / "metrics.jsonl", None
    logs.drop_rows_after(metrics_path, done)
    while done < config.train.steps:
        start = time.monotonic()
        batch = batches.batches(
            config.seed,
            done,
            call,
            n=len(s.z_train),
            anchors=config.train.anchors,
            others=config.train.others,
            draws=config.loss.batch_positives + config.loss.batch_positives_synthetic,
            graph=s.graph,
        )
        with jax.default_matmul_precision(config.train.matmul_precision):
            state, infos = train_steps(state, z_device, parallel.split(step.Batch(*batch), axis=1))
        infos = parallel.fetch(infos)
        check_finite_losses(infos, done, manager.latest_step())
        done += call
        row = {"step": done} | {name: float(v.mean()) for name, v in infos.items()}
        row["time/examples_per_sec"] = batch.rows.size / (time.monotonic() - start)
        validate_now = done % config.eval.every_steps == 0 or done == config.train.steps
        metrics = None
        if validate_now:
            params = parallel.fetch(hasher.params_of(state))
            metrics = evaluate.validation(
                h, params, s.data, s.validation_truth, parallel.engine(config.engine)
            )
            row, score = row | metrics, metrics["eval/map"]
        logs.append_row(metrics_path, row)
        log.progress(done, config.train.steps, progress_fields(row, score))
        if validate_now or terminated:
            checkpoints.save(manager, done, state, shape, metrics)
        if terminated:
            log.end_progress()
            log.line(f"SIGTERM: saved step {done}; the same command goes on from there")
            raise Terminated(TERMINATED)
    log.end_progress()
    return state


def progress_fields(row: dict, score: float | None) -> dict[str, str]:
    """What a person wants to see while it trains."""
    return {
        "loss": f"{row['train/loss_gen']:.3f}",
        "κ": f"{row['train/kappa']:.2f}",
        "val map": "–" if score is None else f"{score:.3f}",
        "examples/s": f"{row['time/examples_per_sec']:.0f}",
    }


def check_finite_losses(infos: dict, done: int, saved: int | None) -> None:
    """Raises NonFinite naming the steps since `done` whose losses `[S]` are not finite."""
    for name, values in infos.items():
        bad = np.flatnonzero(~np.isfinite(values))
        if len(bad):
            first, last = done + 1 + bad[0], done + len(values)
            kept = f"checkpoint of step {saved} is kept" if saved else "there is no checkpoint yet"
            raise NonFinite(
                f"{name} is not finite at step {first} (of {done + 1} to {last}); {kept}; "
                "lower config.optim.gen_lr or config.optim.dis_lr"
            )


def train_on(config, workdir: Path, cache: Path, log: logs.Log, data: Dataset) -> dict:
    """Trains on `data`, or goes on, in a claimed `workdir`; the seconds of set-up and training."""
    start = time.monotonic()
    check_data(config, data, log)
    with checkpoints.open_manager(workdir, read_only=False) as manager:
        s = setup(config, cache, data, manager, log)
        seconds = {"setup": round(time.monotonic() - start, 3)}
        start = time.monotonic()
        with noting_sigterm() as terminated:
            train(config, workdir, manager, log, s, terminated)
        return seconds | {"train": round(time.monotonic() - start, 3)}


def train_and_evaluate(config, workdir: Path, cache: Path) -> None:
    """Trains, or goes on training, in `workdir`, then evaluates its best checkpoint.

    Args:
        cache: directory of ground truth and graph, which runs on equal data may share.
    """
    validate(config, len(parallel.local_devices()))
    lock = rundir.claim(workdir, config)
    log = logs.Log(workdir / "log.txt")
    finished = workdir / "results.json"
    if finished.exists():
        values = json.loads(finished.read_text())["metrics"]
        log.line(tables.method_table(values, tables.COLUMNS, config.model.bits))
        log.line(f"finished before: {finished}; remove {workdir} to train again")
        lock.close()
        return
    start = time.monotonic()
    data = load_dataset(config)
    seconds = {"load": round(time.monotonic() - start, 3)}
    seconds |= train_on(config, workdir, cache, log, data)
    results.finish(config, workdir, cache, log, data, hasher.load(workdir), seconds, finished)
    lock.close()


def evaluate_only(config, workdir: Path, cache: Path, checkpoint: str) -> None:
    """Evaluates a checkpoint of a finished or interrupted run and writes `eval_<checkpoint>.json`.

    `results.json` is left to training: it says that a run is finished.
    """
    validate(config, len(parallel.local_devices()))
    if not (workdir / "config.json").exists():
        raise BadInput(f"{workdir}: no run there; train first, or give --workdir")
    lock = rundir.claim(workdir, config)
    h = hasher.load(workdir, checkpoint)
    log = logs.Log(workdir / "log.txt")
    log.line(f"evaluating checkpoint {checkpoint} of {workdir}")
    path = workdir / f"eval_{checkpoint}.json"
    results.finish(config, workdir, cache, log, load_dataset(config), h, {}, path)
    lock.close()
