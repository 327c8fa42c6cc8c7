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
    """An encoder of 2,000 of 5,000 rows that keeps what 500 others tell, and rows in files."""
    path = tmp_path_factory.mktemp("check")
    x = sets.low_dimensional(5000, D)
    h, new = hashers.fitted(x[:2000], BITS), x[2500:]
    np.save(path / "held_out.npy", x[2000:2500])
    reference = drift.figures(h, x[2000:2500])._asdict()
    recall = drift.recall_by_rows(h, x[2000:2500], x[:2000], h.encode(x[:2000]), "cpu")
    facts = {"reference": reference, "recall": recall}
    dataclasses.replace(h, facts=facts).save(path / "h.npz")
    dataclasses.replace(h, facts={"recall": recall}).save(path / "recall.npz")
    np.save(path / "queries.npy", new[:300])
    np.save(path / "base.npy", new[300:])
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
    assert run(here, name) == 4
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


def test_with_queries_the_advice_rests_on_what_they_find(here, capsys):
    queries = f"--queries={here / 'queries.npy'}"
    assert run(here, "base.npy", queries) == 0
    *figures, sentence = capsys.readouterr().out.splitlines()
    x, h = np.load(here / "new.npy"), loading.load(here / "h.npz")
    xq, xb = x[:300].astype(float), x[300:][np.linspace(0, 2199, 1000).astype(int)]
    # of 2,200 rows 1,000 are searched: among so many of the training's 2,000 the recall is known
    assert list(h.facts["recall"]) == ["100", "316", "1000"]
    truth = np.argsort(((xq[:, None] - xb) ** 2).sum(-1))[:, :10]
    z, z_hat = h.features(xq), h.decode(h.encode(xb))
    found = np.argsort(((z[:, None] - z_hat) ** 2).sum(-1))[:, :10]
    share = np.mean([np.isin(*pair).mean() for pair in zip(found, truth, strict=True)])
    assert sentence.startswith(
        f"keep the encoder: 300 queries find {share:.1%} of the 10 nearest of 1000 rows by their "
        f"codes, validation queries found {h.facts['recall']['1000']:.1%} among as many rows"
    )
    assert run(here, "base.npy") == 0
    assert figures == capsys.readouterr().out.splitlines()[:-1]  # the figures stay
    # without figures of held-out rows, as of inner products
    assert run(here, "base.npy", queries, workdir="recall.npz") == 0
    assert capsys.readouterr().out.splitlines() == [sentence]


def test_recall_decides_where_figures_advise_the_opposite(here, capsys):
    # rows that queries do not ask for are of another kind
    x, other = np.load(here / "new.npy"), np.load(here / "other.npy")
    np.save(here / "part.npy", np.concatenate([x[300:1300], other[:200] + 60]))
    assert run(here, "part.npy", f"--queries={here / 'queries.npy'}") == 0
    recall, figures = capsys.readouterr().out.splitlines()[-2:]
    assert recall.startswith("keep the encoder: 300 queries find")
    assert figures.startswith("by the figures above alone: train anew, and encode all rows")
    # and rows so alike that codes do not tell them apart
    center = x.mean(0)
    for name, rows in (("alike_q", x[:300]), ("alike", x[300:])):
        np.save(here / f"{name}.npy", center + (rows - center) / 10)
    assert run(here, "alike.npy", f"--queries={here / 'alike_q.npy'}") == 4
    sentence = capsys.readouterr().out.splitlines()[-1]
    assert sentence.startswith("train anew, and encode all rows by the new encoder: 300 queries")


@pytest.mark.parametrize(
    ("workdir", "rows", "words"),
    [
        ("plain.npz", slice(300), "plain.npz was saved without the recall of its validation"),
        ("h.npz", slice(99), "few.npy: 99 rows tell too little; give 100 or more"),
    ],
)
def test_queries_that_tell_nothing_are_refused(here, capsys, workdir, rows, words):
    np.save(here / "few.npy", np.load(here / "new.npy")[rows])
    assert run(here, "base.npy", f"--queries={here / 'few.npy'}", workdir=workdir) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: --queries") and words in err and err.count("\n") == 1


def test_queries_too_large_for_distances_are_named(here, capsys):
    x = np.load(here / "queries.npy")
    x[7] *= 1e30
    np.save(here / "large.npy", x)
    assert run(here, "base.npy", f"--queries={here / 'large.npy'}") == 2
    err = capsys.readouterr().err
    assert err.startswith(f"error: --queries={here / 'large.npy'}: row 7 holds values so large")


@pytest.mark.parametrize("flag", ["queries", "reference"])
def test_a_flag_without_a_file_is_refused(here, capsys, flag):
    assert run(here, "base.npy", f"--{flag}=") == 2
    assert capsys.readouterr().err == (
        f"error: --{flag}: is empty; give a value, or leave it out\n"
    )


@pytest.mark.parametrize("flag", ["--reference", "--input"])
def test_rows_that_are_all_equal_are_refused(here, flag, capsys):
    equal = here / "equal.npy"
    np.save(equal, np.repeat(np.load(here / "new.npy")[:1], 200, axis=0))
    assert run(here, "new.npy", f"{flag}={equal}") == 2
    assert f"{flag}={equal}: its rows are all equal, nothing can be" in capsys.readouterr().err
    np.save(equal, np.linspace(1e-300, 2e-300, 200)[:, None] * np.ones(D))  # equal in float32
    assert run(here, "new.npy", f"{flag}={equal}") == 2
    assert "its rows are all equal" in capsys.readouterr().err


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


def test_an_encoder_whose_validation_queries_found_nothing_is_not_judged_by_queries(here, capsys):
    h = loading.load(here / "h.npz")
    facts = h.facts | {"recall": {"100": 0.3, "316": 0.0}}
    dataclasses.replace(h, facts=facts).save(here / "nothing.npz")
    queries = f"--queries={here / 'queries.npy'}"
    assert run(here, "base.npy", queries, workdir="nothing.npz") == 2
    assert "--queries: validation queries of this encoder found none" in capsys.readouterr().err
