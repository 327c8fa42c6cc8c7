"""The command that tells whether rows are like those of a training, on a trained encoder."""

import dataclasses

import hashers
import numpy as np
import pytest
import sets

from sigah_jax import check
from sigah_jax.encoder import drift
from sigah_jax.formats import raw
from sigah_jax.run import loading

BITS, D = 64, 24


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """An encoder of 2,000 of 5,000 rows that keeps figures of 500 others, and rows in files."""
    path = tmp_path_factory.mktemp("check")
    x = sets.low_dimensional(5000, D)
    h, new = hashers.fitted(x[:2000], BITS), x[2500:]
    np.save(path / "held_out.npy", x[2000:2500])
    reference = drift.figures(h, x[2000:2500])._asdict()
    dataclasses.replace(h, facts={"reference": reference}).save(path / "h.npz")
    h.save(path / "plain.npz")
    np.save(path / "new.npy", new)
    np.save(path / "tripled.npy", 3 * new)
    np.save(path / "shrunk.npy", new.mean(0) + (new - new.mean(0)) / 3)
    other = np.random.default_rng(3).normal(size=new.shape) * 2 * new.std(0) + new.mean(0)
    np.save(path / "other.npy", other)
    mixed = new.copy()
    mixed[::10] = other[::10]
    np.save(path / "mixed.npy", mixed)
    return path


def run(here, name, *more, workdir="h.npz"):
    return check.main([f"--workdir={here / workdir}", f"--input={here / name}", *more])


def test_other_rows_of_the_same_set_keep_the_encoder(here, capsys):
    assert run(here, "new.npy") == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0].split() == ["held", "out", "new.npy"]
    assert out.splitlines()[1].split() == ["rows", "500", "2500"]
    assert out.splitlines()[-1].startswith("keep the encoder: ")


@pytest.mark.parametrize("name", ["tripled.npy", "shrunk.npy", "other.npy", "mixed.npy"])
def test_rows_of_another_kind_ask_for_a_new_training(here, capsys, name):
    assert run(here, name) == 1
    assert capsys.readouterr().out.splitlines()[-1].startswith("train anew, and encode all rows")


def test_an_encoder_without_figures_needs_rows_to_compare_with(here, capsys):
    assert run(here, "new.npy", workdir="plain.npz") == 2
    err = capsys.readouterr().err
    assert "was saved without figures of held-out rows; give rows" in err and err.count("\n") == 1
    assert run(here, "new.npy", f"--reference={here / 'held_out.npy'}", workdir="plain.npz") == 0
    with_rows = capsys.readouterr().out
    assert run(here, "new.npy") == 0
    assert with_rows == capsys.readouterr().out
    # rows that are given come first
    assert run(here, "tripled.npy", f"--reference={here / 'tripled.npy'}") == 0


@pytest.mark.parametrize("name", ["new.npy", "new.hdf5"])
def test_many_rows_are_sampled_from_first_to_last(here, monkeypatch, name):
    x = np.load(here / "new.npy")
    if name == "new.hdf5":
        with pytest.importorskip("h5py").File(here / name, "w") as f:
            f["x"] = x
    monkeypatch.setattr(check, "MOST_ROWS", 101)
    monkeypatch.setattr(raw, "BLOCK_BYTES", 100 * x[0].nbytes)
    found = check.sample("input", str(here / name), loading.load(here / "h.npz"))
    np.testing.assert_array_equal(found, x[np.linspace(0, 2499, 101).astype(int)])


def short(here):
    np.save(here / "bad.npy", np.load(here / "new.npy")[:99])


def with_nan(here):
    x = np.load(here / "new.npy")
    x[2499, 3] = np.nan
    np.save(here / "bad.npy", x)


def narrow(here):
    np.save(here / "bad.npy", np.load(here / "new.npy")[:, :5])


@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        (short, "bad.npy: 99 rows tell too little; give 100 or more"),
        (with_nan, "bad.npy: row 2499 holds NaN or infinity"),
        (narrow, "bad.npy: d=5, this hasher was trained on d=24"),
    ],
)
def test_rows_that_tell_nothing_are_refused_in_one_line(here, monkeypatch, capsys, prepare, words):
    monkeypatch.setattr(check, "MOST_ROWS", 1000)  # the number is that of the file
    prepare(here)
    for more in ("--input", "--reference"):
        given = ["bad.npy"] if more == "--input" else ["new.npy", f"--reference={here / 'bad.npy'}"]
        assert run(here, *given) == 2
        err = capsys.readouterr().err
        assert err.startswith(f"error: {more}=") and words in err and err.count("\n") == 1
