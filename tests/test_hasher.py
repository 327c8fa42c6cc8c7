"""The trained encoder as a library: codes, projections, synthetic features, what it tells."""

import dataclasses
import json
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import hashers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse

from sigah_jax.encoder import archive
from sigah_jax.encoder.calibration import Pairs
from sigah_jax.errors import BadInput
from sigah_jax.files import whole
from sigah_jax.model import sparse
from sigah_jax.run import loading

D, BITS = 20, 30
vectors = hashers.vectors


@pytest.fixture(scope="module")
def h():
    return hashers.untrained(BITS, D)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return hashers.run_directory(tmp_path_factory.mktemp("runs") / "run", BITS, D)


def reference(h, x, queries=False):
    """u in float64, of base rows or of queries."""
    s, net = jax.tree.map(
        lambda a: np.asarray(a, np.float64), (h.params["standardiser"], h.params["gen"]["hash"])
    )
    z = (x.astype(np.float64) - s["mean"]) @ s["projection"]
    top = z * np.sqrt(z.shape[1])
    for name in ("hidden0", "hidden1"):
        top = np.maximum(top @ net[name]["kernel"] + net[name]["bias"], 0)
    u = z @ net["linear"]["kernel"] if "linear" in net else 0
    for head in ("out", "query_out") if queries else ("out",):
        u = u + top @ net[head]["kernel"] + net[head]["bias"]
    return u


@pytest.mark.parametrize("linear_path", [True, False])
def test_projections_and_codes_are_those_of_numpy(linear_path):
    # input_dims 12: directions are dropped; 30 bits: the last 2 of 4 bytes are zeros
    h = hashers.untrained(BITS, D, input_dims=12, linear_path=linear_path)
    x = vectors(500, D, seed=3)
    u, packed = h.project_queries(x), h.encode_queries(x)
    np.testing.assert_allclose(u, reference(h, x, queries=True), atol=1e-5)
    assert u.dtype == np.float32 and packed.dtype == np.uint8 and packed.shape == (500, 4)
    np.testing.assert_array_equal(packed, np.packbits(u > 0, axis=1))
    assert not (packed[:, 3] & 0b11).any() and 0.2 < np.mean(u > 0) < 0.8
    base, wanted = np.unpackbits(h.encode(x), axis=1, count=BITS), reference(h, x)
    assert ((base == (wanted > 0)) | (np.abs(wanted) < 1e-5)).all()
    assert (h.encode(x) != packed).any(1).mean() > 0.9  # two hash functions


def test_without_a_query_head_queries_have_the_codes_of_base_rows():
    h, x = hashers.untrained(BITS, D, query_head=False), vectors(300, D)
    np.testing.assert_array_equal(h.encode(x), h.encode_queries(x))
    np.testing.assert_array_equal(h.encode(x), np.packbits(h.project_queries(x) > 0, axis=1))
    assert not h.describe()["query_head"]


@pytest.mark.parametrize("block_rows", [3, 4096])
def test_codes_do_not_depend_on_the_number_of_rows_or_the_size_of_blocks(h, block_rows):
    # 16 rows a device and 8 devices: blocks of 128
    x = vectors(300, D)
    other = hashers.untrained(BITS, D, block_rows=block_rows)
    u_base, u_query = hashers.projections(h, x)
    for u, at_once, encode in (
        (u_base, h.encode(x), other.encode),
        (u_query, h.encode_queries(x), other.encode_queries),
    ):
        sure = np.abs(u).min(1) > 1e-5
        assert sure.mean() > 0.9
        for n in (1, 127, 128, 129, 300):
            assert (encode(x[:n]) == at_once[:n])[sure[:n]].all()
    assert other.encode(x[:0]).shape == (0, 4) and other.project_queries(x[:0]).shape == (0, BITS)


def test_half_floats_integers_lists_and_jax_arrays_are_what_they_are_as_float32(h):
    x = np.round(vectors(300, D))
    whole = h.encode(x)
    for dtype in (np.float16, np.float64, np.int8, np.uint8, np.int16, np.int64, ">f4", ">i2"):
        values = np.abs(x) if dtype == np.uint8 else x
        wanted = h.encode(values)
        np.testing.assert_array_equal(h.encode(values.astype(dtype)), wanted, str(dtype))
    for values in (jnp.asarray(x), jnp.asarray(x, jnp.bfloat16), x.tolist()):
        np.testing.assert_array_equal(h.encode(values), whole)
    np.testing.assert_array_equal(h.project_queries(jnp.asarray(x)), h.project_queries(x))


def test_memory_maps_go_in_and_out(h, tmp_path):
    x = vectors(300, D)
    np.save(tmp_path / "x.npy", x)
    out = np.lib.format.open_memmap(tmp_path / "codes.npy", "w+", np.uint8, (300, 4))
    got = h.encode(np.load(tmp_path / "x.npy", mmap_mode="r"), out)
    assert got is out
    out.flush()
    np.testing.assert_array_equal(np.load(tmp_path / "codes.npy"), h.encode(x))


@pytest.mark.parametrize("out", [np.zeros((300, 5), np.uint8), np.zeros((300, 4), np.int8)])
def test_an_out_that_does_not_fit_is_refused(h, out):
    with pytest.raises(BadInput, match=r"300 codes of 30 bits are uint8 \[300, 4\]"):
        h.encode(vectors(300, D), out)


def test_an_out_that_is_no_array_is_refused(h):
    with pytest.raises(BadInput, match=r"out is a list: expected an array, uint8 \[300, 4\]"):
        h.encode(vectors(300, D), [])
    with pytest.raises(BadInput, match="out: is read-only"):
        h.encode(vectors(300, D), np.broadcast_to(np.uint8(0), (300, 4)))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("linear_path", [True, False])
def test_the_first_row_that_is_not_finite_is_named(value, linear_path):
    h = hashers.untrained(BITS, D, linear_path=linear_path)
    x = vectors(300, D)
    x[[211, 250], 5] = value
    for encode in (h.encode, h.encode_queries, h.project_queries, h.features):
        with pytest.raises(BadInput, match="row 211 holds NaN or infinity"):
            encode(x)


def test_a_row_too_large_for_float32_is_named(h):
    x = vectors(300, D).astype(np.float64)
    x[7] = 1e39
    with pytest.raises(BadInput, match="row 7 holds values so large"):
        h.encode(x)
    s = h.params["standardiser"]  # of data whose lengths are about 1e-3
    steep = h.params | {"standardiser": s | {"projection": 1e3 * s["projection"]}}
    x[7] = 1e38
    with pytest.raises(BadInput, match="row 7 holds values so large"):
        dataclasses.replace(h, params=steep).project_queries(x.astype(np.float32))


def test_blocks_give_bad_rows_codes_of_zeros(h):
    x = vectors(300, D)
    wanted = h.encode(x)
    bad = [0, 129, 299]
    x[bad, 3] = np.nan
    wanted[bad] = 0
    got = list(h.encode_blocks(lambda i, j: x[i:j], 0, 300))
    assert [start for start, _, _ in got] == [0, 128, 256]
    np.testing.assert_array_equal(np.concatenate([c for _, c, _ in got]), wanted)
    np.testing.assert_array_equal(np.flatnonzero(~np.concatenate([g for *_, g in got])), bad)


class OnDevice:
    """A tensor that numpy cannot read, as one of torch on a GPU."""

    def __array__(self, *_, **__):
        raise TypeError("can't convert cuda:0 device type tensor to numpy.\nUse Tensor.cpu()")


MASKED = np.ma.masked_equal(np.arange(60.0).reshape(3, 20), 7)


@pytest.mark.parametrize(
    "x, words",
    [
        (MASKED, "^vectors: 1 values are masked; fill or drop their rows"),
        (scipy.sparse.csr_matrix(np.eye(20)), r"a sparse matrix \(csr_matrix\); give its .toarray"),
        (scipy.sparse.coo_array(np.eye(20)), r"a sparse matrix \(coo_array\); give its .toarray"),
        (OnDevice(), r"can't convert cuda:0 .*to numpy. Use Tensor.cpu\(\)\); give a numpy array"),
        ([[1.0, 2.0], [3.0]], "vectors: no array of numbers .*inhomogeneous"),
        (np.full((3, 20), None), "vectors of object: expected integers or floats"),
        (np.zeros((3, 19)), r"trained on \[n, 20\]"),
        (np.zeros(20), r"trained on \[n, 20\]"),
        (np.zeros((3, 20), complex), "expected integers or floats"),
        (np.full((3, 20), "1"), "expected integers or floats"),
        (np.zeros((3, 20), bool), "expected integers or floats"),
    ],
)
def test_what_holds_no_vectors_is_refused(h, x, words):
    for encode in (h.encode, h.encode_queries, h.project_queries, h.features):
        with pytest.raises(BadInput, match=words):
            encode(x)


def test_whatever_numpy_reads_as_an_array_is_encoded(h):
    x = vectors(30, D)
    frame = pytest.importorskip("pandas").DataFrame(x)
    for same in (frame, np.ma.array(x), x.tolist()):
        np.testing.assert_array_equal(h.encode(same), h.encode(x))


def test_masked_codes_are_refused(h):
    with pytest.raises(BadInput, match="codes: 4 values are masked"):
        h.decode(np.ma.masked_equal(np.zeros((1, 4), np.uint8), 0))


def test_synthetic_features_are_those_of_the_decoder_in_input_units(h):
    packed = np.random.default_rng(0).integers(0, 256, (150, 4), np.uint8)
    s, net = jax.tree.map(np.asarray, (h.params["standardiser"], h.params["gen"]["decoder"]))
    b = np.where(np.unpackbits(packed, axis=1, count=BITS), 1, -1).astype(np.float32)
    s_ = sparse.ista(b, net["sensing"], np.abs(net["lam"]), h.nets.decoder.steps)
    z = s_ @ net["dictionary"] + net["offset"]
    # all 20 directions are kept, so that the projection is a rotation over s
    wanted = s["mean"] + np.asarray(z) @ np.linalg.inv(s["projection"])
    got = h.synthesise(packed)
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4)
    assert got.dtype == np.float32 and h.synthesise(packed[:0]).shape == (0, D)
    np.testing.assert_array_equal(h.synthesise(jnp.asarray(packed)), got)


def test_distances_to_decoded_codes_are_those_to_synthetic_features_over_the_scale(h):
    # all 20 directions are kept: nothing of x is outside of them
    packed = np.random.default_rng(1).integers(0, 256, (30, 4), np.uint8)
    x = vectors(30, D)
    squared_scale = 1 / (np.asarray(h.params["standardiser"]["projection"])[:, 0] ** 2).sum()
    wanted = ((x - h.synthesise(packed)) ** 2).sum(1)
    got = squared_scale * ((h.features(x) - h.decode(packed)) ** 2).sum(1)
    np.testing.assert_allclose(got, wanted, rtol=1e-4)
    assert h.features(x).dtype == h.decode(packed).dtype == np.float32


@pytest.mark.parametrize("shape, dtype", [((9, 3), np.uint8), ((9, 4), np.int8), ((4,), np.uint8)])
def test_codes_that_do_not_fit_are_refused(h, shape, dtype):
    with pytest.raises(BadInput, match=r"codes of 30 bits are uint8 \[n, 4\]"):
        h.synthesise(np.zeros(shape, dtype))
    with pytest.raises(BadInput, match=r"codes of 30 bits are uint8 \[n, 4\]"):
        h.decode(np.zeros(shape, dtype))


def test_a_list_of_codes_is_taken_or_told_to_be_of_another_type(h):
    packed = np.random.default_rng(0).integers(0, 256, (9, 4), np.uint8)
    np.testing.assert_array_equal(h.decode(list(packed)), h.decode(packed))
    with pytest.raises(BadInput, match="codes are int64"):
        h.decode(packed.tolist())


def test_a_pickle_and_a_file_hold_the_arrays(h, tmp_path):
    x = vectors(30, D)
    h.encode(x)  # has put its parameters on devices
    pairs = Pairs(*np.random.default_rng(0).normal(size=(3, 4, 4)).astype(np.float32))
    h = dataclasses.replace(h, pairs=pairs)
    h.save(tmp_path / "encoder.npz")
    for again in (pickle.loads(pickle.dumps(h)), loading.load(tmp_path / "encoder.npz")):
        np.testing.assert_array_equal(again.encode(x), h.encode(x))
        np.testing.assert_array_equal(again.project_queries(x), h.project_queries(x))
        np.testing.assert_array_equal(again.decode(h.encode(x)), h.decode(h.encode(x)))
        assert again.describe() == h.describe() and again.block_rows == h.block_rows
        assert all(type(a) is np.ndarray for a in jax.tree.leaves(again.params))
        np.testing.assert_array_equal(again.pairs, pairs)


def test_a_hasher_is_one_thing_and_cannot_be_changed(h):
    assert jax.tree.leaves(h) == [h]
    with pytest.raises(AttributeError):
        h.params = {}


def test_a_file_of_an_encoder_that_is_damaged_or_something_else_is_named(h, tmp_path):
    path = tmp_path / "encoder.npz"
    h.save(path)
    held = path.read_bytes()
    rng = np.random.default_rng(0)
    wanted, found = h.describe(), 0
    for at in [*rng.integers(0, len(held), 60), 0, len(held) - 1]:
        flipped = bytearray(held)
        flipped[at] ^= 4
        path.write_bytes(flipped)
        try:
            assert loading.load(path).describe() == wanted  # a date, or another unused field
        except BadInput as e:
            assert f"{path}: damaged, or not an encoder" in str(e) and "\n" not in str(e)
            found += 1
    assert found > 50
    # numpy reads as many values as a header asks for, here fewer, and compares no checksum then
    for name, shape, fewer in (("about", b"()", b"( "), ("standardiser/mean", b"(20,)", b"(10,)")):
        start = held.index(f"{name}.npy".encode()) + len(name)
        at = held.index(shape, start)
        path.write_bytes(held[:at] + fewer + held[at + len(shape) :])
        with pytest.raises(BadInput, match=f"not an encoder .*{name}.npy does not fit its checks"):
            loading.load(path)
    np.savez(path, x=np.zeros(3))
    with pytest.raises(BadInput, match="it holds no array `about`"):
        loading.load(path)
    # another method of compression, which zipfile does not know, in the list of its members
    unknown = bytearray(held)
    unknown[held.index(b"PK\1\2") + 10] = 99
    for damaged in (path.read_bytes(), held[:-9], b"", b"PK", bytes(unknown)):
        path.write_bytes(damaged)
        with pytest.raises(BadInput, match="damaged, or not an encoder"):
            loading.load(path)
    with pytest.raises(BadInput, match=r"an encoder is an .npz file"):
        h.save(tmp_path / "encoder")
    for directory in (tmp_path / "no", "~nobody_of_that_name"):
        with pytest.raises(BadInput, match="cannot be written"):
            h.save(Path(directory) / "encoder.npz")
        with pytest.raises(BadInput, match="no such run directory or encoder"):
            loading.load(directory)


WITHOUT = """
import sys
for name in ("optax", "orbax"):
    sys.modules[name] = None  # importing it fails
import numpy as np, sigah_jax
h, x = sigah_jax.load(sys.argv[1]), np.load(sys.argv[2])
d, ids = sigah_jax.search(h, x[:20], h.encode(x), 3, rerank=x, oversample=100)
np.savez(sys.argv[3], codes=h.encode(x), queries=h.encode_queries(x), d=d, ids=ids)
assert not any(name.startswith("sigah_jax.training") for name in sys.modules)
"""


def test_an_encoder_is_used_where_there_is_neither_optimiser_nor_checkpoint_library(h, tmp_path):
    x = vectors(300, D)
    np.save(tmp_path / "x.npy", x)
    h.save(tmp_path / "encoder.npz")
    files = [str(tmp_path / name) for name in ("encoder.npz", "x.npy", "out.npz")]
    subprocess.run([sys.executable, "-c", WITHOUT, *files], check=True)
    with np.load(files[2]) as got:
        np.testing.assert_array_equal(got["codes"], h.encode(x))
        np.testing.assert_array_equal(got["queries"], h.encode_queries(x))
        np.testing.assert_array_equal(got["ids"][:, 0], np.arange(20))  # each its own nearest


def test_a_loaded_hasher_encodes_as_before_and_tells_of_itself(h, workdir):
    loaded = loading.load(workdir)
    x = vectors(300, D)
    np.testing.assert_array_equal(loaded.encode(x), h.encode(x))
    told = loaded.describe()
    assert json.loads(json.dumps(told)) == told
    assert told.pop("encoder") == h.describe()["encoder"]
    assert told.pop("config_hash") == json.loads((workdir / "config.json").read_text())["hash"]
    assert told == {
        "bits": 30,
        "metric": "l2",
        "query_head": True,
        "code_bytes": 4,
        "d": 20,
        "workdir": str(workdir),
        "data": "rows.npy",
        "preset": "best",
        "step": 20,
        "validation": {"map": 0.5, "recall@10": 0.25},
        "refitted": False,
        "refine": {"mu": 0.0, "iterations": 16},
        "query_scale": 1.0,
    }


@pytest.mark.parametrize("scale", [None, 0.0, -1.0, float("nan"), float("inf"), "1"])
def test_a_file_with_an_impossible_scale_of_queries_is_damaged(h, tmp_path, scale):
    dataclasses.replace(h, query_scale=scale).save(tmp_path / "e.npz")
    with pytest.raises(BadInput, match="damaged, or not an encoder"):
        loading.load(tmp_path / "e.npz")


def test_encoders_of_earlier_versions_do_not_scale_queries(h, tmp_path, monkeypatch):
    pack = archive.pack

    def without(params, about, pairs):
        return pack(params, {k: v for k, v in about.items() if k != "query_scale"}, pairs)

    monkeypatch.setattr(archive, "pack", without)
    dataclasses.replace(h, query_scale=1.5).save(tmp_path / "e.npz")
    assert loading.load(tmp_path / "e.npz").query_scale == 1


def test_of_a_run_of_another_version_a_checkpoint_loads(h, workdir, tmp_path):
    shutil.copytree(workdir, tmp_path / "run")
    path = tmp_path / "run" / "config.json"
    held = whole.read_json(path, "")
    del held["config"]["refine"]
    whole.write_json(path, held)
    (tmp_path / "run" / "encoder.npz").unlink()
    x = vectors(20, D)
    for checkpoint in (20, "best"):
        found = loading.load(tmp_path / "run", checkpoint)
        np.testing.assert_array_equal(found.encode(x), h.encode(x))


def test_of_an_unfinished_run_a_checkpoint_must_be_asked_for(h, workdir, tmp_path):
    run = shutil.copytree(workdir, tmp_path / "run")
    (run / "encoder.npz").unlink()
    with pytest.raises(BadInput, match=r"run: its training has not finished.*--checkpoint=best"):
        loading.load(run)
    x = vectors(20, D)
    for checkpoint in ("best", "latest", 20):
        np.testing.assert_array_equal(loading.load(run, checkpoint).encode(x), h.encode(x))


def test_it_loads_where_doubles_are_the_default(h, workdir):
    x = vectors(20, D)
    wanted = loading.load(workdir).encode(x)
    with jax.enable_x64(True):
        np.testing.assert_array_equal(loading.load(workdir).encode(x), wanted)


def test_it_shows_itself_in_a_line(h):
    assert repr(h) == f"Hasher({D} columns to codes of {BITS} bits)"


def test_other_parameters_are_another_encoder(h):
    other = hashers.untrained(BITS, D, seed=1)
    assert other.describe()["encoder"] != h.describe()["encoder"]


def damage(workdir, how):
    path = workdir / "config.json"
    held = whole.read_json(path, "")
    if how == "no json":
        path.write_text("{")
    elif how == "foreign json":
        path.write_text("[1]")
    elif how == "older":
        del held["config"]["model"]["ista_steps"]
        whole.write_json(path, held)
    elif how == "other bits":
        held["config"]["model"]["bits"] = 31
        whole.write_json(path, held)
    elif how == "flipped":
        path.write_text(path.read_text().replace('"bits": 30', '"bits": 20'))
    elif how == "no checkpoint":
        shutil.rmtree(workdir / "checkpoints")
    elif how == "encoder":
        (workdir / "encoder.npz").write_bytes(b"PK")
    elif how == "empty arrays":
        for file in (workdir / "checkpoints" / "20" / "state").rglob("*"):
            if file.is_file():
                file.write_bytes(b"")


@pytest.mark.parametrize(
    "how, words",
    [
        ("no json", "config.json: damaged"),
        ("foreign json", "config.json: damaged"),
        ("flipped", "config.json: damaged"),
        ("older", "does not fit the config of its run.*ista_steps"),
        ("other bits", r"does not fit the config of its run \(gen.*; train it anew"),
        ("no checkpoint", "no checkpoint yet; train first"),
        ("empty arrays", "checkpoints/20: damaged"),
        ("encoder", "encoder.npz: damaged.*; remove it, then the training's command writes it"),
    ],
)
def test_a_damaged_run_directory_is_named(workdir, tmp_path, how, words):
    copy = shutil.copytree(workdir, tmp_path / "copy")
    (copy / "encoder.npz").unlink()  # else nothing but it is read
    damage(copy, how)
    before = sorted(copy.rglob("*"))
    with pytest.raises(BadInput, match=words) as e:
        loading.load(copy, "best")
    assert str(copy) in str(e.value) and "\n" not in str(e.value)
    assert sorted(copy.rglob("*")) == before


def test_a_directory_of_something_else_and_a_missing_checkpoint_are_named(workdir, tmp_path):
    with pytest.raises(BadInput, match="it is not a run's; train first"):
        loading.load(tmp_path)
    with pytest.raises(BadInput, match="nowhere: no such run directory or encoder"):
        loading.load(tmp_path / "nowhere")
    assert not list(tmp_path.iterdir())
    assert loading.load(workdir, 20).describe()["step"] == 20
    with pytest.raises(BadInput, match="no such checkpoint; there are"):
        loading.load(workdir, "21")
    with pytest.raises(BadInput, match="expected best, latest or a step"):
        loading.load(workdir, "last")


def test_what_is_compiled_is_shared_by_all_hashers_of_equal_networks(workdir):
    x = vectors(100, D)

    def use():
        h = loading.load(workdir)
        h.encode(x), h.encode_queries(x), h.project_queries(x), h.decode(h.encode(x))

    use()
    before = hashers.memory_maps()
    for _ in range(5):
        use()
    # each of them kept 60 of its own, so that a service that reloads came to its end
    assert hashers.memory_maps() < before + 20


AS_NOBODY = """
import os, sys
from pathlib import Path
from sigah_jax.run import checkpoints, loading
if os.geteuid() == 0:  # root may read every file
    os.setuid(65534)
workdir = Path(sys.argv[1])
for name in sys.argv[2:]:
    mode = (workdir / name).stat().st_mode
    (workdir / name).chmod(0)
    try:
        loading.load(workdir, "best")
    except ValueError as e:
        print(e)
    (workdir / name).chmod(mode)
"""


def test_a_part_of_a_run_that_may_not_be_read_is_named_and_not_called_damaged(workdir):
    names = ["config.json", "checkpoints", "checkpoints/20", "checkpoints/20/seal.json"]
    names += ["checkpoints/20/state/_METADATA"]
    with tempfile.TemporaryDirectory() as directory:  # that of pytest is closed to others
        copy = Path(shutil.copytree(workdir, Path(directory) / "run"))
        (copy / "encoder.npz").unlink()  # else nothing but it is read
        for path in (Path(directory), copy, *copy.rglob("*")):
            if os.geteuid() == 0:
                os.chown(path, 65534, 65534)
        command = [sys.executable, "-c", AS_NOBODY, str(copy), *names]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = done.stdout.splitlines()
    assert len(said) == len(names), done
    for line, name in zip(said, names, strict=True):
        assert f"{copy / name}" in line and "cannot be read (Permission denied); check" in line
