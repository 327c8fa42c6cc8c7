"""The training loop: runs one stage, whichever it is, from where it stopped to its last step.

Not responsible for what comes before the first step (`prepare`, `stages`) nor for what a run is
made of (`run`).
"""

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from sigah_jax.data.datasets import Dataset
from sigah_jax.devices import hosts, parallel
from sigah_jax.errors import NonFinite
from sigah_jax.process import interrupts
from sigah_jax.run import checkpoints, logs, rundir, watching
from sigah_jax.training import batches, evaluate, objective, step
from sigah_jax.training.prepare import Prepared
from sigah_jax.training.stages import Stage

TERMINATED = interrupts.CODES[signal.SIGTERM]
_REMEDY = "lower config.train.anchors"  # where a device has too little memory


class Terminated(SystemExit):
    """SIGTERM was received and the state is saved."""


class Call(NamedTuple):
    """Steps that were given to the devices, which may still work on them."""

    done: int  # steps of the stage up to its last
    infos: dict  # of each step, [S]
    start: float  # the moment at which it was given


def train(
    config, stage: Stage, state: step.State, data: Dataset, prepared: Prepared, log: logs.Log
) -> None:
    """Trains from `state` to the last step; saves every `eval.every_steps` and at the end.

    Every process holds the whole training set, cuts its own slice from every batch, and
    validates: the same state gives the same metrics, and nobody waits. The devices have the next
    call before the losses of one are read, unless the state between them is validated or saved.

    Args:
        state: is donated.

    Raises:
        NonFinite: a loss is not finite; the last checkpoint stays.
        Terminated: SIGTERM came, to any process; the state is saved.
    """
    terminated, done, packed = [], int(parallel.fetch(state.step)), None
    if stage.codes:  # refining them takes long, and SIGTERM loses nothing: it ends them at once
        # of equal machines they are the same, but equal replicas must not depend on that
        packed = hosts.from_first(stage.codes(prepared.validation_truth, log))
    with (
        interrupts.handling(lambda *_: terminated.append(True), signal.SIGTERM),
        watching.open_sinks(config, stage.directory, done) as send,
        watching.profiling(config, stage.directory) as profile,
    ):
        _loop(config, stage, state, done, data, prepared, packed, log, terminated, send, profile)
        stop = hosts.any_of(bool(terminated))
    if stop or terminated:  # it came during the last save
        log.line(saved_line(stage, stage.training.steps))
        raise Terminated(TERMINATED)


def _loop(
    config,
    stage: Stage,
    state: step.State,
    done: int,
    data: Dataset,
    prepared: Prepared,
    packed: np.ndarray | None,
    log: logs.Log,
    terminated: list,
    send: Callable[[dict], None],
    profile: Callable,
) -> None:
    steps, call = stage.training.steps, config.train.steps_per_call
    devices = parallel.all_devices()
    rows = step.Rows(prepared.z_train, packed, prepared.z_queries)
    on_host = gathers_on_host(config, rows, devices)
    if on_host and config.train.gather == "auto":
        log.line("the host gathers the rows of each batch, since all are too many for a device")
    train_steps = mapped_steps(config, stage, data, prepared, devices, on_host)
    next_input = make_inputs(config, steps, data, prepared, rows, devices, on_host)
    read = make_read(config, stage.directory, prepared.neighbours, profile)
    report = make_report(stage, log, send)
    metrics_path = stage.directory / "metrics.jsonl"
    logs.drop_rows_after(metrics_path, done)
    checkpoints.tell_of_changed_rows(stage.directory, done, log)

    with parallel.enough_memory(_REMEDY):
        given = next_input(done)
    unread = None  # the call whose losses are not read yet
    while done < steps:
        profile(done - call if unread else done, done + call)
        with (
            parallel.enough_memory(_REMEDY),
            jax.default_matmul_precision(config.train.matmul_precision),
        ):
            start = time.monotonic()
            state, infos = train_steps(state, *given)
            done += call
            # made while the devices work, as the row of the call before is written
            given = next_input(done)
        before, unread = unread, Call(done, infos, start)
        if before:
            report(read(before, done))
        last = done % config.eval.every_steps == 0 or done == steps
        metrics = None
        if last:
            row, unread = read(unread, done), None
            if stage.validated:
                params = parallel.fetch({"standardiser": state.standardiser, "gen": state.gen})
                h, engine = evaluate.hasher_of(config, params), parallel.engine(config.engine)
                metrics = evaluate.validation(h, data, prepared.validation_truth, engine)
                row |= metrics
            report(row)
        stop = hosts.any_of(bool(terminated))
        if stop and unread:
            report(read(unread, done))
        if last or stop:
            held = logs.rows_hash(metrics_path) if hosts.first() else ""
            checkpoints.save(
                stage.directory, done, state, metrics, held, last=done == stage.training.steps
            )
        if stop:
            log.end_progress()
            log.line(saved_line(stage, done))
            raise Terminated(TERMINATED)
    log.end_progress()


def gathers_on_host(config, rows: step.Rows, devices: list[jax.Device]) -> bool:
    """Whether the host gathers the rows of each batch, in place of devices that hold all rows.

    `train.gather` says so; "auto" asks whether the rows take more than half of the memory that is
    free on a device. Of several processes all do as soon as one has to.
    """
    on_host = config.train.gather == "host"
    if config.train.gather == "auto":
        size = sum(a.nbytes for a in jax.tree.leaves(rows))
        on_host = 2 * size > parallel.free_memory(devices)
    return hosts.any_of(on_host)


def make_inputs(
    config,
    steps: int,
    data: Dataset,
    prepared: Prepared,
    rows: step.Rows,
    devices: list[jax.Device],
    on_host: bool,
) -> Callable[[int], tuple[step.Rows, batches.Batch] | None]:
    """`next_input(done)`: rows and batches of the call after `done` steps; None after the last.

    Both are split and placed as `parallel.split` does it, but for all rows, which the devices have
    once and whole unless the host gathers those of the batches.
    """
    if not on_host:
        with parallel.enough_memory("give --config.train.gather=host"):
            everywhere = parallel.replicate(rows)

    def next_input(done: int) -> tuple[step.Rows, batches.Batch] | None:
        if done >= steps:
            return None
        batch = batches.batches(
            config.seed,
            done,
            config.train.steps_per_call,
            n=len(prepared.z_train),
            anchors=config.train.anchors,
            others=config.train.others,
            neighbours=prepared.neighbours,
            draws=config.loss.batch_positives + config.loss.batch_positives_synthetic,
            graph=prepared.graph,
            queries=0 if data.xa is None else len(prepared.z_queries),
        )
        slices = parallel.cut(batch, axis=1, devices=devices)
        if on_host:
            return parallel.spread((step.gather(rows, slices), slices), devices)
        return everywhere, parallel.spread(slices, devices)

    return next_input


def make_read(config, directory: Path, neighbours: int, profile: Callable) -> Callable:
    """`read(call, given)`: the row of a call when its losses are there; `given` steps were sent."""
    steps, finished = config.train.steps_per_call, None
    examples = steps * config.train.anchors * (1 + config.train.others + neighbours)

    @parallel.enough_memory(_REMEDY)
    def read(call: Call, given: int) -> dict:
        nonlocal finished
        infos = parallel.fetch(call.infos)
        now = time.monotonic()
        saved = max(rundir.saved_steps(directory), default=None)
        check_finite_losses(infos, call.done - steps, saved)
        row = {"step": call.done} | {name: float(v.mean()) for name, v in infos.items()}
        if finished:  # the first call compiles
            row["time/examples_per_sec"] = examples / (now - max(finished, call.start))
        finished = now
        profile(call.done, given)
        return row | watching.memory()

    return read


def make_report(stage: Stage, log: logs.Log, send: Callable[[dict], None]) -> Callable:
    """`report(row)`: writes a row to metrics.jsonl and the sinks, and shows it to a person."""
    score = None

    def report(row: dict) -> None:
        nonlocal score
        score = row.get("eval/map", score)
        logs.append_row(stage.directory / "metrics.jsonl", row)
        send(row)
        fields = progress_fields(row, stage.validated, score)
        log.progress(stage.before + row["step"], stage.of, fields)

    return report


def mapped_steps(
    config,
    stage: Stage,
    data: Dataset,
    prepared: Prepared,
    devices: list[jax.Device],
    gathered: bool,
) -> Callable:
    """`step.make_train_steps` of a stage on all devices, batches split; the state is donated."""
    tx = step.make_optimisers(config, stage.training)
    own = data.xa is None
    population = objective.Population(len(prepared.z_train), prepared.neighbour_weight, own)
    return parallel.pmap(
        step.make_train_steps(config, stage.training, tx, population, parallel.AXIS, gathered),
        in_axes=(None, 0 if gathered else None, 0),
        out_axes=(None, None),
        donate_argnums=(0,),
        devices=devices,
    )


def saved_line(stage: Stage, done: int) -> str:
    """What is said when SIGTERM ends a stage after `done` of its steps."""
    return f"SIGTERM: saved step {stage.before + done}; the same command resumes from there"


def progress_fields(row: dict, validated: bool, score: float | None) -> dict[str, str]:
    """What a person wants to see while it trains."""
    fields = {"loss": f"{row['train/loss_gen']:.3f}"}
    if "train/kappa" in row:
        fields["κ"] = f"{row['train/kappa']:.2f}"
    if validated:
        fields["val map"] = "–" if score is None else f"{score:.3f}"
    if "time/examples_per_sec" in row:
        fields["examples/s"] = f"{row['time/examples_per_sec']:.0f}"
    return fields


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
