"""Untrained hashers and run directories of them, shared by the tests of their uses."""

import copy
import dataclasses
import functools
from pathlib import Path

import jax
import numpy as np
from ml_collections import config_dict

from sigah_jax import config
from sigah_jax.encoder import hash_functions, hasher
from sigah_jax.model import networks, pca, standardise
from sigah_jax.run import checkpoints, loading, rundir
from sigah_jax.training import objective, step

SMALL = {  # fields of a training that is compiled and run in less time
    "train.anchors": 16,
    "model.hash_widths": (32,),
    "model.dis_widths": (16,),
    "refit.atoms": 96,
    "eval.block_rows": 128,
}


def configuration(bits: int, **model):
    c = config.get_config(f"bits={bits}")
    c.data.name, c.data.base = "vectors", "rows.npy"
    c.model.hash_widths, c.model.dis_widths, c.model.atoms = (24, 12), (8,), 64
    c.eval.block_rows = 16
    c.model.update(model)
    return c


def training(c, d: int) -> step.Training:
    """The first training of a run on vectors of d columns."""
    nets = networks.make_networks(c.model, min(c.model.input_dims, d))
    return step.Training(nets, ("hash", "decoder"), objective.Weights.of(c), c.train.steps)


def state(c, x: np.ndarray, seed: int = 0) -> step.State:
    """A state of random arrays, standardised for `x [n, d]`; faster than the initial one."""
    d = x.shape[1]
    rng = np.random.default_rng(seed)

    def draw(a):
        size = np.sqrt(a.shape[0]) if len(a.shape) == 2 else 3
        return (rng.normal(size=a.shape) / size).astype(a.dtype)

    made = training(c, d)
    made = jax.tree.map(draw, step.abstract_state(made, step.make_optimisers(c, made), d))
    directions = pca.principal_directions(x, d)
    arrays, _ = standardise.init_standardiser(*directions, min(c.model.input_dims, d))
    return made.replace(standardiser=jax.tree.map(np.asarray, arrays))


def untrained(bits: int, d: int, block_rows: int = 16, seed: int = 0, **model) -> hasher.Hasher:
    """A hasher of (24, 12) hidden units outside a run."""
    return untrained_for(vectors(400, d), bits, block_rows, seed, **model)


def untrained_for(
    x: np.ndarray, bits: int, block_rows: int = 16, seed: int = 0, **model
) -> hasher.Hasher:
    """The same, standardised for `x [n, d]`."""
    c = configuration(bits, **model)
    made = state(c, x, seed)
    params = {"standardiser": made.standardiser, "gen": made.gen}
    model = config_dict.FrozenConfigDict(c.model)
    return hasher.Hasher(model, params, block_rows=block_rows)


def fitted(x: np.ndarray, bits: int) -> hasher.Hasher:
    """A hasher of random bits whose linear decoder fits them to rows `[n, d]` by least squares."""
    h = untrained_for(x, bits, 512, decoder="linear")
    b = 2.0 * np.unpackbits(h.encode(x), axis=1) - 1
    columns = np.concatenate([b, np.ones((len(b), 1))], 1)
    map_of_b = np.linalg.lstsq(columns, h.features(x), rcond=None)[0].astype(np.float32)
    params = copy.deepcopy(h.params)
    params["gen"]["decoder"]["out"] = {"kernel": map_of_b[:-1], "bias": map_of_b[-1]}
    return dataclasses.replace(h, params=params)


def run_directory(workdir: Path, bits: int, d: int, seed: int = 0, **model) -> Path:
    """A run with a validated checkpoint of step 20, and that as its encoder."""
    c = configuration(bits, **model)
    rundir.claim(workdir, c).close()
    metrics = {"eval/map": 0.5, "eval/recall@10": 0.25}
    checkpoints.save(workdir, 20, state(c, vectors(400, d), seed), metrics, "", last=True)
    loading.of_checkpoint(workdir, "best").save(rundir.encoder_path(workdir))
    return workdir


def projections(h: hasher.Hasher, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """u of base rows and u of queries, `[n, K]` each."""
    project = jax.jit(functools.partial(hash_functions.projections, h.nets))
    base, query, _ = project(h.params, x)
    return np.asarray(base), np.asarray(query)


def memory_maps() -> int:
    """Of this process; Linux ends a process that asks for more than 65,530."""
    return len(Path("/proc/self/maps").read_text().splitlines())


def vectors(n: int, d: int, seed: int = 0) -> np.ndarray:
    """Rows far from the origin, of unequal variances."""
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(n, d)) * np.linspace(1, 3, d) + 7).astype(np.float32)
