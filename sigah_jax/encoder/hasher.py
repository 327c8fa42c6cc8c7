"""The trained product: encoders of vectors to packed codes and a decoder back.

What is stored and searched in goes through `encode`, what is searched for through
`encode_queries`: with `config.model.query_head` they are two hash functions, and the code of a
vector as a query is not its code as a base row. Without it both are the same.

Codes are bytes in the bit order of `numpy.packbits`: bit 0 is the most significant bit of byte 0.
faiss's binary indexes take them as they are; what faiss packs itself is the other way round.

Shapes: n rows, d input columns, K bits, W packed bytes, P features after `standardise`.

Not responsible for training (`train`), files of vectors (`encode`) nor search (`retrieval`).
"""

import contextlib
import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sigah_jax.config import of_refit
from sigah_jax.devices import parallel
from sigah_jax.encoder import hash_functions
from sigah_jax.errors import BadInput
from sigah_jax.files.cache import content_hash
from sigah_jax.formats.vectors import why_bad
from sigah_jax.model import networks
from sigah_jax.retrieval import codes
from sigah_jax.run import checkpoints, rundir
from sigah_jax.training import step

LOOKS = 20  # at a run directory, where checkpoints come and go while it is read


class Hasher(NamedTuple):
    """Returned by `load`; training replaces the parameters of one of `make_hasher`."""

    nets: networks.Networks
    block_rows: int  # rows in one call, over all devices
    # the functions of `hash_functions`, by blocks: see `parallel.map_blocks`
    encode_with: Callable
    encode_queries_with: Callable
    project_with: Callable
    features_with: Callable
    synthesise_with: Callable
    decode_with: Callable
    params: dict  # {"standardiser", "gen"}
    facts: dict  # of the run, for `describe`; empty outside a run

    def __repr__(self) -> str:
        """One line; `describe` tells more."""
        return f"Hasher({self.d} columns to codes of {self.bits} bits)"

    def __reduce__(self):
        """A pickle names the run directory and the checkpoint, which are loaded again from there.

        Raises:
            BadInput: it has no run directory.
        """
        if not self.facts.get("workdir"):
            raise BadInput(
                "a hasher without a run directory cannot be pickled; fit with a workdir, or load "
                "it in each worker"
            )
        checkpoint = "best" if self.facts["refitted"] else self.facts["step"]
        return load, (os.path.abspath(self.facts["workdir"]), checkpoint)

    @property
    def bits(self) -> int:
        """K, the length of a code."""
        return self.nets.hash.bits

    @property
    def query_head(self) -> bool:
        """Whether queries have a hash function of their own."""
        return self.nets.hash.query_head

    @property
    def d(self) -> int:
        """Columns of the vectors that it was trained on."""
        return self.params["standardiser"]["mean"].shape[0]

    def encode(self, x: np.ndarray | jax.Array, out: np.ndarray | None = None) -> np.ndarray:
        """Packed codes of base rows, on all devices: `[n, d] -> [n, W] u1`.

        Memory beside x and the codes is that of one block of rows, so x may be a memory map.

        Args:
            x: `[n, d]`, n >= 0, integers or floats.
            out: `[n, W] u1`, also a memory map; is written block by block and returned.

        Raises:
            BadInput: another d, rows that are not numbers, NaN or infinity in a row, which is
                named (the blocks before it are in `out` then), or an `out` that does not fit.
        """
        return self._codes(x, out, queries=False)

    def encode_queries(
        self, x: np.ndarray | jax.Array, out: np.ndarray | None = None
    ) -> np.ndarray:
        """Packed codes of queries, to be compared with those of `encode`; else as `encode`."""
        return self._codes(x, out, queries=True)

    def _codes(
        self, x: np.ndarray | jax.Array, out: np.ndarray | None, queries: bool
    ) -> np.ndarray:
        x = self.check(x)
        shape = (len(x), codes.packed_bytes(self.bits))
        if out is None:
            out = np.empty(shape, np.uint8)
        elif not isinstance(out, np.ndarray):
            raise BadInput(f"out is a {type(out).__name__}: expected an array, uint8 {list(shape)}")
        elif out.shape != shape or out.dtype != np.uint8:
            raise BadInput(
                f"out is {out.dtype} {list(out.shape)}: {shape[0]} codes of {self.bits} bits are "
                f"uint8 {list(shape)}"
            )
        for start, packed, good in self.encode_blocks(lambda i, j: x[i:j], 0, len(x), queries):
            if not good.all():
                row = start + int(good.argmin())
                raise BadInput(f"vectors: {why_bad(x[row], row)}")
            out[start : start + len(packed)] = packed
        return out

    def encode_blocks(
        self,
        read: Callable[[int, int], np.ndarray],
        first: int,
        rows: int,
        queries: bool = False,
    ) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Codes block by block, bad rows told apart instead of refused.

        Args:
            read: `(start, stop) -> [stop - start, d]`.
            first: the first row; a multiple of `block_rows` gives the blocks of `first=0`.
            rows: all rows, those before `first` too.
            queries: as `encode_queries`, else as `encode`.

        Yields:
            (start, codes `[b, W] u1`, good `[b] bool`) in order. A row is bad if it holds NaN or
            infinity, or values so large that float32 overflows; its code is all zeros.
        """
        encode = self.encode_queries_with if queries else self.encode_with
        for start, y in encode(self.params, lambda i, j: on_host(read(i, j)), first, rows):
            yield start, y[:, :-1], y[:, -1] == 1

    def project(self, x: np.ndarray | jax.Array) -> np.ndarray:
        """Real projections of queries, for asymmetric search: `[n, d] -> u [n, K] f32`.

        Code bit k of `encode_queries` is u_k > 0; |u_k| says how sure it is.

        Raises:
            BadInput: as `encode`.
        """
        return self._of_vectors(self.project_with, x, self.bits)

    def features(self, x: np.ndarray | jax.Array) -> np.ndarray:
        """Standardised features, what the networks see of vectors: `[n, d] -> z [n, P] f32`.

        For asymmetric search, beside `decode`: ‖z - ẑ‖² ranks codes as ‖x - x̂‖² does, for the
        part of x that is outside of the P directions is the same for all codes.

        Raises:
            BadInput: as `encode`.
        """
        return self._of_vectors(self.features_with, x, self.nets.dis.features)

    def synthesise(self, packed: np.ndarray | jax.Array) -> np.ndarray:
        """Synthetic features x̂ in input units: `[n, W] u1 -> [n, d] f32`.

        Raises:
            BadInput: codes of another width or dtype.
        """
        return self._of_codes(self.synthesise_with, packed, self.d)

    def decode(self, packed: np.ndarray | jax.Array) -> np.ndarray:
        """Synthetic features ẑ in the space of `features`: `[n, W] u1 -> [n, P] f32`.

        Raises:
            BadInput: codes of another width or dtype.
        """
        return self._of_codes(self.decode_with, packed, self.nets.dis.features)

    def describe(self) -> dict:
        """What it is, for people and JSON.

        `encoder` is a hash of the parameters: codes of base rows and queries can be compared if it
        is equal. `query_head` tells whether queries have a hash function of their own. A hasher of
        `load` also tells `workdir`, `data` (name or file), `preset`, `config_hash`, `step`,
        `validation`, the metrics of its checkpoint on the validation queries, {} without any, and
        whether its decoder is `refitted`.
        """
        arrays = [np.asarray(a) for a in jax.tree.leaves(self.params)]
        return {
            "bits": self.bits,
            "code_bytes": codes.packed_bytes(self.bits),
            "d": self.d,
            "encoder": content_hash(arrays),
            "query_head": self.query_head,
        } | self.facts

    def check(self, x: np.ndarray | jax.Array) -> np.ndarray | jax.Array:
        """x as an array, if it holds vectors that can be encoded; otherwise BadInput."""
        x = as_array(x, "vectors")
        if x.ndim != 2 or x.shape[1] != self.d:
            raise BadInput(f"vectors of shape {x.shape}: this hasher was trained on [n, {self.d}]")
        if not (jnp.issubdtype(x.dtype, jnp.integer) or jnp.issubdtype(x.dtype, jnp.floating)):
            raise BadInput(f"vectors of {x.dtype}: expected integers or floats; convert them")
        return x

    def _of_vectors(
        self, function: Callable, x: np.ndarray | jax.Array, columns: int
    ) -> np.ndarray:
        x = self.check(x)
        out = np.empty((len(x), columns), np.float32)
        for start, y in function(self.params, lambda i, j: on_host(x[i:j]), 0, len(x)):
            bad = np.isnan(y).any(1)
            if bad.any():
                row = start + int(bad.argmax())
                raise BadInput(f"vectors: {why_bad(x[row], row)}")
            out[start : start + len(y)] = y
        return out

    def _of_codes(
        self, function: Callable, packed: np.ndarray | jax.Array, columns: int
    ) -> np.ndarray:
        width = codes.packed_bytes(self.bits)
        packed = as_array(packed, "codes")
        if packed.ndim != 2 or packed.shape[1] != width or packed.dtype != np.uint8:
            raise BadInput(
                f"codes are {packed.dtype} {list(packed.shape)}: codes of {self.bits} bits are "
                f"uint8 [n, {width}]"
            )
        out = np.empty((len(packed), columns), np.float32)
        for start, y in function(self.params, lambda i, j: packed[i:j], 0, len(packed)):
            out[start : start + len(y)] = y
        return out


def as_array(x, name: str) -> np.ndarray | jax.Array:
    """What somebody gave as `name` as an array: a list, a data frame, a tensor on the CPU.

    Raises:
        BadInput: values are masked, the matrix is sparse, or numpy cannot make an array of it.
    """
    if isinstance(x, jax.Array):
        return x
    if np.ma.is_masked(x):
        raise BadInput(
            f"{name}: {np.ma.count_masked(x)} values are masked; fill or drop their rows"
        )
    if hasattr(x, "toarray"):  # of scipy
        raise BadInput(f"{name}: a sparse matrix ({type(x).__name__}); give its .toarray()")
    try:
        return np.asarray(x)
    except (TypeError, ValueError, RuntimeError) as e:  # ragged lists, tensors on another device
        why = " ".join(str(e).split())
        raise BadInput(f"{name}: no array of numbers ({why}); give a numpy array [n, d]") from e


def on_host(block: np.ndarray | jax.Array) -> np.ndarray:
    """A block as the devices take it: half floats and small integers as they are, else float32."""
    as_is = block.dtype.itemsize < 4 and block.dtype.isnative
    with np.errstate(over="ignore"):  # a row of infinities is told as bad
        return np.asarray(block, block.dtype if as_is else np.float32)


def params_of(state: step.State) -> dict:
    """The part of a training state that a hasher needs."""
    return {"standardiser": state.standardiser, "gen": state.gen}


def make_hasher(nets: networks.Networks, params: dict, block_rows: int) -> Hasher:
    """A hasher over all devices; hashers of equal networks share what they compile.

    Args:
        block_rows: rows a device and call.
    """

    def rows(function: Callable) -> Callable:
        return parallel.map_blocks(_with_networks(function, nets), block_rows)

    return Hasher(
        nets,
        block_rows * len(parallel.local_devices()),
        rows(hash_functions.encode),
        rows(hash_functions.encode_queries),
        rows(hash_functions.project),
        rows(hash_functions.features),
        rows(hash_functions.synthesise),
        rows(hash_functions.decode),
        params,
        {},
    )


@functools.cache  # one object for equal networks: see `parallel.pmap`
def _with_networks(function: Callable, nets: networks.Networks) -> Callable:
    return functools.partial(function, nets)


@parallel.default_settings()
def load(workdir: str | Path, checkpoint: str | int = "best") -> Hasher:
    """The hasher of a run directory, also while a training saves there.

    Args:
        checkpoint: "best" by validation map, with the decoder of its second training if that is
            finished; "latest", or a step, with the decoder that was trained beside its codes.

    Raises:
        BadInput: no run there, one that is damaged or of another version, no such checkpoint, or
            not the encoder any more that the training ended with.
    """
    workdir = Path(os.path.expanduser(workdir))
    parallel.local_devices()  # where there are none, before JAX is asked for anything else
    for _ in range(LOOKS):  # a checkpoint may be replaced between the look at it and its reading
        with contextlib.suppress(checkpoints.Gone):
            return _load(workdir, str(checkpoint))
    return _load(workdir, str(checkpoint))


def _load(workdir: Path, checkpoint: str) -> Hasher:
    config, config_hash = rundir.read_config(workdir)
    number = checkpoints.number_of(workdir, checkpoint)
    saved = checkpoints.facts(workdir, number)
    try:
        d, features = saved["shape"]
        nets = networks.make_networks(config, features)
        like = step.abstract_state(nets, step.make_optimisers(config), d)
        block_rows, second = config.eval.block_rows, of_refit(config)
        facts = {
            "workdir": str(workdir),
            "data": config.data.base or config.data.name,
            "preset": config.preset,
            "config_hash": config_hash,
            "step": number,
            "validation": {
                name.removeprefix("eval/"): value
                for name, value in (saved["metrics"] or {}).items()
            },
        }
    except (AttributeError, KeyError, TypeError, ValueError) as e:
        raise BadInput(f"{workdir}: made by another version or damaged ({e}); train it anew") from e
    directory = rundir.refit_directory(workdir)
    refitted = checkpoint == "best" and second.train.steps in rundir.saved_steps(directory)
    if refitted:
        nets, number = networks.make_networks(second, features), second.train.steps
        like = step.abstract_state(nets, step.make_refit_optimisers(second), d)
    source = directory if refitted else workdir
    state = checkpoints.restore(source, number, like, parallel.replicated(), alone=True)
    facts["refitted"] = refitted
    h = make_hasher(nets, params_of(state), block_rows)._replace(facts=facts)
    if checkpoint == "best":
        rundir.check_encoder(workdir, h.describe())
    return h
