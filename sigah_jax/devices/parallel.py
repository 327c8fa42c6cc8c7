"""Devices, placement and the one `pmap` wrapper: all that knows of several devices.

Every parallel function of the package is made here, over one axis named `AXIS`, and runs under
JAX's default settings, on the devices of this process alone unless it is given `all_devices()`.
Shapes: n devices, B rows a device, d columns.

Not responsible for what is computed: functions and arrays come in, functions and
arrays go out. Nor for processes that join and leave: `hosts`.
"""

import contextlib
import functools
import math
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from sigah_jax.errors import BadInput
from sigah_jax.process import interrupts

AXIS = "data"
ENGINES = ("cpu", "accelerator")  # of searches: faiss and numpy, JAX
_FREE = "free the device of other programs"


def local_devices(devices: Sequence[jax.Device] | None = None) -> list[jax.Device]:
    """The given devices, or all that this process can use; BadInput if JAX finds none."""
    if devices is not None:
        return list(devices)
    with _finding():
        return jax.local_devices()


def all_devices() -> list[jax.Device]:
    """The devices of all processes, those of process 0 first; BadInput if JAX finds none."""
    with _finding():
        return sorted(jax.devices(), key=lambda device: device.process_index)


@contextlib.contextmanager
def _finding() -> Iterator[None]:
    try:
        yield
    except (RuntimeError, AssertionError) as e:  # JAX asserts that it has found one
        reason = f" ({str(e).splitlines()[0]})" if str(e) else ""
        for name in ("JAX_PLATFORMS", "JAX_NUM_CPU_DEVICES"):
            if name in os.environ:
                raise BadInput(
                    f"{name}={os.environ[name]}: JAX finds no such device{reason}; check its "
                    "driver, or correct or unset the environment variable"
                ) from e
        raise BadInput(
            f"JAX cannot use the devices of this machine{reason}; check their driver and the JAX "
            "that is installed for them, or set JAX_PLATFORMS=cpu"
        ) from e


def pmap(
    fn: Callable,
    in_axes: Any,
    out_axes: Any,
    donate_argnums: Sequence[int] = (),
    devices: Sequence[jax.Device] | None = None,
) -> Callable:
    """`jax.pmap` over `AXIS`, one for all who ask with the same arguments.

    JAX keeps what it compiled for the life of the process, so `fn` must be the same object each
    time: a function of a module, or one that a cached function returned.

    Arguments with axis `None` are the same on every device and stay unstacked;
    arguments with axis 0 are `[n, ...]`, a slice a device of this process. Results with axis
    `None` must be equal on every device: read them with `fetch`. Over devices of several processes
    all call the same functions in the same order.
    """
    return _pmap(fn, in_axes, out_axes, tuple(donate_argnums), tuple(local_devices(devices)))


@functools.cache
def _pmap(fn, in_axes, out_axes, donate_argnums, devices) -> Callable:
    mapped = jax.pmap(
        fn,
        AXIS,
        in_axes=in_axes,
        out_axes=out_axes,
        donate_argnums=donate_argnums,
        devices=devices,
    )
    return interrupts.deferring()(default_settings()(mapped))


@contextlib.contextmanager
def default_settings() -> Iterator[None]:
    """JAX compiles, in float32 and int32, whatever a user has set; also decorates functions.

    Keys give the same numbers too. Losses that are not finite are looked for by `training.train`.
    """
    with (
        jax.enable_x64(False),
        jax.disable_jit(False),
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
        jax.transfer_guard("allow"),
        jax.default_prng_impl("threefry2x32"),
        jax.threefry_partitionable(True),
        jax.debug_nans(False),  # with pmap it ends in a RecursionError
        jax.debug_infs(False),
    ):
        yield


def replicated(devices: Sequence[jax.Device] | None = None) -> NamedSharding:
    """The sharding of an array that every device holds whole."""
    mesh = Mesh(np.array(local_devices(devices)), (AXIS,))
    return NamedSharding(mesh, PartitionSpec())


def replicate(tree: Any, devices: Sequence[jax.Device] | None = None) -> Any:
    """Copies a tree of arrays to every device, whole.

    Through a compiled copy: `device_put` may alias the host's or another device's
    buffer, and a later donation would then free memory that is still in use.
    """
    copy = jax.jit(_copy, out_shardings=replicated(devices))
    return copy(jax.tree.map(np.asarray, tree))


def place(tree: Any, devices: Sequence[jax.Device] | None = None) -> Any:
    """Puts a tree on every device, whole, for functions that do not donate it.

    Arrays that are there already stay as they are.
    """
    with default_settings():
        return jax.device_put(tree, replicated(devices))


def _copy(tree: Any) -> Any:
    return jax.tree.map(lambda a: a.copy(), tree)


def split(tree: Any, axis: int = 0, devices: Sequence[jax.Device] | None = None) -> Any:
    """Cuts `axis` of every array into one slice a device, see `cut`, and puts them there."""
    return spread(cut(tree, axis, devices), devices)


def cut(tree: Any, axis: int, devices: Sequence[jax.Device] | None) -> Any:
    """Cuts `axis` of every array of the host into one slice a device, brought to the front.

    `[..., n·B, ...]` becomes `[n, ..., B, ...]`. The length must be a multiple of n. Of devices of
    several processes, the slices of this one are left.
    """
    devs = local_devices(devices)
    n, mine = len(devs), [d.process_index == jax.process_index() for d in devs]

    def slices(a: np.ndarray) -> np.ndarray:
        shape = (*a.shape[:axis], n, a.shape[axis] // n, *a.shape[axis + 1 :])
        found = np.moveaxis(a.reshape(shape), axis, 0)
        return found if all(mine) else found[mine]

    return jax.tree.map(slices, tree)


def spread(slices: Any, devices: Sequence[jax.Device] | None = None) -> Any:
    """Puts one slice `[n, ...]` on each device; of several processes, `pmap` does it later."""
    devs = local_devices(devices)
    if any(d.process_index != jax.process_index() for d in devs):
        return slices
    with default_settings():
        return jax.device_put(slices, NamedSharding(replicated(devs).mesh, PartitionSpec(AXIS)))


def fetch(tree: Any) -> Any:
    """Reads a replicated tree to the host from one device (`x[0]` would ask them all)."""
    return jax.tree.map(lambda a: np.asarray(a.addressable_data(0)), tree)


def across_processes(tree: Any) -> Any:
    """A tree that every process holds whole, as arrays of all processes together."""
    if jax.process_count() == 1:
        return tree
    mesh = replicated(all_devices()).mesh
    return multihost_utils.host_local_array_to_global_array(tree, mesh, PartitionSpec())


def map_blocks(
    fn: Callable, block_rows: int, devices: Sequence[jax.Device] | None = None
) -> Callable[[Any, Callable, int, int], Iterator[tuple[int, Any]]]:
    """Makes a function that runs a per-row `fn` over rows, block by block.

    Args:
        fn: `(params, x [B, d]) -> a tree of arrays [B, ...]`, whose row i may depend on row i of x
            only. As in `pmap`, the same object each time.
        block_rows: rows a device and call; memory is bounded by it. Fewer rows in all take
            one block of the next power of two, so few shapes are compiled. The number of devices
            has no say in that: a matrix product of another shape may add in another order.
        devices: defaults to all of this process.

    Returns:
        `(params, read, first, rows) -> (start, tree of [b, ...]), …` on the host, in order, for
        rows `first` to `rows`, of which `read(start, stop)` gives `[stop - start, d]`. The next
        block is read while the devices work on one. The last is padded with zero rows, which are
        cut off again.
    """
    devs = local_devices(devices)
    n, mapped = len(devs), pmap(fn, in_axes=(None, 0), out_axes=0, devices=devs)

    def run(params: Any, read: Callable, first: int, rows: int) -> Iterator:
        per_device = min(block_rows, 1 << max(0, rows - 1).bit_length())
        params = place(params, devs)

        def finish(start: int, out: Any) -> tuple[int, Any]:
            with default_settings():  # for the transfer to the host
                out = jax.tree.map(np.asarray, out)
            merge = lambda y: y.reshape(n * per_device, *y.shape[2:])[: rows - start]  # noqa: E731
            return start, jax.tree.map(merge, out)

        working = None
        with enough_memory(f"{_FREE}, or lower config.eval.block_rows"):
            for start in range(first, rows, per_device * n):
                block = np.asarray(read(start, min(start + per_device * n, rows)))
                block = filled(block, per_device * n)
                out = mapped(params, split(block, devices=devs))
                if working:
                    yield finish(*working)
                working = start, out
            if working:
                yield finish(*working)

    return run


def map_rows(
    fn: Callable, block_rows: int, devices: Sequence[jax.Device] | None = None
) -> Callable[[Any, np.ndarray], np.ndarray]:
    """`map_blocks` of one array over all rows: `(params, x [N, d]) -> y [N, ...]`, N >= 1."""
    blocks = map_blocks(fn, block_rows, devices)

    def run(params: Any, x: np.ndarray) -> np.ndarray:
        out = None
        for start, y in blocks(params, lambda i, j: x[i:j], 0, len(x)):
            if out is None:
                out = np.empty((len(x), *y.shape[1:]), y.dtype)
            out[start : start + len(y)] = y
        return out

    return run


def over_slices(
    fn: Callable, rows: int, devices: Sequence[jax.Device] | None = None
) -> Callable[[np.ndarray], Callable[[Any], Any]]:
    """Makes a function that runs `fn` on every device over a slice of the rows of an array.

    Args:
        fn: `(shared, x [rows, ...], first, valid) -> y`, the same object each time as in `pmap`.
            `first` is the number of the slice's first row in the array and `valid` how many of
            its rows are not filling, both i32. It must bring the devices together over `AXIS`,
            by `lax.psum` for example, so that y is equal on all.
        rows: of a slice.
        devices: defaults to all of this process.

    Returns:
        `(x [N, ...]) -> (shared) -> y` on the host, for N from 1 to n · rows. x is copied to the
        devices once, and stays there as long as the second function.
    """
    devs = local_devices(devices)
    mapped = pmap(fn, in_axes=(None, 0, 0, 0), out_axes=None, devices=devs)
    firsts = rows * np.arange(len(devs), dtype=np.int32)
    telling = enough_memory(f"{_FREE}, or search by the engine cpu")

    @telling
    def bring(x: np.ndarray) -> Callable[[Any], Any]:
        slices = split(filled(x, rows * len(devs)), devices=devs)
        valid = np.clip(len(x) - firsts, 0, rows).astype(np.int32)

        @telling
        def run(shared: Any) -> Any:
            with default_settings():  # for the transfer to the host
                return fetch(mapped(shared, slices, firsts, valid))

        return run

    return bring


def filled(x: np.ndarray, rows: int) -> np.ndarray:
    """x `[n, ...]` with rows of zeros after its own, `rows` in all; x itself if it has as many."""
    if len(x) == rows:
        return x
    return np.concatenate([x, np.zeros((rows - len(x), *x.shape[1:]), x.dtype)])


def free_memory(devices: Sequence[jax.Device] | None = None) -> float:
    """Bytes that are free on the fullest device of this process; a CPU sets no limit."""
    mine = [d for d in local_devices(devices) if d.process_index == jax.process_index()]
    known = [s for d in mine if (s := d.memory_stats()) and "bytes_limit" in s]
    return min((s["bytes_limit"] - s["bytes_in_use"] for s in known), default=math.inf)


@contextlib.contextmanager
def enough_memory(remedy: str) -> Iterator[None]:
    """Turns what JAX says of a device without memory into BadInput: `…; <remedy>`.

    Results that are still computed when the context ends may fail later: fetch them inside.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as e:
        if not str(e).startswith("RESOURCE_EXHAUSTED"):
            raise
        reason = str(e).splitlines()[0].partition(": ")[2]
        raise BadInput(f"out of device memory ({reason}); {remedy}") from e


def check_engine(engine: str) -> None:
    """ValueError unless it is one of the two search engines."""
    if engine not in ENGINES:
        raise ValueError(f'engine must be "cpu" or "accelerator"; got {engine!r}')


def engine(choice: str) -> str:
    """The search engine that fits the devices: "cpu" (faiss, numpy) or "accelerator" (JAX).

    `choice` is one of the two, or "auto". Both engines give the same results; each is many
    times slower than the other on the wrong kind of device.
    """
    if choice == "auto":
        return "cpu" if local_devices()[0].platform == "cpu" else "accelerator"
    return choice
