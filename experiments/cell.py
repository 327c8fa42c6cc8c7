"""One cell of the paper's tables: a method on a data set at a code length and a seed.

    python -m experiments.cell --data=mnist --method=itq --bits=64 --seed=0

Writes a line of `<results>/<data set>.jsonl`, or nothing. The line of a method that cannot have
that many bits says so. Training runs of SiGAH resume where they were interrupted; one of `sigah`
also writes the lines of `ROWS`, other searches of its codes, and of `sigah_plain`, its codes before
refinement, which can be trained by itself too.

Not responsible for which cells there are, nor for tables: `experiments.paper_tables`.
"""

if __name__ == "__main__":  # before the heavy imports, in which Ctrl-C may come
    from sigah_jax.process import interrupts

    interrupts.begin()

import importlib
import sys
import time
from collections.abc import Callable
from pathlib import Path

from ml_collections import config_dict

from sigah_jax.baselines import quantisers
from sigah_jax.baselines.methods import METHODS
from sigah_jax.command_line import Parser, command
from sigah_jax.config import as_json, change, decoder_steps, first_steps, get_config
from sigah_jax.config_checks import validate
from sigah_jax.data.datasets import Dataset, load_dataset
from sigah_jax.devices import parallel
from sigah_jax.errors import BadInput, BitsRefused
from sigah_jax.files import whole
from sigah_jax.report import cells
from sigah_jax.retrieval import real_queries
from sigah_jax.run import rundir
from sigah_jax.training import evaluate, results
from sigah_jax.training.experiment import train_and_evaluate
from sigah_jax.training.step import PARTS

# the ablations of SiGAH, whose codes are not refined: what differs from `preset=best` besides
_CHANGES = {
    "sigah_plain": {},
    "sigah_paper": {"preset": "paper"},
    "sigah_one_head": {"model.query_head": False},
    "sigah_no_adversary": {"loss.adversary": 0.0},
    "sigah_linear_decoder": {"model.decoder": "linear"},
    "sigah_mlp_decoder": {"model.decoder": "mlp"},
    "sigah_no_ordinal": {"loss.ordinal": 0.0},
    "sigah_no_ordinal_synthetic": {"loss.ordinal_synthetic": 0.0},
    "sigah_no_reconstruction": {"loss.reconstruction": 0.0},
    "sigah_no_quantisation": {"loss.quantisation": 0.0},
    "sigah_random_start": {"model.itq_iterations": 0},
    "sigah_linear_hash": {"model.hash_widths": ()},
    "sigah_steps_1": {"model.ista_steps": 1},
    "sigah_steps_10": {"model.ista_steps": 10},
    "sigah_atoms_128": {"model.atoms": 128},
    "sigah_atoms_1024": {"model.atoms": 1024},
    "sigah_one_rate": {"optim.decoder_lr_factor": 1.0},
}
VARIANTS = {"sigah": {}}
VARIANTS |= {name: {"refine.iterations": 0} | changes for name, changes in _CHANGES.items()}
# other searches of the codes of a run of `sigah`: by both codes of a query, and by real queries
ROWS = ("sigah_both", "sigah_projection", "sigah_synthetic", "sigah_stages")
GROUPS = (*PARTS, "apart", "refine", "refit")  # of the config, all that a line of SiGAH depends on
# whose nearest neighbours do not stand apart (`prepare.growth` is .97 to 1.01), so that lines of
# these sets do not depend on `apart`
NOT_APART = ("mnist", "tiny60k", "deep60k")


def data_name(data: str) -> str:
    """The name of a data set: `mnist` is itself, `tiny60k=path/to/file.npy` is tiny60k."""
    return data.partition("=")[0]


def line_of(root: Path, data: str, method: str, bits: int, seed: int) -> cells.Line:
    """Where the cell is written."""
    return cells.Line(root / f"{data_name(data)}.jsonl", method, bits, seed)


def run_directory(runs: Path, data: str, method: str, bits: int, seed: int) -> Path:
    """Where SiGAH is trained for the cell."""
    return runs / data_name(data) / method / f"bits{bits}" / f"seed{seed}"


def make_config(data: str, method: str, bits: int, seed: int, changes: dict | None = None):
    """The configuration of a cell; of a baseline, only the fields of its data are used.

    Args:
        changes: fields that differ, for a trial, as in `fit`.
    """
    name, _, path = data.partition("=")
    try:
        experiment = importlib.import_module(f"experiments.{'vectors' if path else name}")
    except ModuleNotFoundError:
        experiment = None
    # a module without `get_config` is in this directory, but is not a data set
    named = name and "/" not in name and hasattr(experiment, "get_config")
    if not named or (not path and "=" in data):
        raise BadInput(
            f"data set {data!r}: is none of experiments/; give one of them, or NAME=PATH"
        )
    config = _variant(experiment.get_config, method, bits)
    if path:
        config.data.base = path
        config.data.train_rows = 0
    config.seed = seed
    config.eval.baselines = ()
    for field, value in (changes or {}).items():
        change(config, field, value)
    validate(config, len(parallel.local_devices()))
    return config


def _variant(get_config: Callable, method: str, bits: int):
    """`get_config` with what is different in `method`."""
    changes = dict(VARIANTS.get(method, {}))
    config = get_config(f"preset={changes.pop('preset', 'best')},bits={bits}")
    for field, value in changes.items():
        change(config, field, value)
    return config


def of_other_settings(line: cells.Line) -> bool:
    """Whether the line is there and of a SiGAH that was trained otherwise than it would be now.

    Only what changes the line's codes is compared: `refit` and `refine` come after codes that are
    not refined, and `apart` changes nothing in the sets of `NOT_APART`.
    """
    held, method = line.read(), "sigah" if line.method in ROWS else line.method
    if held is None or "not_applicable" in held or method not in VARIANTS:
        return False
    now = as_json(_variant(get_config, method, line.bits))
    was = rundir.with_fields_of_before(held["config"])
    rows = held["rows"]["training"]
    for config in (was, now):  # of many rows, `epochs` change nothing
        plain = config_dict.ConfigDict(config)
        if "refit" in config:
            config["refit"] |= {"epochs": decoder_steps(plain, rows)}
        config["train"] |= {"steps": first_steps(plain, rows), "epochs": 0}
    iterations = [config.get("refine", {}).get("iterations") for config in (was, now)]
    unused = {"refine", "refit"} if iterations == [0, 0] else set()
    unused |= {"apart"} if held["dataset"] in NOT_APART else set()
    return any(was.get(group, {}) != now[group] for group in GROUPS if group not in unused)


def check_file(line: cells.Line, data: str) -> None:
    """BadInput if the line is there, and of a file with another name than `data` gives."""
    held = line.read()
    if held is None or "not_applicable" in held:
        return
    if Path(held["config"]["data"]["base"]).name != Path(data.partition("=")[2]).name:
        raise BadInput(f"--datasets={data}: {line} is of another file; use another name")


def lines_of(root: Path, data: str, method: str, bits: int, seed: int) -> list[cells.Line]:
    """Where all that the cell writes is written, its own line last."""
    methods = (*ROWS, "sigah_plain", "sigah") if method == "sigah" else (method,)
    return [line_of(root, data, name, bits, seed) for name in methods]


def run_cell(
    data: str,
    method: str,
    bits: int,
    seed: int,
    root: Path,
    runs: Path,
    changes: dict | None = None,
) -> None:
    """Runs a cell and writes it, of a configuration with the `changes` of `make_config`.

    The line of `sigah_plain` that another run left is kept if that was trained otherwise.
    """
    config = make_config(data, method, bits, seed, changes)
    names = {"dataset": data_name(data), "method": method, "bits": bits, "seed": seed}
    cells.read_lines(root / f"{data_name(data)}.jsonl")  # BadInput before the work
    cache = runs / data_name(data) / "data"  # ground truth and graph, for all cells
    if method not in VARIANTS:
        measure = run_quantiser if method in quantisers.NAMES else run_baseline
        cells.add(without_directory(names | measure(config, method, cache)), root)
        return
    workdir = run_directory(runs, data, method, bits, seed)
    train_and_evaluate(config, workdir, cache)
    found = read_run(workdir / "results.json", names)
    for line in lines_of(root, data, method, bits, seed):
        if line.method in (method, *ROWS) or not of_other_settings(line):
            cells.add(without_directory(found[line.method]), root)


def without_directory(line: dict) -> dict:
    """The line with the name alone of the file of vectors: where it lay is of one machine."""
    if "not_applicable" in line or not line["config"]["data"]["base"]:
        return line
    data = line["config"]["data"]
    name = Path(data["base"]).name
    config = line["config"] | {"data": data | {"base": name}}
    return line | {"config": config, "data": line["data"].replace(data["base"], name)}


def read_run(path: Path, names: dict) -> dict[str, dict]:
    """The lines of a finished training by method, of its results file; BadInput if damaged."""
    remedy = "remove it, then the same command evaluates again"
    with cells.checking(path, remedy):
        run = whole.read_json(path, remedy)
        metrics, curves = run.pop("metrics"), run.pop("pr_curves")
        config = {group: run["config"][group] for group in ("data", *GROUPS)}
        rows = {names["method"]: "sigah"}
        if names["method"] == "sigah":
            rows |= {row: row for row in ROWS}
            # where no refinement was good, the codes are those before it
            rows["sigah_plain"] = "sigah_plain" if "sigah_plain" in metrics else "sigah"
        lines = {}
        for method, row in rows.items():
            line = run | names | {"method": method, "metrics": metrics[row], "config": config}
            if row in curves:
                line["pr_curve"] = curves[row]
            if method == "sigah_plain":
                line["config"] = config | {"refine": config["refine"] | {"iterations": 0}}
            cells.cell_of(line)
            lines[method] = line
        return lines


def run_baseline(config, method: str, cache: Path) -> dict:
    """Fits, encodes and measures a baseline; `{"not_applicable": why}` beyond its bits."""
    dataset, bits = load_dataset(config), config.model.bits
    start = time.monotonic()
    try:
        params = evaluate.fit_baseline(config, method, dataset.xt, bits)
    except BitsRefused as e:
        return {"not_applicable": str(e)}
    seconds = {"fit": round(time.monotonic() - start, 3)}
    start = time.monotonic()
    cq, cb = evaluate.encode_baseline(params, method, dataset, config.eval.block_rows)
    seconds["encode"] = round(time.monotonic() - start, 3)
    engine = parallel.engine(config.engine)
    truth = evaluate.ground_truth(cache, dataset, "xq", "xb", engine)
    own = METHODS[method].own_distance
    metrics, curve = evaluate.score(cq, cb, truth, bits, engine, own)
    facts = facts_of(config, dataset, seconds)
    return facts | {"metrics": metrics, "pr_curve": results.curve_of(curve)}


def run_quantiser(config, method: str, cache: Path) -> dict:
    """Trains, adds and measures a quantiser; `{"not_applicable": why}` without such a code."""
    dataset = load_dataset(config)
    start = time.monotonic()
    try:
        quantiser = quantisers.fit(method, config.seed, dataset.xt, config.model.bits)
    except BitsRefused as e:
        return {"not_applicable": str(e)}
    seconds = {"fit": round(time.monotonic() - start, 3)}
    start = time.monotonic()
    quantisers.add(quantiser, dataset.xb)
    seconds["encode"] = round(time.monotonic() - start, 3)
    truth = evaluate.ground_truth(cache, dataset, "xq", "xb", parallel.engine(config.engine))
    xq = dataset.xq[: real_queries.QUERIES]
    way = quantisers.way(quantiser, xq)
    metrics = real_queries.measure(way, xq, dataset.xb, truth[: len(xq)])
    metrics["encode_secs"] = seconds["encode"]
    return facts_of(config, dataset, seconds) | {"metrics": metrics}


def facts_of(config, dataset: Dataset, seconds: dict) -> dict:
    """What a line of another method than SiGAH says beside its metrics."""
    facts = results.facts(config, dataset, seconds)
    facts["config"] = {"data": facts["config"]["data"]}  # the other groups are SiGAH's
    return facts


@command("the same command resumes")
@parallel.default_settings()
def main(argv: list[str] | None = None) -> None:
    """Exit code: 0, 2 bad input, 3 a loss that is not finite."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="data set of experiments/, or NAME=FILE")
    parser.add_argument("--method", required=True, choices=[*VARIANTS, *METHODS, *quantisers.NAMES])
    parser.add_argument("--bits", type=int, required=True, help="code length")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, default=Path("results"), help="where lines go")
    parser.add_argument("--runs", type=Path, default=Path("runs/paper_tables"), help="trainings")
    args = parser.parse_args(argv)
    run_cell(args.data, args.method, args.bits, args.seed, args.results, args.runs)


if __name__ == "__main__":
    sys.exit(main())
