"""Exported encoders give the codes of the hasher, each in the runtime that it is for."""

import dataclasses
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import hashers
import jax
import numpy as np
import pytest

from sigah_jax import export
from sigah_jax.data import mnist
from sigah_jax.encoder import numpy_encoder, refining
from sigah_jax.encoder.hasher import to_bytes
from sigah_jax.errors import BadInput
from sigah_jax.run import loading

D, BITS = 20, 30
FORMATS = [".npz", ".stablehlo", ".onnx"]


def needs(suffix):
    if suffix == ".onnx":
        pytest.importorskip("onnx")
        pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return hashers.run_directory(tmp_path_factory.mktemp("runs") / "run", BITS, D)


def assert_agrees(h, run, x, sure):
    """u to 1e-5, codes equal but for bits of |u| < 1e-5; a share `sure` of rows has none."""
    of_base, of_queries, u = run(x.astype(np.float32))
    np.testing.assert_allclose(u, h.project_queries(x), atol=1e-5)
    us = hashers.projections(h, x)
    assert (of_base != of_queries).any() == h.query_head
    for packed, wanted, v in zip(
        (of_base, of_queries), (h.encode(x), h.encode_queries(x)), us, strict=True
    ):
        differ = np.unpackbits(packed ^ wanted, axis=1, count=h.bits).astype(bool)
        assert packed.dtype == np.uint8 and packed.shape == (len(x), -(-h.bits // 8))
        assert (np.abs(v[differ]) < 1e-5).all()
        assert (np.abs(v).min(1) > 1e-5).mean() >= sure


@pytest.fixture(
    scope="module",
    params=[
        (30, {}),
        (12, {"linear_path": False}),
        (65, {"hash_widths": ()}),
        (30, {"query_head": False}),
    ],
    ids=["30 bits", "no linear path", "no hidden layer", "no query head"],
)
def untrained(request):
    bits, model = request.param
    return hashers.untrained(bits, D, input_dims=16, **model)


@pytest.mark.parametrize("suffix", FORMATS)
def test_all_formats_give_the_codes_of_the_hasher(untrained, suffix):
    needs(suffix)
    write, run = export.FORMATS[suffix]
    encode = run(write(untrained))
    for n in (1, 300):  # n is free
        assert_agrees(untrained, encode, hashers.vectors(n, D, seed=n), 0.95)
    shapes = [y.shape for y in encode(np.zeros((0, D), np.float32))]
    width = -(-untrained.bits // 8)
    assert shapes == [(0, width), (0, width), (0, untrained.bits)]


@pytest.fixture(scope="module")
def images():
    x = mnist.load_images()[:1000]
    return x, hashers.untrained_for(x, 64, 1024, hash_widths=(256,))


@pytest.mark.parametrize("suffix", FORMATS)
def test_codes_of_images_are_those_of_the_hasher(images, suffix):
    needs(suffix)
    x, h = images
    write, run = export.FORMATS[suffix]
    assert_agrees(h, run(write(h)), x, 0.95)


@pytest.mark.parametrize("suffix", FORMATS)
def test_the_command_writes_a_file_and_counts_the_bits_that_differ(
    workdir, tmp_path, capsys, suffix
):
    needs(suffix)
    path = tmp_path / f"encoder{suffix}"
    assert export.main([f"--workdir={workdir}", f"--output={path}"]) == 0
    told = capsys.readouterr().out
    assert "20 columns to codes of 30 bits" in told
    assert "of 245760 bits compared differ, all where |u| < 1e-05" in told  # 2 x 4,096 x 30
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert_agrees(
        loading.load(workdir),
        export.FORMATS[suffix][1](path.read_bytes()),
        hashers.vectors(9, D),
        0,
    )


def test_stablehlo_is_for_three_platforms_and_any_number_of_rows(workdir):
    exported = jax.export.deserialize(bytearray(export.to_stablehlo(loading.load(workdir))))
    assert set(exported.platforms) == {"cpu", "cuda", "tpu"}
    assert [str(a.dtype) for a in exported.out_avals] == ["uint8", "uint8", "float32"]
    assert str(exported.in_avals[0].shape) == "(n - 1, 20)"


def test_onnx_and_npz_tell_which_encoder_they_are(workdir, tmp_path):
    onnx = pytest.importorskip("onnx")
    plain = loading.load(workdir)
    h = dataclasses.replace(plain, refinement=refining.Refinement(0.01, 5))
    export.export(h, tmp_path / "e.onnx", False)
    model = onnx.load(tmp_path / "e.onnx")  # whose codes are not refined
    about = plain.portable.describe()
    assert {p.key: json.loads(p.value) for p in model.metadata_props} == {"about": about}
    assert [i.name for i in model.graph.input] == ["vectors"]
    assert [o.name for o in model.graph.output] == list(export.OUTPUTS)
    export.export(h, tmp_path / "e.npz", False)
    told = loading.load(tmp_path / "e.npz").describe()
    assert "workdir" in h.describe() and "workdir" not in told  # which is of this machine
    assert [told[name] for name in ("encoder", "refine")] == [
        h.describe()[name] for name in ("encoder", "refine")
    ]


NUMPY_ALONE = """
import sys
sys.modules["jax"] = None  # an import of it fails
import importlib.util
import numpy as np
spec = importlib.util.spec_from_file_location("numpy_encoder", sys.argv[1])
encoder = importlib.util.module_from_spec(spec)
spec.loader.exec_module(encoder)
arrays = dict(np.load("encoder.npz"))
np.save("codes.npy", encoder.encode_queries(arrays, np.load("x.npy")))
assert not any(name.startswith("sigah_jax") for name in sys.modules)
"""


def test_the_numpy_encoder_needs_neither_jax_nor_this_package(workdir, tmp_path):
    x = hashers.vectors(300, D).astype(np.float64)
    np.save(tmp_path / "x.npy", x)
    h = loading.load(workdir)
    assert export.main([f"--workdir={workdir}", f"--output={tmp_path}/encoder.npz"]) == 0
    copy = tmp_path / "copied.py"
    copy.write_text(Path(numpy_encoder.__file__).read_text())
    command = [sys.executable, "-I", "-c", NUMPY_ALONE, str(copy)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    differ = np.unpackbits(
        np.load(tmp_path / "codes.npy") ^ h.encode_queries(x), axis=1, count=BITS
    )
    assert (np.abs(h.project_queries(x)[differ.astype(bool)]) < 1e-5).all()


def test_the_numpy_encoder_packs_the_last_axis(untrained):
    arrays = dict(np.load(io.BytesIO(to_bytes(untrained))))
    x = hashers.vectors(6, D)
    for encode in (numpy_encoder.encode, numpy_encoder.encode_queries):
        flat = encode(arrays, x)
        np.testing.assert_array_equal(encode(arrays, x.reshape(2, 3, D)), flat.reshape(2, 3, -1))
        np.testing.assert_array_equal(encode(arrays, x[4].tolist()), flat[4])


def test_an_encoder_that_disagrees_is_not_written(workdir, tmp_path, monkeypatch):
    h = loading.load(workdir)
    net = h.params["gen"]["hash"]
    moved = {"query_out": net["query_out"] | {"bias": net["query_out"]["bias"] + np.float32(1e-3)}}
    gen = h.params["gen"] | {"hash": net | moved}
    wrong = to_bytes(dataclasses.replace(h, params=h.params | {"gen": gen}))
    monkeypatch.setitem(export.FORMATS, ".npz", (lambda h: wrong, export.run_npz))
    with pytest.raises(BadInput, match=r"not written: \d+ of 245760 bits differ.*\|u\| = "):
        export.export(h, tmp_path / "e.npz", False)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("missing", ["onnx", "onnxruntime"])
def test_a_missing_library_is_named_with_its_extra(workdir, tmp_path, monkeypatch, missing, capsys):
    needs(".onnx")
    monkeypatch.setitem(sys.modules, missing, None)
    assert export.main([f"--workdir={workdir}", f"--output={tmp_path}/e.onnx"]) == 2
    err = capsys.readouterr().err
    assert f"needs {missing}; run pip install 'sigah_jax[serve]'" in err and err.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "output, more, words",
    [
        ("e.bin", [], "ends in .npz, .stablehlo, .onnx"),
        ("e.npz", [], "e.npz: exists; use --overwrite"),
        ("gone/e.npz", [], "cannot be written (No such file"),
        ("f.npz", ["--checkpoint=7"], "no such checkpoint"),
        ("f.npz", ["--workdir=nowhere"], "no such run directory or encoder"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(workdir, tmp_path, capsys, output, more, words):
    (tmp_path / "e.npz").write_bytes(b"old")
    assert export.main([f"--workdir={workdir}", f"--output={tmp_path}/{output}", *more]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and words in err and err.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["e.npz"]
    assert (tmp_path / "e.npz").read_bytes() == b"old"


def test_the_encoder_of_a_run_is_not_replaced(workdir, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    run, e = shutil.copytree(workdir, tmp_path / "run"), tmp_path / "e.npz"
    loading.load(run).save(e)
    before = (run / "encoder.npz").read_bytes(), e.read_bytes()
    (tmp_path / "link.npz").symlink_to(run / "encoder.npz")
    for name, output in (("run", "run/encoder.npz"), ("run", "link.npz"), ("e.npz", "e.npz")):
        flags = [f"--workdir=~/{name}", f"--output={tmp_path / output}", "--overwrite"]
        assert export.main(flags) == 2
        assert "is the encoder of --workdir; use another name" in capsys.readouterr().err
    assert before == ((run / "encoder.npz").read_bytes(), e.read_bytes())
    (run / "encoder.npz").unlink()  # a training that finds one does not finish
    flags = [f"--workdir={run}", "--checkpoint=best", f"--output={run}/encoder.npz"]
    assert export.main(flags) == 2 and not (run / "encoder.npz").exists()


def test_the_home_directory_may_be_written_as_a_tilde(workdir, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert export.main([f"--workdir={workdir}", "--output=~/e.npz"]) == 0
    assert [p.name for p in tmp_path.iterdir()] == ["e.npz"]


def test_an_output_is_replaced_when_asked(workdir, tmp_path):
    (tmp_path / "e.npz").write_bytes(b"old")
    path = tmp_path / "e.npz"
    assert export.main([f"--workdir={workdir}", f"--output={path}", "--overwrite"]) == 0
    assert np.load(path)["gen/hash/linear/kernel"].shape == (D, BITS)
