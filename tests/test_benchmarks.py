"""The layouts of the large benchmarks, at small sizes."""

from types import SimpleNamespace

import numpy as np
import pytest

from sigah_jax.data import synthetic
from sigah_jax.data.benchmarks import BENCHMARKS, STAND_IN, Layout, Part, load_benchmark
from sigah_jax.errors import BadInput
from sigah_jax.formats.raw import write_vectors

SMALL = BENCHMARKS["deep1m"]._replace(d=4, base_rows=300, query_rows=20, learn_rows=100)


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setitem(BENCHMARKS, "deep1m", SMALL)


def rows(n, first, d=4):
    return np.arange(first, first + n * d, dtype=np.float32).reshape(n, d)


def write(directory, layout, more=0, d=4):
    """The files of a layout; `more` rows beyond the official ones."""
    directory.mkdir(parents=True)
    sizes = (300, 20, 100)
    for part, n, first in zip(layout, sizes, (0, 10_000, 20_000), strict=True):
        x = rows(n + more * part.first_rows, first, d)
        write_vectors(directory / part.file, x.shape, np.float32, [x])


def load(tmp_path):
    return load_benchmark("deep1m", tmp_path, "the command")


@pytest.mark.parametrize("number", [0, 1, 2, 3])
def test_every_layout_gives_the_same_arrays(small, tmp_path, number):
    write(tmp_path / "deep1m", SMALL.layouts[number], more=50)
    got = load(tmp_path)
    np.testing.assert_array_equal(got.base, rows(300, 0))
    np.testing.assert_array_equal(got.queries, rows(20, 10_000))
    np.testing.assert_array_equal(got.learn, rows(100, 20_000))
    assert all(x.dtype == np.float32 for x in got[:3])
    assert got.origin == str(tmp_path / "deep1m" / SMALL.layouts[number].base.file)


def test_hdf5_has_no_learn_split(small, tmp_path):
    h5py = pytest.importorskip("h5py")
    (tmp_path / "deep1m").mkdir()
    with h5py.File(tmp_path / "deep1m" / "deep1m.hdf5", "w") as f:
        f["train"], f["test"], f["neighbors"] = rows(300, 0), rows(20, 10_000), rows(20, 0)
    got = load(tmp_path)
    np.testing.assert_array_equal(got.base, rows(300, 0))
    assert got.learn is None and "no learn split" in got.origin


def test_without_files_the_first_layout_and_the_command_are_named(small, tmp_path):
    with pytest.raises(BadInput) as e:
        load(tmp_path)
    message = str(e.value)
    for part in SMALL.layouts[0]:
        assert str(tmp_path / "deep1m" / part.file) in message
    assert "get it: the command;" in message and "SIGAH_DATA" in message and "\n" not in message


def test_what_is_missing_of_the_most_complete_layout_is_named(small, tmp_path):
    write(tmp_path / "deep1m", SMALL.layouts[2])
    (tmp_path / "deep1m" / "deep_query.fvecs").unlink()
    with pytest.raises(BadInput, match=r"deep_query\.fvecs is missing") as e:
        load(tmp_path)
    assert "deep_base" not in str(e.value) and "fbin" not in str(e.value)


def test_another_size_than_the_official_one_is_refused(small, tmp_path):
    layout = SMALL.layouts[0]
    write(tmp_path / "deep1m", layout)
    path = tmp_path / "deep1m" / layout.base.file
    write_vectors(path, (299, 4), np.float32, [rows(299, 0)])
    with pytest.raises(BadInput, match="299 rows of 4, expected 300 of 4") as e:
        load(tmp_path)
    assert str(path) in str(e.value)


def test_queries_of_another_width_are_refused(small, tmp_path):
    layout = SMALL.layouts[0]
    write(tmp_path / "deep1m", layout)
    write_vectors(tmp_path / "deep1m" / layout.queries.file, (20, 5), np.float32, [rows(20, 0, 5)])
    with pytest.raises(BadInput, match="20 rows of 5, expected 20 of 4"):
        load(tmp_path)


def test_official_sizes():
    assert {n: (b.base_rows, b.query_rows, b.learn_rows, b.d) for n, b in BENCHMARKS.items()} == {
        "gist1m": (1_000_000, 1_000, 500_000, 960),
        "deep1m": (1_000_000, 10_000, 500_000, 96),
        "sift1m": (1_000_000, 10_000, 100_000, 128),
    }
    for benchmark in BENCHMARKS.values():
        assert all(isinstance(part, Part | None) for layout in benchmark.layouts for part in layout)
        assert isinstance(benchmark.layouts[0], Layout)


def test_a_stand_in_loads_and_says_what_it_is(small, tmp_path):
    synthetic.write_stand_in("deep1m", tmp_path / "deep1m", SMALL)
    got = load(tmp_path)
    assert "synthetic stand-in" in got.origin
    assert got.base.shape == (300, 4) and got.queries.shape == (20, 4)
    np.testing.assert_allclose(np.linalg.norm(got.base, axis=1), 1, atol=1e-6)
    assert not np.array_equal(got.base[:20], got.queries)
    # the same again is the same
    synthetic.write_stand_in("deep1m", tmp_path / "deep1m", SMALL)
    np.testing.assert_array_equal(load(tmp_path).base, got.base)


def test_a_stand_in_never_overwrites_real_files(small, tmp_path):
    write(tmp_path / "deep1m", SMALL.layouts[0])
    with pytest.raises(BadInput, match="holds other files"):
        synthetic.write_stand_in("deep1m", tmp_path / "deep1m", SMALL)
    assert not (tmp_path / "deep1m" / STAND_IN).exists()
    np.testing.assert_array_equal(load(tmp_path).base, rows(300, 0))


def test_a_stand_in_does_not_depend_on_the_block_and_has_low_intrinsic_dimension():
    draw = synthetic.make_manifold(200)
    x = np.concatenate(list(synthetic.blocks(draw, [0, 1], 3000, False)))
    assert x.shape == (3000, 200) and x.dtype == np.float32
    variances = np.linalg.svd(x - x.mean(0), compute_uv=False) ** 2
    # nearly all variance lies in few of the 200 directions
    assert variances[:40].sum() / variances.sum() > 0.9


def test_too_small_a_disk_is_refused(small, tmp_path, monkeypatch):
    # 420 rows of 4 floats are 6,720 bytes
    usage = SimpleNamespace(free=6_000)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    with pytest.raises(BadInput, match="are needed"):
        synthetic.write_stand_in("deep1m", tmp_path / "deep1m", SMALL)
