"""Placement and mapping on 1, 2, 4 and 8 simulated devices."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from sigah_jax.devices import parallel
from sigah_jax.errors import BadInput

pytestmark = pytest.mark.accelerator  # on whatever devices JAX finds

DEVICES = [1, 2, 4, 8]


@pytest.mark.parametrize("devices", DEVICES)
@pytest.mark.parametrize("rows", [1, 5, 8, 57, 777])
def test_rows_are_mapped_in_order_and_to_the_bit(devices, rows):
    rng = np.random.default_rng(0)
    w, x = (rng.normal(size=shape).astype(np.float32) for shape in ((13, 7), (rows, 13)))

    def fn(w, x):
        # a GPU's or TPU's default product keeps 8 to 11 bits of a factor
        return jnp.tanh(jnp.matmul(x, w, precision="highest"))

    # blocks of 64 rows a device, or of the next power of two; the last one is padded
    got = parallel.map_rows(fn, 64, jax.devices()[:devices])(w, x)
    want = parallel.map_rows(fn, 64, jax.devices()[:1])(w, x)
    np.testing.assert_array_equal(got, want)
    np.testing.assert_allclose(got, np.tanh(x @ w), atol=1e-5)


@pytest.mark.parametrize("devices", DEVICES)
def test_the_slices_of_a_split_are_the_devices_own_and_in_order(devices):
    devs = jax.devices()[:devices]
    x = np.arange(3 * 16 * 2).reshape(3, 16, 2)
    slices = parallel.split({"x": x}, axis=1, devices=devs)["x"]
    assert slices.shape == (devices, 3, 16 // devices, 2)
    np.testing.assert_array_equal(np.concatenate(list(slices), 1), x)

    def place(x):
        return lax.all_gather(x, parallel.AXIS, axis=1, tiled=True), lax.axis_index(parallel.AXIS)

    gathered, index = parallel.pmap(place, (0,), (None, 0), devices=devs)(slices)
    np.testing.assert_array_equal(parallel.fetch(gathered), x)
    np.testing.assert_array_equal(index, np.arange(devices))


@pytest.mark.parametrize("devices", DEVICES)
def test_a_replica_is_whole_on_every_device_and_outlives_its_source(devices):
    devs = jax.devices()[:devices]
    source = np.arange(6, dtype=np.float32).reshape(2, 3)
    tree = parallel.replicate({"w": source}, devs)
    again = parallel.replicate(tree, devs)
    add = parallel.pmap(
        lambda t, x: {"w": t["w"] + lax.pmean(x, parallel.AXIS)}, (None, 0), None, (0,), devs
    )
    got = add(tree, np.ones((devices, 1), np.float32))
    np.testing.assert_array_equal(parallel.fetch(got)["w"], source + 1)
    source[:] = 0
    assert len(again["w"].addressable_shards) == devices
    for shard in again["w"].addressable_shards:
        np.testing.assert_array_equal(shard.data, np.arange(6).reshape(2, 3))


@pytest.mark.parametrize("devices", DEVICES)
@pytest.mark.parametrize("rows", [1, 5, 24])
def test_slices_have_their_rows_in_order_and_tell_how_many_are_real(devices, rows):
    # Weighted by their numbers, so that a row in another place or a filling row shows; the filling
    # of zeros is made visible by adding one.
    x = np.random.default_rng(0).normal(size=(rows, 3)).astype(np.float32)

    def fn(shift, x, first, valid):
        real = jnp.arange(len(x)) < valid
        terms = (first + jnp.arange(len(x)))[:, None] * (x + 1 + shift)
        return {"sum": lax.psum(jnp.sum(jnp.where(real[:, None], terms, 0), 0), parallel.AXIS)}

    per_device = -(-24 // devices)
    got = parallel.over_slices(fn, per_device, jax.devices()[:devices])(x)(np.float32(2))["sum"]
    assert isinstance(got, np.ndarray)
    np.testing.assert_allclose(got, np.arange(rows) @ (x + 3), rtol=1e-5)


def test_rows_are_filled_up_with_zeros():
    x = np.arange(4, dtype=np.int16).reshape(2, 2)
    got = parallel.filled(x, 3)
    np.testing.assert_array_equal(got, [[0, 1], [2, 3], [0, 0]])
    assert got.dtype == np.int16


def test_one_process_has_all_devices_and_its_arrays_need_no_others():
    assert parallel.all_devices() == parallel.local_devices() == jax.devices()
    tree = {"w": np.ones(3)}
    assert parallel.across_processes(tree) is tree


NO_DRIVER = RuntimeError(
    "Unable to initialize backend 'cuda': INTERNAL: CUDA driver version is insufficient\nmore"
)


@pytest.mark.parametrize("error", [AssertionError(), NO_DRIVER])
def test_devices_that_are_missing_are_a_line_with_the_variable(monkeypatch, error):
    def fail():
        raise error

    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    monkeypatch.setattr(jax, "devices", fail)
    monkeypatch.setattr(jax, "local_devices", fail)
    asked = (parallel.all_devices, parallel.local_devices, lambda: parallel.engine("auto"))
    for ask in asked:
        with pytest.raises(BadInput, match="JAX_PLATFORMS=cuda: JAX finds no such device"):
            ask()
    monkeypatch.delenv("JAX_PLATFORMS")
    monkeypatch.delenv("JAX_NUM_CPU_DEVICES", raising=False)
    reason = r" \(.+ driver version is insufficient\)" if str(error) else ""
    for ask in asked:
        with pytest.raises(BadInput, match=f"devices of this machine{reason}; check their driver"):
            ask()


def test_free_memory_is_that_of_the_fullest_device_of_this_process():
    class Device:
        def __init__(self, process_index, stats):
            self.process_index, self.memory_stats = process_index, lambda: stats

    others = Device(1, {"bytes_limit": 9, "bytes_in_use": 8})
    cpu, unknown = Device(0, None), Device(0, {"bytes_in_use": 5})
    full, empty = (Device(0, {"bytes_limit": 90, "bytes_in_use": used}) for used in (60, 10))
    assert parallel.free_memory([others, cpu, empty, full, unknown]) == 30
    assert parallel.free_memory([others, cpu, unknown]) == math.inf
    assert parallel.free_memory() == math.inf or jax.devices()[0].platform != "cpu"


def out_of_memory(*_):
    raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.\nmore")


def test_a_device_that_is_full_is_a_line_with_what_to_do():
    x = np.zeros((5, 3), np.float32)
    with pytest.raises(BadInput, match=r"9 bytes\.\); free .+ or lower config\.eval\.block_rows$"):
        parallel.map_rows(out_of_memory, 4)(None, x)
    search = parallel.over_slices(out_of_memory, 5)(x)
    with pytest.raises(BadInput, match=r"9 bytes\.\); free .+ or search by the engine cpu$"):
        search(x)
