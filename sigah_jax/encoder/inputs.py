"""What a caller gives an encoder, as arrays; BadInput names what cannot be encoded or decoded.

Shapes: n rows, d columns, K bits, W packed bytes.

Not responsible for what becomes of the arrays: `hasher`.
"""

import jax
import jax.numpy as jnp
import numpy as np

from sigah_jax.errors import BadInput
from sigah_jax.retrieval import codes
from sigah_jax.retrieval.bad_rows import why_bad


def as_array(x, name: str) -> np.ndarray | jax.Array:
    """What a caller gave as `name` as an array: a list, a data frame, a tensor on the CPU.

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


def numeric(x: np.ndarray | jax.Array) -> bool:
    """Whether an array holds integers or floats, also those that numpy alone does not know."""
    return jnp.issubdtype(x.dtype, jnp.integer) or jnp.issubdtype(x.dtype, jnp.floating)


def vectors(x, d: int) -> np.ndarray | jax.Array:
    """x as an array, if it holds vectors `[n, d]` that can be encoded; otherwise BadInput."""
    x = as_array(x, "vectors")
    if x.ndim != 2 or x.shape[1] != d:
        raise BadInput(f"vectors of shape {x.shape}: this hasher was trained on [n, {d}]")
    if not numeric(x):
        raise BadInput(f"vectors of {x.dtype}: expected integers or floats; convert them")
    return x


def packed_codes(packed, bits: int) -> np.ndarray | jax.Array:
    """The codes `[n, W] u1` of K bits as an array; BadInput for another width or dtype."""
    width = codes.packed_bytes(bits)
    packed = as_array(packed, "codes")
    if packed.ndim != 2 or packed.shape[1] != width or packed.dtype != np.uint8:
        raise BadInput(
            f"codes are {packed.dtype} {list(packed.shape)}: codes of {bits} bits are "
            f"uint8 [n, {width}]"
        )
    return packed


def check_out(out: np.ndarray, rows: int, bits: int) -> None:
    """BadInput unless so many codes of K bits can be written into `out`."""
    shape = (rows, codes.packed_bytes(bits))
    if not isinstance(out, np.ndarray):
        raise BadInput(f"out is a {type(out).__name__}: expected an array, uint8 {list(shape)}")
    if not out.flags.writeable:
        raise BadInput("out: is read-only; give an array that can be written to")
    if out.shape != shape or out.dtype != np.uint8:
        raise BadInput(
            f"out is {out.dtype} {list(out.shape)}: {rows} codes of {bits} bits are "
            f"uint8 {list(shape)}"
        )


def refuse_bad(x: np.ndarray | jax.Array, start: int, good: np.ndarray) -> None:
    """BadInput with the number of the first bad row; `good [b] bool` is of rows from `start`."""
    if not good.all():
        row = start + int(good.argmin())
        raise BadInput(f"vectors: {why_bad(x[row], row)}")


def have_distances(z: np.ndarray) -> np.ndarray:
    """Whether float32 holds the squared lengths of features `[n, P]`, and so distances: `[n] bool`.

    Codes of longer rows are made all the same.
    """
    with np.errstate(over="ignore"):
        return np.isfinite(np.einsum("np,np->n", z, z))


def on_host(block: np.ndarray | jax.Array) -> np.ndarray:
    """A block as the devices take it: half floats and small integers as they are, else float32."""
    as_is = block.dtype.itemsize < 4 and block.dtype.isnative
    with np.errstate(over="ignore"):  # a row of infinities is told as bad
        return np.asarray(block, block.dtype if as_is else np.float32)
