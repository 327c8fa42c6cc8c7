import json
import shutil

import numpy as np
import pytest

from sigah_jax import measure
from sigah_jax.report import measured
from sigah_jax.report.measured import Found, Row
from sigah_jax.retrieval import neighbours

ROWS, COLUMNS = 3000, 12


@pytest.fixture(scope="module")
def vectors(tmp_path_factory):
    generator = np.random.default_rng(0)
    x = generator.normal(size=(ROWS, 4)) @ generator.normal(size=(4, COLUMNS))
    path = tmp_path_factory.mktemp("vectors") / "mine.npy"
    np.save(path, x.astype(np.float32))
    return path


@pytest.fixture(scope="module")
def workdir(vectors, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("measure") / "run"
    argv = [f"--input={vectors}", "--bits=8", "--steps=20", "--k=5", f"--workdir={workdir}"]
    assert measure.main(argv) == 0
    return workdir


def test_all_methods_are_measured_at_their_lengths(workdir):
    rows = json.loads((workdir / "measure.json").read_text())["rows"]
    assert [(r["method"], r["bits"]) for r in rows] == [
        ("exact", 0),
        ("sigah", 8),
        ("itq", 8),
        ("lsh", 8),
        ("sign", 12),
    ]
    assert [r["code_bytes"] for r in rows] == [4 * COLUMNS, 1, 1, 1, 2]


def test_vectors_know_more_than_codes(workdir):
    rows = json.loads((workdir / "measure.json").read_text())["rows"]
    for row in rows[1:]:
        found = {way: value["recall"] for way, value in row["found"].items()}
        assert 0 < found["hamming"] < found["reranked"] <= 1
        assert ("synthetic" in found) == (row["method"] == "sigah")
    # a random choice of 5 in 2,000 finds .0025
    assert all(row["found"]["projection"]["recall"] > 0.02 for row in rows[1:])


def test_the_same_command_does_not_train_again(vectors, workdir, tmp_path, capsys):
    before = (workdir / "bits8" / "metrics.jsonl").read_text()  # has times, never the same twice
    copy = shutil.copytree(workdir, tmp_path / "run")
    argv = [f"--input={vectors}", "--bits=8", "--steps=20", "--k=5", f"--workdir={copy}"]
    assert measure.main([*argv, "--oversample=400"]) == 0
    assert (copy / "bits8" / "metrics.jsonl").read_text() == before
    assert "steps" not in capsys.readouterr().out
    # 400 · 5 candidates are all rows: nothing is lost
    rows = json.loads((copy / "measure.json").read_text())["rows"]
    assert [row["found"]["reranked"]["recall"] for row in rows] == [1.0] * len(rows)
    assert "the 2,000 nearest" in (copy / "measure.md").read_text()
    assert rows[1]["fit_secs"] is None  # nothing was trained


def test_other_vectors_do_not_mix_with_those_of_the_directory(vectors, workdir, tmp_path, capsys):
    copy = shutil.copytree(workdir, tmp_path / "run")
    before = (copy / "measure.md").read_text()
    np.save(tmp_path / "other.npy", np.load(vectors))
    for input_, queries in ((tmp_path / "other.npy", ""), (vectors, str(vectors))):
        argv = [f"--input={input_}", f"--queries={queries}", "--bits=16", f"--workdir={copy}"]
        assert measure.main(argv) == 2
        assert f"--workdir={copy}: bits8 there is of --" in capsys.readouterr().err
    assert (copy / "measure.md").read_text() == before
    assert sorted(p.name for p in copy.glob("bits*")) == sorted(
        p.name for p in workdir.glob("bits*")
    )


def test_itq_has_no_more_bits_than_columns():
    assert measure.baselines(12, 12) == ("itq", "lsh")
    assert measure.baselines(13, 12) == ("lsh",)


def test_recall_by_hand():
    # the first query found 1 and 2 of 0, 1, 2; the second all: (2 + 3) / 6
    xb = np.float32([[1], [2], [3], [4], [5], [6]])
    xq, ids, truth = (
        np.float32([[0], [7]]),
        np.array([[1, 2, 3], [3, 4, 5]]),
        [[0, 1, 2], [5, 4, 3]],
    )
    assert measure.recall(xq, xb, ids, np.array(truth)) == pytest.approx(5 / 6)


def test_of_rows_at_equal_distance_each_is_a_hit():
    # rows 1 to 3 are equally far from 0, and so the two nearest are row 0 and any one of them
    xq, xb = np.zeros((1, 2), np.float32), np.float32([[0, 1], [2, 0], [0, 2], [-2, 0], [9, 9]])
    found = [
        measure.recall(xq, xb, np.array([ids]), np.array([[0, 1]])) for ids in ([0, 3], [4, 0])
    ]
    assert found == [1.0, 0.5]


def test_recall_does_not_depend_on_the_order_of_the_base():
    # counts: most distances are shared by many rows
    rng = np.random.default_rng(0)
    xb, xq = (rng.poisson(1, (n, 6)).astype(np.float32) for n in (400, 30))
    found = np.stack([rng.choice(400, 10, replace=False) for _ in xq])
    order = rng.permutation(400)
    place = np.argsort(order)  # row i of the base is row place[i] of the shuffled one
    truths = [neighbours.nearest_sets(xq, x, (10,), "cpu") for x in (xb, xb[order])]
    want = measure.recall(xq, xb, found, truths[0])
    assert want == measure.recall(xq, xb[order], place[found], truths[1]) > 0


def row(method, bits, hamming, reranked):
    found = {"hamming": Found(hamming, 0.1), "reranked": Found(reranked, 0.2)}
    return Row(method, bits, bits // 8, 1.0, 1000.0, found)


EXACT = Row("exact", 0, 384, 0.0, 0.0, {"reranked": Found(1.0, 1.0)})


def test_advice_is_the_smallest_code_that_is_good_enough():
    rows = [EXACT, row("itq", 64, 0.3, 0.97), row("sigah", 64, 0.4, 0.98), row("lsh", 128, 0.5, 1)]
    text = measured.advice(rows, 10, 0.95)
    assert text.startswith("Take SiGAH with 64 bits: 8 bytes a vector in place of 384")
    assert "(0.980; 0.400 without re-ranking)" in text


def test_advice_says_when_no_code_is_good_enough():
    text = measured.advice([EXACT, row("itq", 64, 0.3, 0.7), row("lsh", 64, 0.2, 0.6)], 10, 0.95)
    assert "No code here reaches recall@10 0.95" in text and "ITQ with 64 bits (0.700)" in text


# of n rows 1,000 are queries unless given, 500 for validation, 768 = 256 anchors · 3 for training
@pytest.mark.parametrize(("queries", "least"), [(False, 2268), (True, 1268)])
def test_too_few_rows_are_told_with_the_flag(vectors, tmp_path, capsys, queries, least):
    np.save(tmp_path / "few.npy", np.load(vectors)[: least - 1])
    argv = [f"--input={tmp_path}/few.npy", f"--workdir={tmp_path}/run"]
    assert measure.main(argv + [f"--queries={vectors}"] * queries) == 2
    error = capsys.readouterr().err
    held = "" if queries else "1000 held out as queries (or give --queries), "
    assert error == (
        f"error: --input={tmp_path}/few.npy: {least - 1} rows, expected at least {least}: {held}"
        "500 for validation, 768 for training\n"
    )
    assert not (tmp_path / "run").exists()


def test_rows_that_suffice_are_not_refused(vectors, tmp_path):
    np.save(tmp_path / "enough.npy", np.load(vectors)[:2268])
    args = measure.parse([f"--input={tmp_path}/enough.npy"])
    config = measure.make_config(args, 8)
    measure.check_rows(args, config)
    assert len(measure.load_dataset(config).xt) == 768


def test_the_home_directory_may_be_written_as_a_tilde(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    args = measure.parse(["--input=x.npy", "--workdir=~/runs"])
    assert str(args.workdir) == "/home/me/runs"


def test_outputs_that_cannot_be_written_are_named(vectors, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(measure, "rows", lambda *_: [EXACT, row("itq", 64, 0.3, 0.97)])
    (tmp_path / "run" / "measure.json").mkdir(parents=True)
    assert measure.main([f"--input={vectors}", f"--workdir={tmp_path}/run"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: --workdir={tmp_path}/run: cannot be written")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        (["--bits=8,x"], "--bits=8,x"),
        (["--k=0"], "--k=0"),
        (["--k=9999"], "--k=9999"),
        (["--oversample=0"], "--oversample=0"),
        (["--target=2"], "--target=2"),
        (["--steps=7"], "--bits=64 --steps=7: config.train.steps=7"),
        (["--bits=9999"], "--bits=9999: config.model.bits=9999"),
        (["--steps=0"], "train.steps=0"),
        (["--input=none.npy"], "none.npy"),
    ],
)
def test_bad_flags_are_named(vectors, tmp_path, capsys, flags, word):
    argv = [f"--input={vectors}", f"--workdir={tmp_path}/run", *flags]
    assert measure.main(argv) == 2
    error = capsys.readouterr().err
    assert word in error and error.count("\n") == 1
    assert not (tmp_path / "run" / "measure.json").exists()
