"""What training needs before its first step: state, standardised rows, graph, ground truth.

Not responsible for the training itself (`train`).
"""

from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sigah_jax.data.datasets import Dataset
from sigah_jax.devices import hosts, parallel
from sigah_jax.errors import BadInput
from sigah_jax.files.cache import cached
from sigah_jax.model import networks, pca
from sigah_jax.model.keys import Purpose, key_for
from sigah_jax.model.rotation import rotate
from sigah_jax.model.standardise import init_standardiser, standardise
from sigah_jax.retrieval import euclidean
from sigah_jax.run import checkpoints, logs, rundir
from sigah_jax.training import evaluate, step

# below it a share of rounding's size, one in 2²³, is no normal float32 any more
LEAST_VARIANCE = float(np.finfo(np.float32).tiny / np.finfo(np.float32).eps)


class Setup(NamedTuple):
    """What training needs beside its state."""

    data: Dataset
    nets: networks.Networks
    z_train: np.ndarray  # [nt, P] f32 standardised training set, on the host
    graph: np.ndarray | None  # [nt, k] i32
    state: step.State  # initial, or restored from the latest checkpoint
    validation_truth: np.ndarray  # [nv, k] i32


def pool_rows(config) -> int:
    """How many rows there must be at least for training and validation queries together."""
    t, queries = config.train, config.data.val_queries
    batch = max(t.anchors * (1 + t.others), t.graph_neighbours + 1)
    return queries + max(queries, batch)


def check_data(config, data: Dataset, log: logs.Log) -> None:
    """Tells of the data set; BadInput if training cannot use its training rows.

    They may be too few for a batch or the graph, all equal, or so near to one another that
    squares of their differences vanish in float32.
    """
    nt = len(data.xt)
    log.line(f"data: {data.origin}")
    log.line(
        f"base {len(data.xb)}, training {nt}, queries {len(data.xq)}, columns {data.xt.shape[1]}"
    )
    if data.warning:
        log.line(f"warning: {data.warning}")
    per_step = config.train.anchors * (1 + config.train.others)
    if per_step > nt:
        raise BadInput(
            f"config.train: a batch of {per_step} rows from a training set of {nt}; lower anchors"
        )
    if config.train.graph_neighbours >= nt:
        raise BadInput(f"config.train.graph_neighbours: expected less than the {nt} training rows")
    ranges = np.ptp(data.xt, axis=0).astype(np.float64)
    if not ranges.any():
        raise BadInput(f"data: the {nt} training rows are all equal; check where they come from")
    # the variance of a column is a quarter of its squared range at most
    if (ranges**2).sum() / 4 < LEAST_VARIANCE:
        raise BadInput(
            f"data: the {nt} training rows are so near to one another (ranges of columns up to "
            f"{ranges.max():.1e}) that their variance underflows float32; scale the vectors up"
        )


def first_arrays(config, xt: np.ndarray, features: int) -> tuple[dict, jax.Array, jax.Array]:
    """What the training rows give to `step.init_state`: standardiser, variances and rotation.

    ours: the rotation is ITQ's. From a random one training ends in worse codes (NOTES).
    """
    directions = pca.principal_directions(xt, xt.shape[1])
    standardiser, variances = init_standardiser(*directions, features)
    bits = config.model.bits
    leading = standardiser | {"projection": standardiser["projection"][:, :bits]}
    v = parallel.map_rows(standardise, config.eval.block_rows)(leading, xt)
    key = key_for(config.seed, Purpose.ROTATION)
    rotation, _ = rotate(key, v, bits, config.model.itq_iterations)
    return standardiser, variances, rotation


def setup(config, workdir: Path, cache: Path, data: Dataset, log: logs.Log) -> Setup:
    """Restores or makes the state, standardises, finds or reads graph and ground truth."""
    d, nt = data.xt.shape[1], len(data.xt)
    features = min(config.model.input_dims, d)
    nets = networks.make_networks(config, features)
    latest = latest_step(workdir)
    if latest is None:
        # both are deterministic, but a resumed run takes them from the checkpoint all the same
        first = first_arrays(config, data.xt, features)
        tx = step.make_optimisers(config)
        init = jax.jit(step.init_state, static_argnums=(1, 2), out_shardings=parallel.replicated())
        # of equal machines they are the same, but equal replicas must not depend on that
        host = hosts.from_first(jax.tree.map(np.asarray, first))
        state = init(jax.random.key(config.seed), nets, tx, *host)
    else:
        like = step.abstract_state(nets, step.make_optimisers(config), d)
        state = _restore(workdir, latest, like)
        log.line(f"resumed at step {latest} of {config.train.steps}")
    arrays = parallel.fetch(state.standardiser)
    z_train = parallel.map_rows(standardise, config.eval.block_rows)(arrays, data.xt)
    engine = parallel.engine(config.engine)
    graph, k = None, config.train.graph_neighbours
    if k:
        log.line(f"neighbour graph of {nt} training rows, k={k}")
        graph = hosts.in_turn(
            lambda: cached(
                cache,
                "graph",
                [z_train, k],
                lambda: euclidean.neighbour_graph(z_train, k, engine),
            )
        )
    truth = hosts.in_turn(lambda: evaluate.cached_ground_truth(cache, data.xv, data.xt, engine))
    return Setup(data, nets, z_train, graph, state, truth)


def refit_setup(config, s: Setup, workdir: Path, own: Path, log: logs.Log) -> Setup:
    """`s` with the state of the second training, made from the best checkpoint, or restored.

    Args:
        config: of `config.of_refit`.
        workdir: of the first training, which is finished.
        own: the directory of the second.
    """
    d, nets = s.data.xt.shape[1], networks.make_networks(config, s.nets.dis.features)
    tx = step.make_refit_optimisers(config)
    latest = latest_step(own)
    if latest is not None:
        state = _restore(own, latest, step.abstract_state(nets, tx, d))
        log.line(f"resumed at step {latest} of {config.train.steps} of the decoder's own")
        return s._replace(nets=nets, state=state)
    first = parallel.fetch(_restore(workdir, checkpoints.best_step(workdir), s.state))
    begin = jax.jit(_begin_refit, static_argnums=(1, 2), out_shardings=parallel.replicated())
    return s._replace(nets=nets, state=begin(jax.random.key(config.seed), nets, tx, first))


def _begin_refit(
    key: jax.Array, nets: networks.Networks, tx: step.Optimisers, first: step.State
) -> step.State:
    gen = {"hash": first.gen["hash"], "decoder": networks.init_decoder(key, nets)}
    opt = {"gen_opt": tx.gen.init(gen), "dis_opt": tx.dis.init(first.dis)}
    return first.replace(step=jnp.int32(0), gen=gen, **opt)


def latest_step(workdir: Path) -> int | None:
    """The step that a training resumes from, the same on all processes.

    What a killed process left is removed before any process looks.
    """

    def look() -> list[int]:
        if hosts.first():
            checkpoints.remove_torn(workdir)
        return rundir.saved_steps(workdir)

    return max(hosts.in_turn(look), default=None)


def _restore(workdir: Path, number: int, like: step.State) -> step.State:
    """A checkpoint's state on all devices, through a compiled copy: the step donates its state."""
    everywhere = parallel.replicated(parallel.all_devices())
    state = checkpoints.restore(workdir, number, like, everywhere)
    return parallel.replicate(parallel.fetch(state))
