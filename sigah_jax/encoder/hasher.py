"""The trained product: an encoder of vectors to packed codes and back, which stands alone.

What is stored and searched in goes through `encode`, what is searched for through
`encode_queries`: with `model.query_head` they are two hash functions, and the code of a
vector as a query is not its code as a base row. Without it both are the same.

Codes are bytes in the bit order of `numpy.packbits`: bit 0 is the most significant bit of byte 0.
faiss's binary indexes take them as they are; what faiss packs itself is the other way round.

Shapes: n rows, d input columns, K bits, W packed bytes, P features after `standardise`. Symbols:
z features, u real projections, ẑ synthetic features, x̂ the same in input units.

Not responsible for training (`training`), run directories (`run.loading`), files of vectors
(`encode`), the bytes of its own file (`encoder.archive`) nor search (`encoder.searching`).
"""

import dataclasses
import functools
import numbers
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import jax
import numpy as np
from ml_collections import config_dict

from sigah_jax.devices import parallel
from sigah_jax.encoder import archive, hash_functions, inputs, refining
from sigah_jax.encoder.calibration import Pairs
from sigah_jax.errors import BadInput
from sigah_jax.files import whole
from sigah_jax.model import networks
from sigah_jax.model.refine import best_flips
from sigah_jax.retrieval import codes
from sigah_jax.retrieval.metric import L2, Metric, base_rows, kept, queries_of, rows_of

_GREATEST = float(np.finfo(np.float32).max)  # μ
_OF_KIND = {  # of `encode_blocks`
    "base": hash_functions.encode,
    "queries": hash_functions.encode_queries,
    codes.BOTH: hash_functions.both_codes,
}


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Hasher:
    """Arrays, what they are arrays of, and what is known of them; `load` reads one from a file."""

    model: config_dict.FrozenConfigDict  # `config.model`, `atoms` those of the decoder it has
    params: dict  # {"standardiser", "gen"} of f32 arrays, `metric.arrays` among the first
    facts: dict = dataclasses.field(default_factory=dict)  # of the run, for `describe`; JSON
    block_rows: int = 2048  # rows encoded a device and call; the codes depend on it by rounding
    refinement: refining.Refinement = refining.NONE  # of base rows, unless `encode` is told
    metric: Metric = L2  # what is near; rows go through it before anything else
    pairs: Pairs | None = None  # of validation queries, which say what lies within a radius
    query_scale: float = 1.0  # β: synthetic features are ranked by ‖β z - ẑ‖² to a query's features

    def __repr__(self) -> str:
        """One line; `describe` tells more."""
        return f"Hasher({self.d} columns to codes of {self.bits} bits)"

    def __reduce__(self):
        """A pickle holds the arrays, and nothing of the devices."""
        return unpacked, (to_bytes(self),)

    @property
    def bits(self) -> int:
        """K, the length of a code."""
        return self.model.bits

    @property
    def query_head(self) -> bool:
        """Whether queries have a hash function of their own."""
        return self.model.query_head

    @property
    def d(self) -> int:
        """Columns of the vectors that it was trained on."""
        return self._points_width - self.metric.added

    @property
    def _points_width(self) -> int:
        """Columns of the points that `metric` makes of vectors."""
        return self.params["standardiser"]["projection"].shape[0]

    @property
    def features_kept(self) -> int:
        """P, the principal directions that the networks see."""
        return self.params["standardiser"]["projection"].shape[1]

    @functools.cached_property
    def euclidean(self) -> "Hasher":
        """The encoder of rows that went through `metric` already, as those of a `Dataset` have."""
        return self if self.metric == L2 else dataclasses.replace(self, metric=L2)

    @property
    def portable(self) -> "Hasher":
        """The same without its run directory, whose name means nothing on another machine."""
        facts = {name: fact for name, fact in self.facts.items() if name != "workdir"}
        return dataclasses.replace(self, facts=facts)

    @property
    def call_rows(self) -> int:
        """Rows in one call, over all devices of this process."""
        return self.block_rows * len(parallel.local_devices())

    @property
    def nets(self) -> networks.Generator:
        """The modules that `params["gen"]` are the parameters of."""
        return _networks(self.model, self.features_kept)

    def save(self, path: str | Path) -> None:
        """Writes it to a file, whole or not at all: a `.npz` of numpy, which `load` reads.

        `numpy_encoder` encodes by the same file without JAX, and does not refine. The file does not
        name the run directory.

        Raises:
            BadInput: the name does not end in `.npz`, or the disk refuses.
        """
        path = Path(os.path.expanduser(path))
        if path.suffix != ".npz":
            raise BadInput(f"{path}: an encoder is an .npz file; end its name so")
        remedy = "free space or choose another directory"
        with whole.telling(path, remedy), whole.writing(path) as f:
            f.write(to_bytes(self.portable))

    @functools.cached_property
    def _placed(self) -> dict:
        """The parameters on all devices of this process."""
        return parallel.place(self.params)

    def _mapped(self, function: Callable) -> Callable:
        """One of `hash_functions` over all devices, by blocks: see `parallel.map_blocks`."""
        mapped = parallel.map_blocks(_with_networks(function, self.nets), self.block_rows)
        return functools.partial(mapped, self._placed)

    def encode(
        self,
        x: np.ndarray | jax.Array,
        out: np.ndarray | None = None,
        refine: float | None = None,
    ) -> np.ndarray:
        """Packed codes of base rows, on all devices: `[n, d] -> [n, W] u1`.

        Memory beside x and the codes is that of one block of rows, so x may be a memory map.

        Args:
            x: `[n, d]`, n >= 0, integers or floats.
            out: `[n, W] u1`, also a memory map; is written block by block and returned.
            refine: μ > 0 flips the bits of a code that bring its synthetic feature nearer to the
                row, each at a cost of μ |u| / ‖z‖⁴, see `model.refine`; 0 flips none, which is many
                times faster. None: the `refinement` that training chose.

        Raises:
            BadInput: another d, rows that are not numbers, NaN or infinity in a row, or a row of
                zeros, which has no cosine, by its number (the blocks before it are in `out` then),
                an `out` that does not fit, or a `refine` that is not 0 or more.
        """
        return self._encoded(x, out, "base", refine)

    def encode_queries(self, x: np.ndarray | jax.Array) -> np.ndarray:
        """Packed codes of queries, to be compared with those of `encode`; else as `encode`."""
        return self._encoded(x, None, "queries")

    def encode_blocks(
        self,
        read: Callable[[int, int], np.ndarray],
        first: int,
        rows: int,
        kind: str = "base",
        refine: float | None = None,
    ) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Codes block by block, bad rows told apart instead of refused.

        Args:
            read: `(start, stop) -> [stop - start, d]`.
            first: the first row; a multiple of `call_rows` gives the blocks of `first=0`.
            rows: all rows, those before `first` too.
            kind: "base", as `encode`; "queries", as `encode_queries`; or "both codes of queries",
                as `both_codes`, beside one another.
            refine: as in `encode`; not of queries.

        Yields:
            (start, codes `[b, W] u1`, of both `[b, 2 W]`, good `[b] bool`) in order. A row is bad
            if it holds NaN or infinity, or values so large that float32 overflows, or has no cosine
            where that is the metric; its code is all zeros.

        Raises:
            BadInput: a `refine` that is not 0 or more. KeyError: another `kind`.
        """
        points = self._points(read, base_rows if kind == "base" else queries_of)
        how = self.refined(refine)
        if how.mu and kind == "base":
            blocks = self._mapped(hash_functions.features_and_projections)(points, first, rows)
            together = self._refined_rows * len(parallel.local_devices())
            size = refining.call_rows(rows, together)
            return refining.refine_blocks(self._best_flips(how.mu), blocks, size, how.iterations)
        blocks = self._mapped(_OF_KIND[kind])(points, first, rows)
        return ((start, packed.reshape(len(good), -1), good) for start, (packed, good) in blocks)

    def _points(self, read: Callable, make: Callable) -> Callable:
        """`read` of rows as the networks' input: through `metric.base_rows` or `queries_of`."""
        return lambda i, j: make(self.metric, inputs.on_host(read(i, j)))

    def refined(self, refine: float | None) -> refining.Refinement:
        """What `encode(x, refine=…)` does; BadInput unless μ is 0 or more."""
        if refine is None:
            return self.refinement
        if not isinstance(refine, numbers.Real) or not 0 <= refine <= _GREATEST:
            raise BadInput(f"refine={refine!r}: expected μ, 0 or more")
        return self.refinement._replace(mu=float(refine))

    def _best_flips(self, mu: float) -> Callable[[np.ndarray], np.ndarray]:
        """`model.refine.best_flips` at this price μ, over all devices."""
        function = _with_networks(best_flips, self.nets)
        params = {"moves": self._moves, "mu": np.float32(mu)}
        params = parallel.place(params | {"gen": self._placed["gen"]})
        return functools.partial(parallel.map_rows(function, self._refined_rows), params)

    @property
    def _refined_rows(self) -> int:
        """Rows in one call of `_best_flips` on one device."""
        return min(self.block_rows, refining.CALL_ROWS)

    @functools.cached_property
    def _moves(self) -> np.ndarray:
        return refining.moves(self.decode, self.bits)

    def both_codes(self, x: np.ndarray | jax.Array) -> np.ndarray:
        """Packed codes of rows as queries and as base rows: `[n, d] -> [n, 2, W] u1`.

        For `retrieval.both`, which ranks base codes better by both than by the first alone.

        Raises:
            BadInput: as `encode`.
        """
        return self._encoded(x, None, codes.BOTH).reshape(-1, 2, self._code_bytes)

    def both_projections(self, x: np.ndarray | jax.Array) -> np.ndarray:
        """Both real projections of rows, `[n, d] -> 2 u_query + u [n, K] f32`.

        For `retrieval.asymmetric.by_projection`, as `both_codes` for codes.

        Raises:
            BadInput: as `encode`.
        """
        return self._of_queries(hash_functions.both_projections, x, self.bits)

    def project_queries(self, x: np.ndarray | jax.Array) -> np.ndarray:
        """Real projections of queries, for asymmetric search: `[n, d] -> u [n, K] f32`.

        Code bit k of `encode_queries` is u_k > 0; |u_k| says how sure it is.

        Raises:
            BadInput: as `encode`.
        """
        return self._of_queries(hash_functions.project_queries, x, self.bits)

    def features(self, x: np.ndarray | jax.Array) -> np.ndarray:
        """Standardised features, what the networks see of queries: `[n, d] -> z [n, P] f32`.

        For asymmetric search, beside `decode`: ‖z - ẑ‖² ranks codes as ‖x - x̂‖² does, for the
        part of x that is outside of the P directions is the same for all codes.

        Raises:
            BadInput: as `encode`.
        """
        return self._of_queries(hash_functions.features, x, self.features_kept)

    def query_features(self, x: np.ndarray | jax.Array) -> np.ndarray:
        """β z `[n, P] f32` of queries, β being `query_scale`: `features`, times it.

        ‖β z - ẑ‖² ranks codes at least as well as ‖z - ẑ‖², by the validation queries.

        Raises:
            BadInput: as `encode`.
        """
        return np.float32(self.query_scale) * self.features(x)

    def synthesise(self, packed: np.ndarray | jax.Array) -> np.ndarray:
        """Synthetic features x̂ in input units: `[n, W] u1 -> [n, d] f32`.

        Of cosine they stand for rows of unit length, and have about that length.

        Raises:
            BadInput: codes of another width or dtype.
        """
        points = self._of_codes(hash_functions.synthesise, packed, self._points_width)
        return rows_of(self.metric, points)

    def decode(self, packed: np.ndarray | jax.Array) -> np.ndarray:
        """Synthetic features ẑ in the space of `features`: `[n, W] u1 -> [n, P] f32`.

        Raises:
            BadInput: codes of another width or dtype.
        """
        return self._of_codes(hash_functions.decode, packed, self.features_kept)

    def describe(self) -> dict:
        """What it is, for people and JSON.

        `encoder` is a hash of the parameters, `metric` what is near, `longest` M of the inner
        product, which the hash covers: codes of base rows and queries can be compared if the hash
        and the metric are equal. `query_head` tells whether queries have a hash function of their
        own, `refine` by which μ and iterations codes of base rows are refined, μ = 0 if they are
        not, `query_scale` by how much features of queries are scaled. A trained hasher also tells
        `data` (name or file), `preset`, `config_hash`, `step`, `validation`, the metrics of its
        checkpoint on the validation queries, {} without any, whether its decoder is `refitted`,
        trained further on codes that stand still, `refinement`, what refining changes on the
        training rows, if it does, `recall`, `drift.recall_by_rows` of its validation queries,
        `reference`, `drift.Figures` of them if these are rows that were held out, and `workdir` if
        it was loaded from a run directory.
        """
        told = {
            "bits": self.bits,
            "code_bytes": codes.packed_bytes(self.bits),
            "d": self.d,
            "encoder": archive.params_hash(self.params),
            "metric": self.metric.name,
            "query_head": self.query_head,
            "refine": self.refinement._asdict(),
            "query_scale": self.query_scale,
        }
        if self.metric.added:
            told["longest"] = self.metric.largest
        return told | self.facts

    def check(self, x: np.ndarray | jax.Array) -> np.ndarray | jax.Array:
        """x as an array, if it holds vectors that can be encoded; otherwise BadInput."""
        return inputs.vectors(x, self.d)

    @property
    def _code_bytes(self) -> int:
        return codes.packed_bytes(self.bits)

    def _encoded(
        self,
        x: np.ndarray | jax.Array,
        out: np.ndarray | None,
        kind: str,
        refine: float | None = None,
    ) -> np.ndarray:
        """The codes of `encode_blocks`, in `out` if given; BadInput for a bad row."""
        x = self.check(x)
        if out is None:
            out = np.empty((len(x), codes.row_bytes(self.bits, kind)), np.uint8)
        else:
            inputs.check_out(out, len(x), self.bits)
        return _filled(out, self.encode_blocks(lambda i, j: x[i:j], 0, len(x), kind, refine), x)

    def _of_queries(
        self, function: Callable, x: np.ndarray | jax.Array, columns: int
    ) -> np.ndarray:
        """One of `hash_functions` of all queries: `[n, d] -> [n, columns] f32`."""
        x = self.check(x)
        points = self._points(lambda i, j: x[i:j], queries_of)
        blocks = self._mapped(function)(points, 0, len(x))
        out = np.empty((len(x), columns), np.float32)
        return _filled(out, ((start, *results) for start, results in blocks), x)

    def _of_codes(
        self, function: Callable, packed: np.ndarray | jax.Array, columns: int
    ) -> np.ndarray:
        packed = inputs.packed_codes(packed, self.bits)
        out = np.empty((len(packed), columns), np.float32)
        for start, y in self._mapped(function)(lambda i, j: packed[i:j], 0, len(packed)):
            out[start : start + len(y)] = y
        return out


def _filled(out: np.ndarray, blocks: Iterable, x: np.ndarray | jax.Array) -> np.ndarray:
    """`out` once it holds all blocks (start, results, good) of rows x; BadInput for a bad row."""
    for start, y, good in blocks:
        inputs.refuse_bad(x, start, good)
        out[start : start + len(y)] = y
    return out


def to_bytes(h: Hasher) -> bytes:
    """The `.npz` of `Hasher.save`."""
    about = {
        "model": h.model.to_dict(),
        "facts": h.facts,
        "block_rows": h.block_rows,
        "refine": h.refinement._asdict(),
        "metric": h.metric.name,
        "query_scale": h.query_scale,
    }
    return archive.pack(h.params, about, h.pairs)


def unpacked(data: bytes) -> Hasher:
    """The hasher of `to_bytes`; one of `archive.DAMAGE` if it is damaged."""
    params, about, pairs = archive.unpack(data)
    model = config_dict.FrozenConfigDict(about["model"])
    # earlier versions wrote none of these
    refinement = refining.Refinement(**about.get("refine", {}))
    metric = kept(about.get("metric", "l2"), params["standardiser"])
    scale = about.get("query_scale", 1.0)
    if not 0 < scale < np.inf:
        raise ValueError(f"query_scale is {scale}")
    facts, block_rows = about["facts"], about["block_rows"]
    return Hasher(model, params, facts, block_rows, refinement, metric, pairs, scale)


def read(path: Path, remedy: str) -> Hasher:
    """The hasher of a file that `Hasher.save` wrote.

    Args:
        remedy: what to do about a damaged file, for the message.

    Raises:
        FileNotFoundError: there is no such file.
        BadInput: it cannot be read, is damaged or of something else.
    """
    try:
        return unpacked(path.read_bytes())
    except FileNotFoundError:
        raise
    except OSError as e:
        raise BadInput(f"{path}: cannot be read ({e.strerror}); check its permissions") from e
    except archive.DAMAGE as e:
        raise BadInput(f"{path}: damaged, or not an encoder ({e}); {remedy}") from e


@functools.cache
def _networks(model: config_dict.FrozenConfigDict, features: int) -> networks.Generator:
    return networks.make_generator(model, features)


@functools.cache  # one object for equal networks: see `parallel.pmap`
def _with_networks(function: Callable, nets: networks.Generator) -> Callable:
    return functools.partial(function, nets)
