"""Training on an array in one call: `sigah_jax.fit`.

Shapes: n rows, d columns.

Not responsible for test queries, baselines or pictures: `sigah_jax.main` has them, on files.
"""

import os
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from sigah_jax.config import change, vectors_config
from sigah_jax.config_checks import validate
from sigah_jax.data.datasets import assemble
from sigah_jax.data.row_checks import check_directions, check_finite
from sigah_jax.devices import parallel
from sigah_jax.encoder.hasher import Hasher
from sigah_jax.encoder.inputs import as_array
from sigah_jax.errors import BadInput
from sigah_jax.files.cache import content_hash
from sigah_jax.training import prepare
from sigah_jax.training.run import run

DATA_FIELDS = ("data.val_queries", "data.train_rows", "data.split_seed")


def fit(
    x: np.ndarray | jax.Array,
    bits: int = 128,
    workdir: str | Path | None = None,
    changes: dict | None = None,
    *,
    metric: str = "l2",
    queries: np.ndarray | jax.Array | None = None,
) -> Hasher:
    """Trains `preset=best` on vectors.

    500 random rows become validation queries, which choose the checkpoint, μ of refinement and β of
    search, and 100,000 random others, or all, the training set, whose exact neighbour graph is
    computed first. Progress goes to standard output and error. What is compiled serves all later
    calls with the same shapes and config; a process that fits dozens of shapes frees it by
    `jax.clear_caches()`.

    Args:
        x: `[n, d]`, integers or floats; a memory map is read by rows.
        bits: K, also above d.
        workdir: run directory: the same call resumes there where it stopped, and gives the trained
            hasher at once if it had finished; the commands of this package take it as --workdir.
            None: a temporary one, so that nothing is kept.
        changes: config fields by dotted name, as `--config.field=value`, for example
            `{"train.steps": 1000, "seed": 1}`; the fields are in `sigah_jax/config.py`. Of the
            data only `val_queries`, `train_rows` and `split_seed`: the rest is x.
        metric: what is near, "l2", "cosine" or "ip", the inner product: see `retrieval.metric`. The
            hasher keeps it.
        queries: `[m, d]`, queries to train with, which may be of another kind than x: 500 random
            ones become the validation queries, and then no row of x does; the neighbours of the
            others are rows of x. None: the training rows are queries too.

    Returns:
        What `sigah_jax.load(workdir)` returns.

    Raises:
        BadInput: n too small, masked values, rows with NaN or infinity or that float32 cannot tell
            apart, rows of zeros under cosine, a bad field, a `workdir` where another array or
            config was trained on.
        NonFinite: a loss is not finite.
    """
    if workdir is None:
        with tempfile.TemporaryDirectory(prefix="sigah_jax-") as directory:
            return fit(x, bits, directory, changes, metric=metric, queries=queries).portable
    if not str(workdir):
        raise BadInput("workdir: is empty; give a directory, or leave it out")
    x = _of_numpy(x, "x")
    queries = None if queries is None else _of_numpy(queries, "queries")
    config = config_of(x, bits, changes or {}, metric, queries)
    workdir, none = Path(os.path.expanduser(workdir)), x[:0]  # neither a base nor test queries
    name = config.data.base
    data = lambda: assemble(none, none, x, config.data, name, asked=queries)  # noqa: E731
    return run(config, workdir, workdir / "data", data)


def _of_numpy(x, name: str) -> np.ndarray:
    x = np.asarray(as_array(x, name))
    return x.astype(np.float32) if x.dtype == jnp.bfloat16 else x  # numpy knows it by name only


def config_of(
    x: np.ndarray,
    bits: int,
    changes: dict,
    metric: str = "l2",
    queries: np.ndarray | None = None,
):
    """The config of `fit`, which names the array by its content; BadInput if x cannot be used."""
    config = vectors_config(f"preset=best,bits={bits}")
    config.eval.baselines = ()
    change(config, "data.metric", metric)
    if not isinstance(changes, dict) or not all(isinstance(name, str) for name in changes):
        raise BadInput(f"changes={changes!r}: expected a dict of values by names of fields")
    for name, value in changes.items():
        if name in ("preset", "model.bits", "data.metric"):
            raise BadInput(f"config.{name}: `fit` takes `bits` and `metric`, and is `preset=best`")
        if name not in DATA_FIELDS and name.startswith(("data.", "eval.baselines")):
            raise BadInput(f"config.{name}: `fit` takes its rows from x, and fits no baselines")
        change(config, name, value)
    if x.ndim != 2 or not x.shape[1] or x.dtype.kind not in "iuf":
        raise BadInput(f"x is {x.dtype} {list(x.shape)}: expected integers or floats, [n, d]")
    if queries is not None:
        if queries.ndim != 2 or queries.shape[1] != x.shape[1] or queries.dtype.kind not in "iuf":
            raise BadInput(
                f"queries is {queries.dtype} {list(queries.shape)}: expected integers or floats, "
                f"[m, {x.shape[1]}] as x"
            )
        check_finite(queries, "queries")
        if metric == "cosine":
            check_directions(queries, "queries")
        config.data.queries_train = _name(queries)
    validation, wanted = config.data.val_queries, prepare.pool_rows(config)
    if len(x) < wanted and queries is not None:
        raise BadInput(f"x has {len(x)} rows, expected at least {wanted} training rows")
    if len(x) < wanted:
        raise BadInput(
            f"x has {len(x)} rows, expected at least {wanted}: {validation} validation queries and "
            f"{wanted - validation} training rows"
        )
    config.data.base = _name(x)
    validate(config, len(parallel.local_devices()))
    return config


def _name(x: np.ndarray) -> str:
    return f"array {len(x)} x {x.shape[1]} {x.dtype} {content_hash([x])}"
