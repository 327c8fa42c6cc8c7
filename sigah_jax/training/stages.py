"""What a run trains, one after the other: hash network with decoder, then a decoder alone.

A stage says what moves, towards what, for how many steps, from which parameters, on which codes if
they stand still, and whether they are validated. `train` runs one, whichever it is.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from sigah_jax.config import decoder_stages, first_steps
from sigah_jax.data.datasets import Dataset
from sigah_jax.devices import hosts, parallel
from sigah_jax.model import networks
from sigah_jax.model.keys import Purpose, key_for
from sigah_jax.run import checkpoints, loading, logs, rundir
from sigah_jax.training import objective, prepare, refinement, step

ABOUT = {
    "training": "hash network and decoder",
    "refit": "a larger decoder of the final codes",
    "alternation": "the decoder of refined codes",
}


class Stage(NamedTuple):
    """One training of a run."""

    name: str  # of its figures
    about: str  # what it trains, for people
    before: int  # steps of the stages before it
    of: int  # steps of all stages
    directory: Path  # of its checkpoints and its metrics.jsonl
    training: step.Training
    begin: Callable[[], step.State]  # the state before its first step, on all devices
    # codes [nt, W] u1 of the training rows by the ground truth of validation queries, which chooses
    # how far they are refined; None: they move
    codes: Callable[[np.ndarray, logs.Log], np.ndarray] | None
    validated: bool  # the codes move, so the best checkpoint is chosen by validation


def stages(config, workdir: Path, data: Dataset) -> list[Stage]:
    """The stages of a run, in order; those without steps are left out."""
    d = data.xt.shape[1]
    features = min(config.model.input_dims, d)
    nets = networks.make_networks(config.model, features)
    weights, steps = objective.Weights.of(config), first_steps(config, len(data.xt))
    first = step.Training(nets, ("hash", "decoder"), weights, steps)
    begin = functools.partial(_first_state, config, first, data)
    more = decoder_stages(config, len(data.xt))
    of = steps + sum(more.values())
    found = [Stage("training", ABOUT["training"], 0, of, workdir, first, begin, None, True)]
    # terms of the codes, which stand still, have no weight
    weights = weights._replace(
        ordinal=0.0, quantisation=0.0, reconstruction=config.refit.reconstruction
    )
    for name, steps in more.items():
        anew = name == "refit"
        if anew:
            decoder = networks.make_decoder(config.model, config.refit.atoms, features)
            nets = nets._replace(gen=nets.gen._replace(decoder=decoder))
        training = step.Training(nets, ("decoder",), weights, steps)
        begin = functools.partial(_decoder_state, config, training, workdir, found[-1], anew)
        codes = functools.partial(_decoder_codes, config, workdir, data, refined=not anew)
        directory = rundir.stage_directory(workdir, name)
        before = found[-1].before + found[-1].training.steps
        found.append(Stage(name, ABOUT[name], before, of, directory, training, begin, codes, False))
    return found


def _first_state(config, training: step.Training, data: Dataset) -> step.State:
    """The initial state, from the training rows."""
    standardiser, *rest = prepare.first_arrays(config, data.xt, training.nets.dis.features)
    arrays = standardiser | data.metric.arrays, *rest
    # of equal machines they are the same, but equal replicas must not depend on that
    arrays = hosts.from_first(jax.tree.map(np.asarray, arrays))
    init = jax.jit(step.init_state, static_argnums=(1, 2), out_shardings=parallel.replicated())
    key = key_for(config.seed, Purpose.PARAMETERS)
    return init(key, training, step.make_optimisers(config, training), *arrays)


def _decoder_state(
    config, training: step.Training, workdir: Path, before: Stage, anew: bool
) -> step.State:
    """What the stage before ended with; `anew`: with a decoder that knows nothing yet.

    The codes that are taught by a decoder must follow it, and it them; a larger one, once they
    stand still, ranks the finest neighbours better (research log).
    """
    fields = "standardiser", "gen", "dis", "kappa"
    last = checkpoints.best_step(workdir) if before.validated else before.training.steps
    held = checkpoints.read(before.directory, last, fields)
    begin = jax.jit(_begin, static_argnums=(1, 2), out_shardings=parallel.replicated())
    key = key_for(config.seed, Purpose.DECODER) if anew else None
    return begin(key, training, step.make_optimisers(config, training), held)


def _begin(
    key: jax.Array | None, training: step.Training, tx: step.Optimisers, held: dict
) -> step.State:
    gen = held["gen"]
    if key is not None:
        gen |= {"decoder": networks.init_decoder(key, training.nets.gen)}
    return step.begin(training, tx, held["standardiser"], gen, held["dis"], held["kappa"])


def _decoder_codes(
    config, workdir: Path, data: Dataset, truth: np.ndarray, log: logs.Log, refined: bool
) -> np.ndarray:
    """Codes of the training rows by the run as far as it is, plain or refined.

    A decoder ranks better if it was trained on refined codes, which it will decode (research log).
    """
    h = loading.of_checkpoint(workdir, "best")
    if refined:
        h, known, codes = refinement.chosen(config, h, data, truth, log)
        rows = np.arange(len(data.xt))
        return refinement.completed(h, data.xt, rows, known, codes)
    return h.euclidean.encode(data.xt)
