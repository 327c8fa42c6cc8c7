"""How fast training is on the devices that JAX finds, and how long they wait for the host.

Not responsible for other rates (`rates`) nor for what is shown (`accelerator`).
"""

import itertools
import statistics
from pathlib import Path

import jax
import numpy as np

from experiments import rates, speed
from sigah_jax import fitting
from sigah_jax.data.datasets import assemble
from sigah_jax.devices import parallel
from sigah_jax.run import logs
from sigah_jax.training import prepare, stages, step, train

CALL = 20  # steps in one call of the device, as `train.steps_per_call`


def training(
    sizes: rates.Sizes, dims: int, limits: dict[str, float], workdir: Path
) -> tuple[list[rates.Rate], dict]:
    """The preset's training, of which `workdir` keeps the encoder and a trace of twenty steps.

    Returns:
        (rates, {"step_ms" by the clock of the loop, "device_step_ms" of steps that nothing waits
        for, "idle_share" of the device by the trace, None if that names no device}).
    """
    x = speed.manifold(sizes.train_rows, dims, 0)[1]
    changes = {
        "train.steps": sizes.steps,
        "eval.every_steps": sizes.steps,
        "train.steps_per_call": CALL,
        "train.anchors": sizes.anchors,
        "refit.share": 0.0,
        "refine.iterations": 0,
        "apart.below": 0.0,  # one neighbour of each anchor, whatever the rows are like
        "profile.steps": f"{sizes.steps - CALL + 1}:{sizes.steps}",
    }
    fitting.fit(x, rates.BITS, workdir, changes)
    rows = logs.read_rows(workdir / "metrics.jsonl")
    # the first call compiles, and tracing slows the last
    field = "time/examples_per_sec"  # which the first row after a resumption has not
    rate = statistics.median([row[field] for row in rows[1:-1] or rows[1:] if field in row])
    config = fitting.config_of(x, rates.BITS, changes)
    t = config.train
    examples = t.anchors * (2 + t.others)
    bare = _bare_step_secs(config, workdir, x)
    bound = limits["default"] * len(parallel.local_devices())
    flops = step_flops(config, dims)
    facts = {
        "step_ms": 1e3 * examples / rate,
        "device_step_ms": 1e3 * bare,
        "idle_share": idle_share(workdir / "profile"),
    }
    what = f"training, {dims} columns, {rates.BITS} bits"
    bound_rate = bound / flops * examples
    return [
        rates.Rate(
            what,
            "examples/s",
            rate,
            "",
            None,
            "matrix products, default precision",
            bound_rate,
            rates.peak_bytes(),
        )
    ], facts


def step_flops(config, dims: int) -> float:
    """Floating-point operations of the products of one step, forward and twice that backward."""
    m, t = config.model, config.train
    p, k, atoms, a = min(m.input_dims, dims), m.bits, m.atoms, t.anchors
    c = a * (2 + t.others)  # columns
    widths = [p, *m.hash_widths]
    hash_network = sum(w * v for w, v in itertools.pairwise(widths)) + widths[-1] * k
    decoder = atoms * (k * (1 + 2 * (m.ista_steps - 1)) + p)
    layers = [p, *m.dis_widths, p]
    discriminator = sum(w * v for w, v in itertools.pairwise(layers))
    products = c * (hash_network + p * k + decoder) + a * widths[-1] * k
    products += a * c * (2 * p + k)  # distances of features, of synthetic ones, of codes
    products += 3 * a * discriminator  # of ẑ for the generator, of z and ẑ for itself
    return 2 * 3 * products


def _bare_step_secs(config, workdir: Path, x: np.ndarray) -> float:
    """Seconds of a step where no call waits for the one before, nor for its batch."""
    none, devices = x[:0], parallel.all_devices()
    data = assemble(none, none, x, config.data, config.data.base)
    stage = stages.stages(config, workdir, data)[0]
    state, t = stage.begin(), config.train
    with logs.Log(workdir / "log.txt") as log:  # what the run has prepared is read
        standardiser = parallel.fetch(state.standardiser)
        prepared = prepare.prepare(config, workdir / "data", data, standardiser, log)
    rows = step.Rows(prepared.z_train, None)
    inputs = train.make_inputs(config, t.steps, data, prepared, rows, devices, on_host=False)
    rows, batch = inputs(0)
    train_steps = train.mapped_steps(config, stage, data, prepared, devices, gathered=False)
    calls = max(1, t.steps // CALL // 4)

    def run() -> None:
        nonlocal state
        with jax.default_matmul_precision(t.matmul_precision):
            for _ in range(calls):
                state, infos = train_steps(state, rows, batch)
        parallel.fetch(infos)

    return rates.timed(run) / (calls * CALL)


def idle_share(directory: Path) -> float | None:
    """The share of a trace in which a device ran nothing, from its first operation to its last.

    The mean over devices; None if the newest trace in `directory` names none, as that of a CPU.
    """
    files = sorted(directory.rglob("*.xplane.pb"), key=lambda path: path.stat().st_mtime)
    if not files:
        return None
    shares = []
    for plane in jax.profiler.ProfileData.from_file(str(files[-1])).planes:
        if plane.name.startswith("/device:"):
            # a GPU has a line a stream; of a TPU, other lines hold whole programs
            lines = [n for n in plane.lines if n.name.startswith("Stream") or n.name == "XLA Ops"]
            spans = [(e.start_ns, e.end_ns) for line in lines for e in line.events]
            if spans:
                shares.append(idle(spans))
    return statistics.mean(shares) if shares else None


def idle(spans: list[tuple[float, float]]) -> float:
    """The share of the time from the first start to the last end that no span covers."""
    spans = sorted(spans)
    first = end = spans[0][0]
    uncovered = 0.0
    for start, stop in spans:
        uncovered += max(0.0, start - end)
        end = max(end, stop)
    return uncovered / (end - first)
