import gzip
import shutil

import numpy as np
import pytest

from sigah_jax import config as base
from sigah_jax.data import datasets, mnist, row_checks
from sigah_jax.errors import BadInput
from sigah_jax.formats import vectors


def test_embedded_mnist_is_the_official_one():
    images = mnist.load_images()
    assert images.shape == (70000, 784) and images.dtype == np.uint8
    # the known mean and deviation of the 60,000 training images, of values from 0 to 1
    training = images[:60000] / np.float32(255)
    assert abs(training.mean() - 0.1307) < 1e-4 and abs(training.std() - 0.3081) < 1e-4


@pytest.mark.parametrize("damage, words", [("cut", "damaged gzip"), ("changed", "md5")])
def test_damaged_files_are_named(tmp_path, damage, words):
    name = "t10k-images-idx3-ubyte.gz"
    for source in mnist.DIRECTORY.glob("*.gz"):
        shutil.copy(source, tmp_path)
    data = (tmp_path / name).read_bytes()
    changed = gzip.compress(gzip.decompress(data)[:-1] + b"\x63")
    (tmp_path / name).write_bytes(data[:100] if damage == "cut" else changed)
    with pytest.raises(BadInput, match=words) as e:
        mnist.load_images(tmp_path)
    assert name in str(e.value)


def fields(**changes):
    data = base.get_config().data
    data.test_queries, data.val_queries = 10, 5
    data.update(changes)
    return data


def column(n, first=0):
    return np.arange(first, first + n, dtype=np.float32)[:, None]


def test_without_queries_some_rows_leave_the_base():
    got = datasets.assemble(column(100), None, None, fields(), "here")
    assert [len(v) for v in (got.xt, got.xv, got.xb, got.xq)] == [85, 5, 90, 10]
    assert sorted(np.concatenate([got.xt, got.xv, got.xq])[:, 0]) == list(range(100))
    np.testing.assert_array_equal(np.sort(np.concatenate([got.xt, got.xv]), 0), np.sort(got.xb, 0))
    assert got.origin == "here, 10 random rows held out as test queries"


def test_given_queries_and_training_rows_are_taken_as_they_are():
    base_rows, queries = column(100), column(3, 200)
    got = datasets.assemble(base_rows, queries, column(50, 300), fields(train_rows=20), "here")
    assert got.xb is base_rows and got.xq is queries and got.origin == "here"
    assert len(got.xt) == 20 and len(got.xv) == 5
    pool = np.concatenate([got.xt, got.xv])[:, 0]
    assert len(set(pool)) == 25 and pool.min() >= 300


def test_another_seed_draws_others_and_max_rows_keeps_some():
    one, same, two = (
        datasets.assemble(column(1000), None, None, fields(split_seed=seed), "")
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(one.xt, same.xt)
    assert not np.array_equal(one.xq, two.xq)
    assert len(datasets.assemble(column(1000), None, None, fields(max_rows=60), "").xb) == 50


def normal(n=4000, d=8):
    return np.random.default_rng(0).normal(size=(n, d)).astype(np.float32)


@pytest.mark.parametrize("value, far", [(1e10, 1), (1e15, 1), (-9999, 30)])
def test_rows_that_hold_nearly_all_variance_are_named_with_their_number_in_the_file(value, far):
    x = normal()
    x[500 : 500 + far] = value
    changes = {"base": "mine.npy", "train": "learn.npy"}
    for xb, learn, name in ((x, None, "mine.npy"), (normal(), x, "learn.npy")):
        got = datasets.assemble(xb, None, learn, fields(**changes), "")
        row = int(got.warning.removeprefix(f"{name}: row ").split()[0])
        assert 500 <= row < 500 + far
        # fewer: some became queries
        count = int(got.warning.split("times as far (")[1].split()[0])
        assert count == np.sum(got.xt[:, 0] == np.float32(value)) > 0
        assert "remove or repair them" in got.warning and "\n" not in got.warning


def test_heavy_tails_and_few_distinct_rows_are_no_outliers():
    rng, (n, d) = np.random.default_rng(0), (5000, 24)
    for x in (
        mnist.load_images()[:5000],
        rng.lognormal(0, 2, (n, d)),
        rng.standard_t(2, (n, d)),
        rng.poisson(rng.gamma(0.3, 3, (n, d))),
        rng.poisson(0.02, (n, d)),  # most rows are zeros
        normal(n, d) * (rng.random((n, 1)) < 0.005),
        normal(n, d) * rng.lognormal(0, 1.5, (n, 1)),
    ):
        x = np.asarray(x, np.float32)
        assert row_checks.warn_of_outliers(x, np.arange(len(x)), "x") == ""


@pytest.mark.parametrize(
    "n, changes, words",
    [
        (19, {}, "config.data.test_queries: 19 rows are too few, expected at least 20"),
        (50, {"val_queries": 30}, "config.data.val_queries: 40 training rows are too few"),
    ],
)
def test_too_few_rows_are_refused(n, changes, words):
    with pytest.raises(BadInput, match=words):
        datasets.assemble(column(n), None, None, fields(**changes), "")


@pytest.mark.parametrize("part", ["base", "queries", "training rows"])
def test_the_part_and_row_that_is_not_finite_is_named(part):
    parts = {"base": column(100), "queries": column(100), "training rows": column(100)}
    parts[part][17] = np.nan
    with pytest.raises(BadInput, match=f"{part}: row 17 holds NaN"):
        datasets.assemble(*parts.values(), fields(name="mine"), "")


def test_files_of_two_widths_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((50, 3), np.float32))
    np.save(tmp_path / "b.npy", np.zeros((50, 4), np.float32))
    data = fields(base=str(tmp_path / "a.npy"), queries=str(tmp_path / "b.npy"))
    with pytest.raises(BadInput, match=r"4 columns, but .* has 3") as e:
        datasets.load_files(data)
    assert str(tmp_path / "b.npy") in str(e.value)


def test_rows_that_memory_cannot_hold_are_not_copied_to_hold_out_queries(tmp_path):
    name = tmp_path / "large.fbin"
    n = 2**42 // 4000  # 4 TiB of 1000 columns
    with name.open("wb") as f:
        f.write(np.array([n, 1000], np.uint32))
        f.truncate(8 + n * 4000)
    with pytest.raises(BadInput, match=rf"{name}: its values need 4096.0 GiB of memory, .* fewer"):
        datasets.load_files(fields(base=str(name), max_rows=0))


def test_an_array_inside_a_file_is_named_after_a_colon(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "my.hdf5", "w") as f:
        f["train"], f["test"] = column(100), column(20, 500)
    name = str(tmp_path / "my.hdf5")
    got = datasets.load_files(fields(base=f"{name}:train", queries=f"{name}:test"))
    assert len(got.xb) == 100 and got.xq[0, 0] == 500


def test_the_home_directory_may_be_written_as_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    np.save(tmp_path / "a.npy", column(100))
    assert len(vectors.read_file("~/a.npy")) == 100
    with pytest.raises(BadInput, match=rf"^{tmp_path}/b.npy: "):
        vectors.read_file("~/b.npy")


def test_half_precision_and_bytes_become_float32(tmp_path):
    for dtype in (np.float16, np.uint8):
        np.save(tmp_path / "a.npy", column(100).astype(dtype))
        got = datasets.load_files(fields(base=str(tmp_path / "a.npy")))
        assert {v.dtype for v in (got.xt, got.xv, got.xb, got.xq)} == {np.dtype(np.float32)}


# the largest float32 is 3.4e38: 1e25 fits and 1e50 does not, 3 · 1.1e19² = 3.6e38, 6 · 2¹²⁶ = 5e38
@pytest.mark.parametrize(
    ("dtype", "row", "words"),
    [
        ("f4", [0, np.nan, 0], "NaN or infinity; remove"),
        ("f8", [0, -np.inf, 0], "NaN or infinity; remove"),
        ("f8", [0, 1e39, 0], "values so large that float32 overflows; scale"),
        ("f4", [0, -1e25, 0], "values so large that float32 overflows; scale"),
        ("f4", [1.1e19, 1.1e19, 1.1e19], "values so large that float32 overflows; scale"),
        ("i8", [2**63 - 1] * 6, "values so large that float32 overflows; scale"),
    ],
)
def test_a_row_that_float32_cannot_compute_with_is_named(dtype, row, words, monkeypatch):
    monkeypatch.setattr(row_checks, "BLOCK_ROWS", 50)
    x = np.ones((200, len(row)), dtype)
    x[[123, 199]] = row
    with pytest.raises(BadInput, match=f"^x: row 123 holds {words} or repair it$"):
        row_checks.check_finite(x, "x")


@pytest.mark.parametrize(("dtype", "value"), [("f4", 1e19), ("f8", 1e-300), ("u1", 255)])
def test_rows_whose_squared_norms_fit_float32_are_taken(dtype, value):
    row_checks.check_finite(np.full((7, 3), value, dtype), "x")


NORMAL = np.random.default_rng(0).normal(size=(3000, 4))


# float32 steps: 64 at 1e9, of rows spread by 2; 1 at 1e7; rows below 1e-45 become zeros
@pytest.mark.parametrize(
    "x",
    [
        2 * NORMAL + 1e9,
        NORMAL - 1e7,
        NORMAL * 1e-50,
        (100 * NORMAL).astype(np.int64) + 2**40,
        (2 * NORMAL).astype(np.int32) + 2**30,
    ],
)
def test_rows_that_float32_blurs_are_refused(x):
    with pytest.raises(BadInput, match=rf"^x: {x.dtype} columns lie so far from zero.*mean row"):
        row_checks.check_precision(x, "x")


@pytest.mark.parametrize(
    "x",
    [
        NORMAL,
        NORMAL + 1e4,
        NORMAL * 1e-20 + 1e-18,
        np.random.default_rng(0).integers(0, 256, (3000, 4)),
        np.concatenate([NORMAL, np.full((3000, 1), 1e9 + 0.3)], 1),  # a constant column
        np.full((3000, 4), 0.1),
        (NORMAL + 1e9).astype(np.float32),  # is what it is
        NORMAL[:1] + 1e9,
        NORMAL[:0],
    ],
)
def test_rows_that_float32_holds_well_enough_are_taken(x):
    row_checks.check_precision(x, "x")


def test_the_part_that_float32_blurs_is_named():
    parts = {"base": NORMAL, "queries": NORMAL + 1e9, "training rows": None}
    with pytest.raises(BadInput, match="mine, queries: float64 columns"):
        datasets.assemble(*parts.values(), fields(name="mine"), "")


def test_the_file_that_holds_a_row_too_large_is_named(tmp_path):
    names = {part: str(tmp_path / f"{part}.npy") for part in ("base", "queries", "train")}
    for bad in names:
        for part, name in names.items():
            x = column(100).astype(np.float64)
            x[17] = 1e39 if part == bad else 0
            np.save(name, x)
        with pytest.raises(BadInput, match=f"{bad}.npy: row 17 holds values so large"):
            datasets.load_files(fields(**names))


def test_validation_queries_are_carved_out_of_training_queries_where_these_are_given():
    got = datasets.assemble(column(100), None, None, fields(), "", asked=column(30, 1000))
    assert [len(x) for x in (got.xt, got.xv, got.xb, got.xq, got.xa)] == [90, 5, 90, 10, 25]
    both = np.sort(np.concatenate([got.xv, got.xa]), 0)
    np.testing.assert_array_equal(both, column(30, 1000))
    np.testing.assert_array_equal(got.xt, got.xb)  # no row is held out
    some = datasets.assemble(column(100), None, None, fields(train_rows=20), "", asked=column(30))
    assert len(some.xt) == 20 and len(some.xa) == 25
    with pytest.raises(BadInput, match=r"data\.val_queries: 9 training queries are too few"):
        datasets.assemble(column(100), None, None, fields(), "", asked=column(9))


def test_a_file_of_training_queries_is_read_and_must_have_the_width_of_the_base(tmp_path):
    np.save(tmp_path / "base.npy", np.random.default_rng(0).normal(size=(50, 3)))
    for name, d in (("asked", 3), ("wide", 4)):
        np.save(tmp_path / f"{name}.npy", np.random.default_rng(1).normal(size=(20, d)))
    data = fields(base=str(tmp_path / "base.npy"), queries_train=str(tmp_path / "asked.npy"))
    got = datasets.load_files(data)
    assert len(got.xa) == 15 and set(got.hashes) == {"xt", "xv", "xb", "xq", "xa"}
    data.queries_train = str(tmp_path / "wide.npy")
    with pytest.raises(BadInput, match=r"wide\.npy: 4 columns, but .*base\.npy has 3"):
        datasets.load_files(data)
