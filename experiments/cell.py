"""One cell of the paper's tables: a method on a data set at a code length and a seed.

    python -m experiments.cell --data=mnist --method=itq --bits=64 --seed=0

Writes `<results>/<data set>/<method>/bits<K>/seed<k>.json`, whole or not at all. A method that
cannot have that many bits leaves a cell that says so. Training runs of SiGAH go on where they
were interrupted.

Not responsible for which cells there are, nor for tables: `experiments.paper_tables`.
"""

if __name__ == "__main__":  # before the heavy imports, in which Ctrl-C may come
    from sigah_jax.process import interrupts

    interrupts.begin()

import argparse
import importlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

from sigah_jax.baselines.methods import METHODS
from sigah_jax.config import change, get_config, validate
from sigah_jax.data.datasets import load_dataset
from sigah_jax.devices import parallel
from sigah_jax.errors import BadInput, BitsRefused, command
from sigah_jax.files import whole
from sigah_jax.model.keys import Purpose, key_for
from sigah_jax.report.cells import reading
from sigah_jax.training import evaluate, results, train
from sigah_jax.training.step import PARTS

# SiGAH and its ablations: what differs from `preset=best`
VARIANTS = {
    "sigah": {},
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


def data_name(data: str) -> str:
    """The name of a data set: `mnist` is itself, `tiny60k=path/to/file.npy` is tiny60k."""
    return data.partition("=")[0]


def cell_path(root: Path, data: str, method: str, bits: int, seed: int) -> Path:
    """Where the cell is written."""
    return root / data_name(data) / method / f"bits{bits}" / f"seed{seed}.json"


def make_config(data: str, method: str, bits: int, seed: int):
    """The configuration of a cell; of a baseline, only the fields of its data are used."""
    name, _, path = data.partition("=")
    try:
        experiment = importlib.import_module(f"experiments.{'vectors' if path else name}")
    except ModuleNotFoundError:
        experiment = None
    if not hasattr(experiment, "get_config"):  # of this directory, but no data set
        raise BadInput(f"{data}: no data set of experiments/; give one of them, or NAME=PATH")
    config = _variant(experiment.get_config, method, bits)
    if path:
        config.data.base = path
        config.data.train_rows = 0
    config.seed = seed
    config.eval.baselines = ()
    validate(config, len(parallel.local_devices()))
    return config


def _variant(get_config: Callable, method: str, bits: int):
    """`get_config` with what is different in `method`."""
    changes = dict(VARIANTS.get(method, {}))
    config = get_config(f"preset={changes.pop('preset', 'best')},bits={bits}")
    for field, value in changes.items():
        change(config, field, value)
    return config


def of_other_settings(path: Path, method: str, bits: int) -> bool:
    """Whether the cell at `path` is of a SiGAH that was trained otherwise than it would be now.

    `refit` is not compared: it changes the decoder after the codes, and a cell is of codes.
    """
    if method not in VARIANTS or not path.exists():
        return False
    now = json.loads(json.dumps(_variant(get_config, method, bits).to_dict()))  # tuples are lists
    with reading(path) as held:
        return any(held["config"][group] != now[group] for group in PARTS)


def of_other_file(path: Path, data: str) -> bool:
    """Whether the cell at `path` is of a file with another name than `data` gives, or of none."""
    if not path.exists():
        return False
    with reading(path) as held:
        if "not_applicable" in held:
            return False
        return Path(held["config"]["data"]["base"]).name != Path(data.partition("=")[2]).name


def run_cell(data: str, method: str, bits: int, seed: int, root: Path, runs: Path) -> None:
    """Runs a cell and writes it."""
    config = make_config(data, method, bits, seed)
    path = cell_path(root, data, method, bits, seed)
    cache = runs / data_name(data) / "data"  # ground truth and graph, for all cells
    if method in VARIANTS:
        workdir = runs / data_name(data) / method / f"bits{bits}" / f"seed{seed}"
        train.train_and_evaluate(config, workdir, cache)
        with reading(workdir / "results.json") as cell:
            cell["metrics"] = cell["metrics"]["sigah"]
            cell["pr_curve"] = cell.pop("pr_curves")["sigah"]
    else:
        cell = run_baseline(config, method, cache)
    path.parent.mkdir(parents=True, exist_ok=True)
    whole.write_json(path, {"dataset": data_name(data), "method": method} | cell)


def run_baseline(config, method: str, cache: Path) -> dict:
    """Fits, encodes and measures a baseline; `{"not_applicable": why}` beyond its bits."""
    dataset, bits = load_dataset(config), config.model.bits
    start = time.monotonic()
    try:
        params = METHODS[method].fit(key_for(config.seed, Purpose.BASELINE), dataset.xt, bits)
    except BitsRefused as e:
        return {"bits": bits, "seed": config.seed, "not_applicable": str(e)}
    seconds = {"fit": round(time.monotonic() - start, 3)}
    start = time.monotonic()
    cq, cb = evaluate.encode_baseline(params, method, dataset, config.eval.block_rows)
    seconds["encode"] = round(time.monotonic() - start, 3)
    engine = parallel.engine(config.engine)
    truth = evaluate.cached_ground_truth(cache, dataset.xq, dataset.xb, engine)
    own = METHODS[method].own_distance
    metrics, curve = evaluate.measure(cq, cb, truth, bits, engine, own)
    facts = results.facts(config, dataset, seconds)
    return facts | {"metrics": metrics, "pr_curve": results.curve_of(curve)}


@command("the same command resumes")
@parallel.default_settings()
def main(argv: list[str] | None = None) -> None:
    """Exit code: 0, 2 bad input, 3 a loss that is not finite."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="an experiment's name, or NAME=FILE")
    parser.add_argument("--method", required=True, choices=[*VARIANTS, *METHODS])
    parser.add_argument("--bits", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--runs", type=Path, default=Path("runs/paper_tables"))
    args = parser.parse_args(argv)
    run_cell(args.data, args.method, args.bits, args.seed, args.results, args.runs)


if __name__ == "__main__":
    sys.exit(main())
