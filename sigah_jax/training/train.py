"""A run: the training loop, and the two things `main` can ask for.

Not responsible for flags (`main`), for what comes before the first step (`prepare`) nor for what is
left behind at the end (`results`).
"""

import signal
import time
from pathlib import Path
from typing import IO

import jax
import numpy as np

from sigah_jax.config import of_refit, validate
from sigah_jax.data.datasets import Dataset, load_dataset
from sigah_jax.devices import hosts, parallel
from sigah_jax.encoder import hasher
from sigah_jax.errors import BadInput, NonFinite
from sigah_jax.process import interrupts
from sigah_jax.report import tables
from sigah_jax.run import checkpoints, logs, rundir, watching
from sigah_jax.training import batches, evaluate, prepare, results, step

TERMINATED = interrupts.CODES[signal.SIGTERM]


class Terminated(SystemExit):
    """SIGTERM was received and the state is saved."""


def train(
    config,
    workdir: Path,
    log: logs.Log,
    s: prepare.Setup,
    tx: step.Optimisers,
    terminated: list,
    send,
    profiled,
) -> step.State:
    """Trains to the last step; validates and saves every `eval.every_steps` and at the end.

    Every process holds the whole training set, cuts its own slice from every batch, and
    validates: the same state gives the same metrics, and nobody waits.

    Args:
        terminated: gets an item when SIGTERM comes.
        send, profiled: of `watching.open_sinks` and `watching.profiling`.

    Raises:
        NonFinite: a loss is not finite; the last checkpoint stays.
        Terminated: SIGTERM came, to any process; the state is saved.
    """
    devices = parallel.all_devices()
    train_steps = parallel.pmap(
        step.make_train_steps(config, s.nets, tx, len(s.z_train), parallel.AXIS),
        in_axes=(None, None, 0),
        out_axes=(None, None),
        donate_argnums=(0,),
        devices=devices,
    )
    state, z_device = s.state, parallel.replicate(s.z_train)
    h = hasher.make_hasher(s.nets, {}, config.eval.block_rows)
    shape = list(s.state.standardiser["projection"].shape)
    call, done = config.train.steps_per_call, int(parallel.fetch(state.step))
    metrics_path, score = workdir / "metrics.jsonl", None
    logs.drop_rows_after(metrics_path, done)
    check_rows(workdir, done, log)
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
        slices = parallel.split(step.Batch(*batch), axis=1, devices=devices)
        with jax.default_matmul_precision(config.train.matmul_precision), profiled(done, call):
            state, infos = train_steps(state, z_device, slices)
            infos = parallel.fetch(infos)
        check_finite_losses(infos, done, max(rundir.saved_steps(workdir), default=None))
        done += call
        row = {"step": done} | {name: float(v.mean()) for name, v in infos.items()}
        row["time/examples_per_sec"] = batch.rows.size / (time.monotonic() - start)
        row |= watching.memory()
        validate_now = done % config.eval.every_steps == 0 or done == config.train.steps
        metrics = None
        if validate_now:
            params = parallel.fetch(hasher.params_of(state))
            metrics = evaluate.validation(
                h, params, s.data, s.validation_truth, parallel.engine(config.engine)
            )
            row, score = row | metrics, metrics["eval/map"]
        logs.append_row(metrics_path, row)
        send(row)
        log.progress(done, config.train.steps, progress_fields(row, score))
        stop = hosts.any_of(bool(terminated))
        if validate_now or stop:
            held = logs.rows_hash(metrics_path) if hosts.first() else ""
            checkpoints.save(workdir, done, state, shape, metrics, held)
        if stop:
            log.end_progress()
            log.line(f"SIGTERM: saved step {done}; the same command resumes from there")
            raise Terminated(TERMINATED)
    log.end_progress()
    return state


def check_rows(workdir: Path, done: int, log: logs.Log) -> None:
    """Says so if the rows of metrics.jsonl are not those that the checkpoint was saved with."""
    if not done or not hosts.first():
        return
    path, held = workdir / "metrics.jsonl", checkpoints.facts(workdir, done).get("rows_hash")
    if held not in (None, logs.rows_hash(path)):
        log.line(
            f"{path}: is not as it was at step {done}: rows are missing or were changed. Training "
            "resumes, and its plots show the rows that are there"
        )


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


@parallel.default_settings()
def train_on(config, workdir: Path, cache: Path, log: logs.Log, data: Dataset) -> dict:
    """Trains on `data`, or resumes, in a claimed `workdir`; the seconds of set-up and training."""
    start = time.monotonic()
    prepare.check_data(config, data, log)
    s = prepare.setup(config, workdir, cache, data, log)
    seconds = {"setup": round(time.monotonic() - start, 3)}
    start = time.monotonic()
    watched(config, workdir, log, s, step.make_optimisers(config))
    seconds["train"] = round(time.monotonic() - start, 3)
    second = of_refit(config)
    if second.train.steps:
        start = time.monotonic()
        refit(second, workdir, log, s)
        seconds["refit"] = round(time.monotonic() - start, 3)
    if hosts.first():
        rundir.write_encoder(workdir, hasher.load(workdir).describe())
    return seconds


def watched(config, workdir: Path, log: logs.Log, s: prepare.Setup, tx: step.Optimisers) -> None:
    """`train`, with what listens to it: SIGTERM, the sinks of the metrics, the profiler."""
    terminated = []
    with (
        interrupts.handling(lambda *_: terminated.append(True), signal.SIGTERM),
        watching.open_sinks(config, workdir, int(s.state.step)) as send,
        watching.profiling(config, workdir) as profiled,
    ):
        train(config, workdir, log, s, tx, terminated, send, profiled)
        stop = hosts.any_of(bool(terminated))
    if stop or terminated:  # it came during the last save
        log.line(f"SIGTERM: saved step {config.train.steps}; the same command resumes from there")
        raise Terminated(TERMINATED)


def refit(config, workdir: Path, log: logs.Log, s: prepare.Setup) -> None:
    """Trains a decoder anew on the codes of the best checkpoint, which stay, or resumes.

    The codes that are taught by a decoder must follow it, and it them; a larger one, once they
    stand still, ranks the finest neighbours better (NOTES). The discriminator is trained on.

    Args:
        config: returned by `config.of_refit`.
        workdir, s: of the run, whose first training is finished.
    """
    log.line(f"the decoder's own training, {config.model.atoms} atoms")
    own = rundir.refit_directory(workdir)
    if hosts.first():
        own.mkdir(exist_ok=True)
    s = prepare.refit_setup(config, s, workdir, own, log)
    watched(config, own, log, s, step.make_refit_optimisers(config))


def train_and_evaluate(config, workdir: Path, cache: Path) -> None:
    """Trains, or goes on training, in `workdir`, then evaluates its best checkpoint.

    Args:
        cache: directory of ground truth and graph, which runs on equal data may share.
    """
    lock = begin(config, workdir)
    log = logs.Log(workdir / "log.txt")
    start = time.monotonic()
    data = load(config, workdir)
    seconds = {"load": round(time.monotonic() - start, 3)}
    finished = workdir / "results.json"
    if hosts.any_of(finished.exists()):
        values = results.read(finished)["metrics"]
        log.line(tables.method_table(values, tables.COLUMNS, config.model.bits))
        log.line(f"finished before: {finished}; remove {workdir} to train again")
        lock.close()
        return
    seconds |= train_on(config, workdir, cache, log, data)
    if hosts.first():
        h, pictures = hasher.load(workdir), workdir / "plots"
        results.finish(config, workdir, cache, log, data, h, seconds, finished, pictures)
    lock.close()


def begin(config, workdir: Path) -> IO:
    """Checks the config and claims the directory, on all processes; the lock of `rundir.claim`."""
    hosts.check_same("config", rundir.config_hash(config))
    hosts.in_turn(lambda: validate(config, len(parallel.all_devices())))
    return rundir.claim(workdir, config)


def load(config, workdir: Path) -> Dataset:
    """The data set, on all processes; BadInput if the run there has other rows."""
    data = hosts.in_turn(lambda: load_dataset(config))
    rundir.claim_data(workdir, [data.xt, data.xv, data.xb, data.xq])
    return data


def evaluate_only(config, workdir: Path, cache: Path, checkpoint: str) -> None:
    """Evaluates a checkpoint of a finished or interrupted run and writes `eval_<checkpoint>.json`.

    Its pictures are in `plots/eval_<checkpoint>`. `results.json` and its pictures are left to
    training: they say that a run is finished. Of several processes the first evaluates.
    """
    if not (workdir / "config.json").exists():
        raise BadInput(f"{workdir}: no run there; train first, or give --workdir")
    lock = begin(config, workdir)
    data = load(config, workdir)
    if not hosts.first():
        return
    h = hasher.load(workdir, checkpoint)
    log = logs.Log(workdir / "log.txt")
    log.line(f"evaluating checkpoint {checkpoint} of {workdir}")
    name = f"eval_{checkpoint}"
    path, pictures = workdir / f"{name}.json", workdir / "plots" / name
    results.finish(config, workdir, cache, log, data, h, {}, path, pictures)
    lock.close()
