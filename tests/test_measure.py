import functools
import json
import shutil
from types import SimpleNamespace

import hashers
import numpy as np
import pytest
from matplotlib.image import imread

from sigah_jax import measure
from sigah_jax.baselines import sgen
from sigah_jax.config import change
from sigah_jax.files import whole
from sigah_jax.report import measured
from sigah_jax.report.measured import Found, Row
from sigah_jax.retrieval import neighbours
from sigah_jax.training import measurements

ROWS, COLUMNS = 3000, 12
SMALL = hashers.SMALL | {"data.test_queries": 200}  # searched in less time too
FILES = {"input": "x", "queries": "q", "queries_train": "t"}


@pytest.fixture(scope="module")
def vectors(tmp_path_factory):
    generator = np.random.default_rng(0)
    x = generator.normal(size=(ROWS, 4)) @ generator.normal(size=(4, COLUMNS))
    path = tmp_path_factory.mktemp("vectors") / "mine.npy"
    np.save(path, x.astype(np.float32))
    return path


def make_small(patch):
    """Trainings of `measure` are small."""
    get_config = measure.vectors_config

    def config_of(arguments):
        config = get_config(arguments)
        for field, value in SMALL.items():
            change(config, field, value)
        return config

    patch.setattr(measure, "vectors_config", config_of)
    few = functools.partial(sgen.fit, steps=20)
    patch.setitem(measurements.METHODS, "sgen", measurements.METHODS["sgen"]._replace(fit=few))


@pytest.fixture
def small(monkeypatch):
    make_small(monkeypatch)


@pytest.fixture(scope="module")
def workdir(vectors, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("measure") / "run"
    argv = [f"--input={vectors}", "--bits=8", "--steps=20", "--k=5", f"--workdir={workdir}"]
    with pytest.MonkeyPatch.context() as patch:
        make_small(patch)
        assert measure.main(argv) == 0
    return workdir


def rows_of(workdir):
    return json.loads((workdir / "measure.json").read_text())["rows"]


def test_the_file_says_what_was_asked(workdir, vectors):
    told = whole.read_json(workdir / "measure.json", "measure again")
    assert told.pop("rows")
    of = {"input": str(vectors), "queries": "", "queries_train": "", "metric": "l2"}
    assert told == of | {"k": 5, "oversample": 10, "steps": 20}


def test_all_methods_are_measured_at_their_bytes_by_group(workdir):
    assert [(r["group"], r["method"], r["code_bytes"]) for r in rows_of(workdir)] == [
        ("bits", "sigah", 1),
        ("codes", "sigah_stages", 1),
        ("bits", "itq", 1),
        ("bits", "sgen", 1),
        ("bits", "lsh", 1),
        ("codes", "opq", 1),
        ("codes", "rq", 1),
        ("codes", "rabitq", 1),
        ("codes", "sqtqmse1", 1),
        ("codes", "sqtqmse2", 1),
        ("bits", "sign", 2),
        ("vectors", "vectors", 4 * COLUMNS),
    ]


def test_vectors_know_more_than_codes_and_what_does_not_exist_says_why(workdir):
    for row in rows_of(workdir)[:-1]:
        if row["method"] == "rabitq":
            assert not row["found"] and row["why"].startswith("rabitq: its factors alone take 8")
            continue
        alone, reranked = (row["found"][way]["recall"] for way in ("alone", "reranked"))
        assert 0.01 < alone < reranked <= 1 and not row["why"]  # by chance 5 of 2,800, .0018
        assert row["encode_secs"] > 0 and row["found"]["reranked"]["milliseconds"] > 0
    text = (workdir / "measure.md").read_text()
    assert "n/a: RaBitQ, its factors alone take 8 bytes." in text
    assert max(len(line) for line in text.splitlines() if line.startswith("|")) <= 120
    assert "the 50 nearest by the code" in text
    assert imread(workdir / "measure.png").std() > 0.01


def test_itq_has_no_more_bits_than_columns_and_the_table_says_so():
    search = SimpleNamespace(data=SimpleNamespace(xt=np.zeros((30, 12), np.float32)))
    row = measurements.baseline("itq", measure.vectors_config("bits=16"), 16, search)
    assert not row.found and row.code_bytes == 2
    text = measured.table([row], 10, 100)
    note = "n/a: ITQ, one bit takes one principal component, and the data has 12 columns."
    assert text.splitlines()[-1] == note


def test_of_opq_the_better_form_is_measured(monkeypatch):
    recalls = {"opq": 0.3, "opq_all": 0.4}

    def quantiser(form, *_):
        found = recalls[form] and {"alone": Found(recalls[form], 1.0)}
        return Row("codes", form, 8, 1.0, 1.0, found or {}, "" if found else f"{form}: none")

    monkeypatch.setattr(measurements, "quantiser", quantiser)
    assert measurements.opq(None, 64, None).found["alone"].recall == 0.4
    recalls["opq_all"] = 0.2
    row = measurements.opq(None, 64, None)
    assert row.found["alone"].recall == 0.3 and row.method == "opq"
    recalls["opq"] = None
    assert measurements.opq(None, 64, None).found["alone"].recall == 0.2
    recalls["opq_all"] = None
    assert measurements.opq(None, 64, None).why == "opq_all: none"


def test_the_same_command_does_not_train_again(small, vectors, workdir, tmp_path, capsys):
    before = (workdir / "bits8" / "metrics.jsonl").read_text()  # has times, never the same twice
    copy = shutil.copytree(workdir, tmp_path / "run")
    argv = [f"--input={vectors}", "--bits=8", "--steps=20", "--k=5", f"--workdir={copy}"]
    assert measure.main([*argv, "--oversample=559"]) == 0
    assert (copy / "bits8" / "metrics.jsonl").read_text() == before
    assert "steps" not in capsys.readouterr().out
    # 559 · 5 candidates are all rows but 5: nothing is lost
    rows = rows_of(copy)
    recalls = [row["found"]["reranked"]["recall"] for row in rows[:-1] if row["found"]]
    assert min(recalls) > 0.999 and len(recalls) == 10
    assert "the 2,795 nearest" in (copy / "measure.md").read_text()
    assert rows[0]["fit_secs"] is rows[1]["fit_secs"] is None  # nothing was trained


def test_another_spelling_of_the_file_is_the_same_file_and_a_length_is_measured_once(
    small, vectors, workdir, tmp_path, monkeypatch
):
    copy = shutil.copytree(workdir, tmp_path / "run")
    before = (copy / "bits8" / "metrics.jsonl").read_text()
    monkeypatch.chdir(vectors.parent)
    argv = ["--bits=8,8", "--steps=20", "--k=5", f"--workdir={copy}"]
    assert measure.main([f"--input=./{vectors.name}", *argv]) == 0
    assert json.loads((copy / "measure.json").read_text())["input"] == str(vectors)
    assert (copy / "bits8" / "metrics.jsonl").read_text() == before
    assert [row["method"] for row in rows_of(copy)].count("sigah") == 1


def test_rows_that_changed_under_the_same_name_are_refused(
    small, vectors, workdir, tmp_path, capsys
):
    copy = shutil.copytree(workdir, tmp_path / "run")
    before, x = (copy / "measure.md").read_text(), np.load(vectors)
    argv = [f"--input={vectors}", "--bits=8", "--steps=20", "--k=5", f"--workdir={copy}"]
    try:
        np.save(vectors, x[::-1])
        assert measure.main(argv) == 2
    finally:
        np.save(vectors, x)
    assert "bits8: the run there has other rows than the data now" in capsys.readouterr().err
    assert (copy / "measure.md").read_text() == before


def test_other_vectors_do_not_mix_with_those_of_the_directory(vectors, workdir, tmp_path, capsys):
    copy = shutil.copytree(workdir, tmp_path / "run")
    before = (copy / "measure.md").read_text()
    np.save(tmp_path / "other.npy", np.load(vectors))
    for files in (
        [f"--input={tmp_path / 'other.npy'}"],
        [f"--input={vectors}", f"--queries={vectors}"],
    ):
        assert measure.main([*files, "--bits=16", f"--workdir={copy}"]) == 2
        assert f"--workdir={copy}: bits8 there is of --" in capsys.readouterr().err
    assert (copy / "measure.md").read_text() == before
    assert sorted(p.name for p in copy.glob("bits*")) == sorted(
        p.name for p in workdir.glob("bits*")
    )


def test_queries_to_train_with_reach_the_training_and_mark_its_directory(
    small, vectors, tmp_path, capsys, monkeypatch
):
    x = np.load(vectors)
    for name, part in (("x", slice(1500)), ("q", slice(1500, 1600)), ("t", slice(1600, 2600))):
        np.save(tmp_path / f"{name}.npy", x[part])
    monkeypatch.setattr(measure, "PEERS", ())  # which take longer
    monkeypatch.setattr(measure, "BASELINES", ())
    monkeypatch.setattr(measurements, "opq", lambda *_: NONE)
    flags = {name: f"--{name}={tmp_path}/{file}.npy" for name, file in FILES.items()}
    more = ["--bits=8", "--steps=20", f"--workdir={tmp_path}/run"]
    assert measure.main([*flags.values(), *more]) == 0
    assert "500 training queries, 500 validation queries, 1500 base rows, 100 test" in (
        tmp_path / "run" / "bits8" / "log.txt"
    ).read_text("utf-8")
    np.save(tmp_path / "t.npy", x[1600:2599])
    capsys.readouterr()
    for argv, words in (
        ([flags["input"], flags["queries"]], "bits8 there is of --queries_train="),
        ([flags["input"], flags["queries_train"]], "are measured by other queries of that kind"),
        ([*flags.values()], "t.npy: 999 queries, expected at least 1000, 500 of them for valid"),
    ):
        assert measure.main([*argv, *more]) == 2
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1
    np.save(tmp_path / "x.npy", x[:64])
    assert measure.main([*flags.values(), *more]) == 2
    assert "64 rows, expected at least 65: 65 for training\n" in capsys.readouterr().err


def test_recall_by_hand():
    # the first query found 1 and 2 of 0, 1, 2; the second all: (2 + 3) / 6
    xb = np.float32([[1], [2], [3], [4], [5], [6]])
    xq, ids, truth = (
        np.float32([[0], [7]]),
        np.array([[1, 2, 3], [3, 4, 5]]),
        [[0, 1, 2], [5, 4, 3]],
    )
    assert neighbours.recall(xq, xb, ids, np.array(truth)) == pytest.approx(5 / 6)


def test_of_rows_at_equal_distance_each_is_a_hit():
    # rows 1 to 3 are equally far from 0, and so the two nearest are row 0 and any one of them
    xq, xb = np.zeros((1, 2), np.float32), np.float32([[0, 1], [2, 0], [0, 2], [-2, 0], [9, 9]])
    found = [
        neighbours.recall(xq, xb, np.array([ids]), np.array([[0, 1]])) for ids in ([0, 3], [4, 0])
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
    want = neighbours.recall(xq, xb, found, truths[0])
    assert want == neighbours.recall(xq, xb[order], place[found], truths[1]) > 0


def row(method, size, alone, reranked, group="bits"):
    found = {"alone": Found(alone, 0.1), "reranked": Found(reranked, 0.2)}
    return Row(group, method, size, 1.0, 2.0, found)


EXACT = Row("vectors", "vectors", 384, 0.0, 0.0, {"alone": Found(1.0, 1.0)})
NONE = Row("codes", "rabitq", 4, None, 0.0, {}, "rabitq: too few bytes")
ROWS_OF_ALL = [
    NONE,
    row("sigah", 8, 0.3, 0.78),
    row("sigah_stages", 8, 0.5, 0.95, "codes"),
    row("rq", 8, 0.48, 0.96, "codes"),
    row("itq", 16, 0.35, 0.85),
    row("sigah", 16, 0.4, 0.9),
    row("rq", 16, 0.6, 0.99, "codes"),
    EXACT,
]


@pytest.mark.parametrize(
    "rows, target, words",
    [
        (
            ROWS_OF_ALL,
            0.9,
            "For recall@10 of at least 0.9 after re-ranking 100 candidates the smallest code here "
            "is RQ of 8 bytes (0.960; 0.480 without re-ranking) in place of 384; the smallest that "
            "a store of bits can search is SiGAH of 16 bytes (0.900; 0.400 without re-ranking).",
        ),
        (
            ROWS_OF_ALL,
            0.7,
            "RQ of 8 bytes (0.960; 0.480 without re-ranking) in place of 384; the smallest that "
            "a store of bits can search is SiGAH of 8 bytes (0.780; 0.300 without re-ranking).",
        ),
        (
            ROWS_OF_ALL,
            0.85,
            "the smallest that a store of bits can search is SiGAH of 16 bytes (0.900; 0.400 "
            "without re-ranking). Others as small reach it too: SiGAH, in stages of 8 bytes "
            "(0.950); ITQ of 16 bytes (0.850).",
        ),
        (
            [row("opq", 8, 0.4, 0.93, "codes"), *ROWS_OF_ALL, row("lsh", 16, 0.3, 0.9)],
            0.9,
            "too: SiGAH, in stages of 8 bytes (0.950); OPQ of 8 bytes (0.930); LSH of 16 bytes "
            "(0.900).",
        ),
        (
            ROWS_OF_ALL,
            0.98,
            "RQ of 16 bytes (0.990; 0.600 without re-ranking) in place of 384; no code that a "
            "store of bits can search has it, the best is SiGAH of 16 bytes (0.900; 0.400 without "
            "re-ranking): try more bits or a larger --oversample.",
        ),
        (
            ROWS_OF_ALL,
            1.0,
            "No code here has recall@10 of at least 1 after re-ranking 100 candidates: the best is "
            "RQ of 16 bytes (0.990; 0.600 without re-ranking), and the best that a store of bits "
            "can search is SiGAH of 16 bytes (0.900; 0.400 without re-ranking); try more bits",
        ),
        (
            [row("sigah", 8, 0.3, 0.95), row("rq", 16, 0.6, 0.99, "codes"), EXACT],
            0.9,
            "SiGAH of 8 bytes (0.950; 0.300 without re-ranking) in place of 384, and a store of "
            "bits can search it.",
        ),
        (
            [row("sigah", 8, 0.3, 0.8996), row("rq", 16, 0.6, 0.99, "codes"), EXACT],
            0.9,
            "SiGAH of 8 bytes (0.900; 0.300 without re-ranking) in place of 384, and a store",
        ),
        (
            [row("sigah", 8, 0.3, 0.85), row("rq", 16, 0.6, 0.8, "codes"), EXACT],
            0.9,
            "the best is SiGAH of 8 bytes (0.850; 0.300 without re-ranking); try more bits",
        ),
    ],
)
def test_advice_names_the_smallest_code_and_the_smallest_of_bits(rows, target, words):
    assert words in measured.advice(rows, 10, 100, target)


def test_a_table_is_aligned_and_grouped():
    resumed = ROWS_OF_ALL[1]._replace(fit_secs=None)
    lines = measured.table([NONE, resumed, EXACT], 10, 100).splitlines()
    assert lines[:-4] == [
        "|                                   | bytes | recall@10 | re-ranked | ms a query "
        "| s to train | s to encode |",
        "| --------------------------------- | ----: | --------: | --------: | ---------: "
        "| ---------: | ----------: |",
        "| **bits, by Hamming distance**     |       |           |           |            "
        "|            |             |",
        "| SiGAH                             |     8 |     0.300 |     0.780 |       0.20 "
        "|            |         2.0 |",
        "| **codes, by real-valued queries** |       |           |           |            "
        "|            |             |",
        "| RaBitQ                            |     4 |       n/a |       n/a |        n/a "
        "|        n/a |         n/a |",
        "| **vectors**                       |       |           |           |            "
        "|            |             |",
        "| vectors                           |   384 |     1.000 |           |       1.00 "
        "|            |             |",
    ]
    assert lines[-1] == "n/a: RaBitQ, too few bytes."


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
    monkeypatch.setattr(measure, "rows", lambda *_: [EXACT, row("itq", 8, 0.3, 0.97)])
    (tmp_path / "run" / "measure.json").mkdir(parents=True)
    assert measure.main([f"--input={vectors}", f"--workdir={tmp_path}/run"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: --workdir={tmp_path}/run: cannot be written")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        (["--bits=8,x"], "--bits: expected whole numbers above 0, with commas between, got 8,x"),
        (["--k=0"], "--k=0"),
        (["--k=9999"], "--k=9999"),
        (["--oversample=0"], "--oversample: expected 1 or more, got 0"),
        (["--oversample=200"], "--oversample=200: 10 times this are all 2000 base rows"),
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
