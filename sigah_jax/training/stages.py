"""What a run trains, one after the other: hash network with decoder, then a decoder alone.

A stage says what moves, towards what, for how many steps, from which parameters, and whether its
codes are validated. `train` runs one, whichever it is.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from sigah_jax.config import refit_steps
from sigah_jax.data.datasets import Dataset
from sigah_jax.devices import hosts, parallel
from sigah_jax.model import networks
from sigah_jax.model.keys import Purpose, key_for
from sigah_jax.run import checkpoints, rundir
from sigah_jax.training import evaluate, prepare, step


class Stage(NamedTuple):
    """One training of a run."""

    name: str  # for people
    directory: Path  # of its checkpoints and its metrics.jsonl
    training: step.Training
    begin: Callable[[], step.State]  # the state before its first step, on all devices
    codes: Callable[[], np.ndarray] | None  # [nt, W] u1 of the training rows; None: they move
    validated: bool  # the codes move, so the best checkpoint is chosen by validation


def stages(config, workdir: Path, data: Dataset) -> list[Stage]:
    """The stages of a run, in order; those without steps are left out."""
    d = data.xt.shape[1]
    features = min(config.model.input_dims, d)
    nets = networks.make_networks(config.model, features)
    weights = step.Weights.of(config)
    first = step.Training(nets, ("hash", "decoder"), weights, config.train.steps)
    begin = lambda: _first_state(config, first, data)  # noqa: E731
    found = [Stage("training", workdir, first, begin, None, True)]
    if steps := refit_steps(config):
        decoder = networks.make_decoder(config.model, config.refit.atoms, features)
        nets = nets._replace(gen=nets.gen._replace(decoder=decoder))
        # terms of the codes, which stand still, have no weight
        weights = weights._replace(
            ordinal=0.0, quantisation=0.0, reconstruction=config.refit.reconstruction
        )
        refit = step.Training(nets, ("decoder",), weights, steps)
        begin = lambda: _refit_state(config, refit, workdir)  # noqa: E731
        packed = lambda: _best_codes(config, workdir, data.xt)  # noqa: E731
        found.append(Stage("refit", rundir.refit_directory(workdir), refit, begin, packed, False))
    return found


def _first_state(config, training: step.Training, data: Dataset) -> step.State:
    """The initial state, from the training rows."""
    arrays = prepare.first_arrays(config, data.xt, training.nets.dis.features)
    # of equal machines they are the same, but equal replicas must not depend on that
    arrays = hosts.from_first(jax.tree.map(np.asarray, arrays))
    init = jax.jit(step.init_state, static_argnums=(1, 2), out_shardings=parallel.replicated())
    key = key_for(config.seed, Purpose.PARAMETERS)
    return init(key, training, step.make_optimisers(config, training), *arrays)


def _refit_state(config, training: step.Training, workdir: Path) -> step.State:
    """The best codes of the run with a decoder that knows nothing yet; the discriminator stays.

    The codes that are taught by a decoder must follow it, and it them; a larger one, once they
    stand still, ranks the finest neighbours better (NOTES).
    """
    fields = "standardiser", "gen", "dis", "kappa"
    held = checkpoints.read(workdir, checkpoints.best_step(workdir), fields)
    begin = jax.jit(_begin_refit, static_argnums=(1, 2), out_shardings=parallel.replicated())
    key = key_for(config.seed, Purpose.DECODER)
    return begin(key, training, step.make_optimisers(config, training), held)


def _best_codes(config, workdir: Path, x: np.ndarray) -> np.ndarray:
    """Packed codes of rows by the best checkpoint of the run: `[n, d] -> [n, W] u1`."""
    fields = "standardiser", "gen"
    params = checkpoints.read(workdir, checkpoints.best_step(workdir), fields)
    return evaluate.hasher_of(config, params).encode(x)


def _begin_refit(
    key: jax.Array, training: step.Training, tx: step.Optimisers, held: dict
) -> step.State:
    decoder = networks.init_decoder(key, training.nets.gen)
    gen = {"hash": held["gen"]["hash"], "decoder": decoder}
    return step.begin(training, tx, held["standardiser"], gen, held["dis"], held["kappa"])
