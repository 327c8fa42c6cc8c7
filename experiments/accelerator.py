"""Proves an accelerator: equality with the CPU, rates, quality, and a trace, in a few minutes.

    python -m experiments.accelerator --out=runs/accelerator --require=gpu
    python -m experiments.accelerator --out=runs/accelerator --small     # a trial on a CPU

Each part leaves `<out>/<part>.json`; a part that has one is not measured again, so the same command
resumes. After each part the table `<out>/accelerator.md` is written, which says "not measured" of
the rest. No part begins after `--minutes`. See `docs/accelerators.md`.

Not responsible for what is measured: `equality`, `rates`, `training_rate`, `cell`.
"""

if __name__ == "__main__":  # before the heavy imports, in which Ctrl-C may come
    from sigah_jax.process import interrupts

    interrupts.begin()

import statistics
import sys
import time
from pathlib import Path
from typing import NamedTuple

import jax

from experiments import cell, equality, rates, training_rate
from sigah_jax.command_line import Parser, command
from sigah_jax.devices import parallel
from sigah_jax.errors import BadInput
from sigah_jax.files import whole
from sigah_jax.report import cells

RESULTS = Path(__file__).parent.parent / "results"
QUALITY = ("map", "map@1000", "recall@10", "recall@100")
SMALL_RUN = {"data.max_rows": 3_000, "train.steps": 40, "train.graph_neighbours": 16}
SPREADS = 3  # standard deviations of the row's seeds that a seed may be away from their mean
FAILED = 1  # exit code: a check failed
EXTRAS = {"gpu": "cuda", "tpu": "tpu"}  # of the package


class Job(NamedTuple):
    """What the parts are measured with."""

    out: Path
    sizes: rates.Sizes
    small: bool

    def limits(self) -> dict[str, float]:
        """What the part `bounds` found."""
        return read_part(self.out, "bounds")["limits"]


def rates_of(found) -> dict:
    return {"rates": [rate._asdict() for rate in found]}


def bounds(job: Job) -> dict:
    """What the devices can do."""
    return {"limits": rates.bounds(job.sizes)}


def equal(job: Job) -> dict:
    """The results of the CPU, or what differs."""
    return {"checks": [check._asdict() for check in equality.checks(job.small)]}


def training(job: Job) -> dict:
    """Training of few columns and of many, and their traces."""
    found, facts = [], {}
    for dims in job.sizes.encoded_rows:
        directory = job.out / f"training_{dims}"
        measured, facts[str(dims)] = training_rate.training(
            job.sizes, dims, job.limits(), directory
        )
        found += measured
    return rates_of(found) | {"steps": facts}


def encoding(job: Job) -> dict:
    """Encoding and refinement by the encoders of `training`."""
    read_part(job.out, "training")
    return rates_of(
        rate
        for dims in job.sizes.encoded_rows
        for rate in rates.encoding(
            job.sizes, dims, job.limits(), job.out / f"training_{dims}" / "encoder.npz"
        )
    )


def hamming(job: Job) -> dict:
    return rates_of(
        rate for bits in (64, 128) for rate in rates.hamming_search(job.sizes, job.sizes.rows, bits)
    )


def hamming_more(job: Job) -> dict:
    rows = job.sizes.more_rows
    return rates_of(
        rate for bits in (64, 128) for rate in rates.hamming_search(job.sizes, rows, bits)
    )


def ground_truth(job: Job) -> dict:
    return rates_of(rates.ground_truth(job.sizes, min(job.sizes.encoded_rows), job.limits()))


def graph(job: Job) -> dict:
    return rates_of(rates.graph(job.sizes, min(job.sizes.encoded_rows), job.limits()))


def quality(job: Job) -> dict:
    """MNIST at 64 bits by the preset beside its row of results/mnist.jsonl.

    The codes before refinement, of which that row has several seeds; those after have one. A small
    run is beside no row.
    """
    start, changes = time.monotonic(), SMALL_RUN if job.small else {}
    cell.run_cell("mnist", "sigah", rates.BITS, 0, job.out / "results", job.out / "runs", changes)
    seconds = time.monotonic() - start
    mine = cells.Line(job.out / "results" / "mnist.jsonl", "sigah_plain", rates.BITS, 0).read()
    held = {} if job.small else rows_of(RESULTS / "mnist.jsonl")
    checks = [check_of_quality(name, mine["metrics"][name], row) for name, row in held.items()]
    return {"seconds": seconds, "checks": checks}


def rows_of(path: Path) -> dict[str, list[float]]:
    """Metric -> its values of the seeds of the row."""
    lines = cells.read_lines(path)
    row = [lines[key]["metrics"] for key in lines if key[:2] == ("sigah_plain", rates.BITS)]
    return {name: [metrics[name] for metrics in row] for name in QUALITY}


def check_of_quality(name: str, value: float, held: list[float]) -> dict:
    """Whether a metric is as near to the mean of the row as its seeds are to one another."""
    mean, deviation = statistics.mean(held), statistics.stdev(held)
    return {
        "name": f"MNIST, {rates.BITS} bits, {name}",
        "value": value,
        "allowed": f"{mean:.3f} ± {SPREADS} x {deviation:.4f}, {len(held)} seeds",
        "passed": abs(value - mean) <= SPREADS * deviation,
    }


# in the order in which they are worth most if time runs out
PARTS = {
    "bounds": bounds,
    "equality": equal,
    "training": training,
    "encoding": encoding,
    "hamming": hamming,
    "graph": graph,
    "ground_truth": ground_truth,
    "quality": quality,
    "hamming_more": hamming_more,
}
# what to do if a device has no memory for the part
REMEDIES = {
    "training": "lower config.train.anchors in a run of yours; the other parts can be measured",
    "encoding": "lower config.eval.block_rows in a run of yours; the other parts can be measured",
}
OTHER_REMEDY = "leave the part out, by --parts"


def facts_of(small: bool) -> dict:
    """What all parts of a directory must have in common."""
    devices = parallel.local_devices()
    return {
        "device": f"{len(devices)} x {devices[0].device_kind}",
        "platform": devices[0].platform,
        "jax": jax.__version__,
        "small": small,
    }


def read_part(out: Path, name: str) -> dict:
    """What a part left; BadInput if it has not been measured, or its file is damaged."""
    try:
        return whole.read_json(out / f"{name}.json", "remove it, then the part is measured again")
    except FileNotFoundError as e:
        raise BadInput(f"{out}: the part {name} comes first; name it in --parts") from e


def table(out: Path, facts: dict) -> str:
    """What all parts found, as Markdown."""
    parts = {name: read_part(out, name) for name in PARTS if (out / f"{name}.json").exists()}
    lines = [f"{facts['device']}, JAX {facts['jax']}" + ", small sizes" * facts["small"], ""]
    if "bounds" in parts:
        limits = parts["bounds"]["limits"]
        full, usual = (limits[name] / 1e12 for name in ("highest", "default"))
        memory, copied = (limits[name] / 1e9 for name in ("memory", "to_device"))
        lines += [
            f"One device: {full:.3g} TFLOP/s of full float32, {usual:.3g} by default; "
            f"{memory:.3g} GB/s of its memory, {copied:.3g} from the host.",
            "",
        ]
    lines += ["| beside the CPU | compared | differ | may differ | |", "|---|---:|---:|---|---|"]
    for check in parts.get("equality", {}).get("checks", []):
        lines.append(
            f"| {check['name']} | {check['compared']:,} | {check['different']:,} | "
            f"{check['allowed']} | {_verdict(check)} |"
        )
    for check in parts.get("quality", {}).get("checks", []):
        lines.append(
            f"| {check['name']} | {check['value']:.4f} | | {check['allowed']} | {_verdict(check)} |"
        )
    lines += ["", "| rate | here | CPU of the machine | bound | peak memory so far |"]
    lines += ["|---|---:|---|---|---:|"]
    for name in PARTS:
        for rate in parts.get(name, {}).get("rates", []):
            lines.append(_rate_line(rate))
    for dims, step in parts.get("training", {}).get("steps", {}).items():
        share = step["idle_share"]
        idle = "no device in the trace" if share is None else f"{share:.0%} of the trace"
        lines.append(
            f"| a step, {dims} columns | {step['step_ms']:.2f} ms | | "
            f"{step['device_step_ms']:.2f} ms if nothing waits for the host; idle: {idle} | |"
        )
    if "quality" in parts:
        lines.append(f"| the whole run on MNIST | {parts['quality']['seconds']:.0f} s | | | |")
    missing = [name for name in PARTS if name not in parts]
    return "\n".join([*lines, "", *(f"- {name}: not measured" for name in missing)]).strip() + "\n"


def _verdict(check: dict) -> str:
    return "passed" if check["passed"] else "**failed**"


def _rate_line(rate: dict) -> str:
    unit = rate["unit"]
    peer = f"{_figure(rate['peer_rate'])}, {rate['peer']}" if rate["peer_rate"] else ""
    bound = f"{_figure(rate['bound_rate'])}, {rate['bound']}"
    peak = "not measured" if rate["peak_bytes"] is None else f"{rate['peak_bytes'] / 2**30:.1f} GiB"
    return f"| {rate['what']} | {_figure(rate['here'])} {unit} | {peer} | {bound} | {peak} |"


def _figure(value: float) -> str:
    """Three figures and a prefix: 1.23 M, 123 k, 12.3."""
    for prefix, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {prefix}"
    return f"{value:.3g}"


def check_platform(wanted: str) -> None:
    """BadInput unless JAX finds devices of that platform."""
    found = parallel.local_devices()[0].platform
    if found != wanted:
        remedy = "check JAX_PLATFORMS"
        if wanted in EXTRAS:
            remedy = f"pip install -e '.[{EXTRAS[wanted]}]'"
        raise BadInput(f"--require={wanted}: JAX finds {found} devices; {remedy}, or leave it out")


@command("the same command resumes")
@parallel.default_settings()
def main(argv: list[str] | None = None) -> int:
    """Exit code: 0, 1 a check failed, 2 bad input, 3 a loss that is not finite."""
    start = time.monotonic()
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="directory of what is measured")
    parser.add_argument("--require", choices=("cpu", "gpu", "tpu"), help="refuse other devices")
    parser.add_argument("--small", action="store_true", help="small sizes, for a trial")
    parser.add_argument("--parts", default="", help=f"comma list of {', '.join(PARTS)}")
    parser.add_argument("--minutes", type=float, default=8, help="no part begins later")
    args = parser.parse_args(argv)
    if args.require:
        check_platform(args.require)
    facts = facts_of(args.small)
    # on a CPU the whole run on MNIST takes some ten minutes: only when asked
    usual = [name for name in PARTS if name != "quality" or facts["platform"] != "cpu"]
    wanted = args.parts.split(",") if args.parts else usual
    for name in wanted:
        if name not in PARTS:
            raise BadInput(f"--parts: {name!r} is none of {', '.join(PARTS)}")
    with whole.telling(args.out, "choose another directory", flag="--out="):
        args.out.mkdir(parents=True, exist_ok=True)
    sizes = rates.SMALL if args.small else rates.FULL
    failed = False
    for name in PARTS:
        path = args.out / f"{name}.json"
        if path.exists():
            part = read_part(args.out, name)
            if part["of"] != facts:
                raise BadInput(f"{path}: is of {part['of']}; give another --out for {facts}")
        elif name not in wanted:
            continue
        elif time.monotonic() - start > 60 * args.minutes:
            print(f"{name}: not measured, --minutes={args.minutes:g} are over", flush=True)
            continue
        else:
            began = time.monotonic()
            print(f"{name} …", flush=True)
            with parallel.enough_memory(REMEDIES.get(name, OTHER_REMEDY)):
                part = PARTS[name](Job(args.out, sizes, args.small))
            took = round(time.monotonic() - began, 1)
            whole.write_json(path, part | {"of": facts, "took_secs": took})
        failed |= not all(check["passed"] for check in part.get("checks", []))
        whole.write_text(args.out / "accelerator.md", table(args.out, facts))
    print(table(args.out, facts))
    return FAILED if failed else 0


if __name__ == "__main__":
    sys.exit(main())
