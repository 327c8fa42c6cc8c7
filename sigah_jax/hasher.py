"""The trained product: an encoder of vectors to packed codes and a decoder back.

Shapes: n rows, d input columns, K bits, W packed bytes, P features.
"""

import json
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from ml_collections import config_dict

from sigah_jax import checkpoints, parallel
from sigah_jax.errors import BadInput
from sigah_jax.model import networks, step
from sigah_jax.model.standardise import restore, standardise
from sigah_jax.retrieval import codes


class Hasher(NamedTuple):
    """`make_hasher` or `load` give it; the parameters are arguments, so it fits every state."""

    bits: int
    encode_with: object  # (params, x [n, d]) -> codes [n, W] u1
    synthesise_with: object  # (params, codes [n, W]) -> [n, d] f32
    params: dict  # {"standardiser", "gen"}

    def encode(self, x: np.ndarray) -> np.ndarray:
        """Packed codes, bit order of `numpy.packbits`: `[n, d] -> [n, W] u1`."""
        d = self.params["standardiser"]["mean"].shape[0]
        if x.ndim != 2 or x.shape[1] != d:
            raise BadInput(f"vectors of shape {x.shape}: this hasher was trained on [n, {d}]")
        return self.encode_with(self.params, x)

    def synthesise(self, packed: np.ndarray) -> np.ndarray:
        """Synthetic features x̂ in input units: `[n, W] u1 -> [n, d] f32`."""
        return self.synthesise_with(self.params, packed)


def params_of(state: step.State) -> dict:
    """The part of a training state that a hasher needs."""
    return {"standardiser": state.standardiser, "gen": state.gen}


def make_hasher(nets: networks.Networks, params: dict, block_rows: int) -> Hasher:
    """A hasher over all devices; keep it, each one compiles anew."""

    def encode(params: dict, x: jax.Array) -> jax.Array:
        z = standardise(params["standardiser"], x)
        return codes.pack(networks.encode(nets, params["gen"], z) > 0)

    def synthesise(params: dict, packed: jax.Array) -> jax.Array:
        b = 2.0 * codes.unpack(packed, nets.hash.bits) - 1.0
        return restore(params["standardiser"], networks.decode(nets, params["gen"], b)[0])

    return Hasher(
        nets.hash.bits,
        parallel.map_rows(encode, block_rows),
        parallel.map_rows(synthesise, block_rows),
        params,
    )


def load(workdir: str | Path, checkpoint: str = "best") -> Hasher:
    """The hasher of a run directory.

    Args:
        checkpoint: "best" by validation map, "latest", or a step.

    Raises:
        BadInput: no run there, no such checkpoint.
    """
    workdir = Path(workdir)
    path = workdir / "config.json"
    if not path.exists():
        raise BadInput(f"{workdir}: no config.json, so no run directory; train first")
    config = config_dict.ConfigDict(json.loads(path.read_text())["config"])
    with checkpoints.open_manager(workdir) as manager:
        number = checkpoint_number(manager, workdir, checkpoint)
        d, features = checkpoints.facts(manager, number)["shape"]
        nets = networks.make_networks(config, features)
        like = step.abstract_state(config, nets, d)
        state = checkpoints.restore(manager, number, like, parallel.replicated())
    return make_hasher(nets, params_of(state), config.eval.block_rows)


def checkpoint_number(manager, workdir: Path, checkpoint: str) -> int:
    """The step that "best", "latest" or a step's number means; BadInput if there is none."""
    steps = list(manager.all_steps())
    if not steps:
        raise BadInput(f"{workdir}: no checkpoint yet; train first")
    if checkpoint not in ("best", "latest") and not checkpoint.isdecimal():
        raise BadInput(f"--checkpoint={checkpoint}: expected best, latest or a step of {steps}")
    if checkpoint == "best":
        number = checkpoints.best_step(manager)
        if number is None:
            raise BadInput(f"{workdir}: no checkpoint is validated yet; use --checkpoint=latest")
        return number
    return max(steps) if checkpoint == "latest" else int(checkpoint)
