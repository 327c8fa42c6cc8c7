"""Training on an array in one call."""

import itertools
import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import hashers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse
import sets

import sigah_jax
from sigah_jax import fitting
from sigah_jax.data import datasets
from sigah_jax.errors import BadInput
from sigah_jax.run import checkpoints, logs
from sigah_jax.training import prepare, query_scale, refinement

D, BITS = 20, 24
SHORT = {
    "data.val_queries": 50,
    "train.steps": 200,
    "train.steps_per_call": 20,
    "train.anchors": 16,
    "train.graph_neighbours": 8,
    "eval.block_rows": 128,
    "eval.every_steps": 200,
    "model.hash_widths": (32,),
    "model.dis_widths": (16,),
    "model.decoder": "linear",  # compiled in less time
}

NORMAL = np.random.default_rng(0).normal(size=(2000, 5))


@pytest.fixture(scope="module")
def rows():
    return sets.rows(1000, D, 12)


@pytest.fixture(scope="module")
def run(tmp_path_factory, rows):
    workdir = tmp_path_factory.mktemp("runs") / "fit"
    return sigah_jax.fit(rows, BITS, workdir, SHORT), workdir


def test_the_package_and_fit_come_without_importing_jax():
    code = "import sys, sigah_jax; print(sigah_jax.__all__, 'jax' in sys.modules)"
    code += "; print(sigah_jax.load, sigah_jax.fit, sigah_jax.search)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    first, second = done.stdout.splitlines()
    names = ["BadInput", "Hasher", "fit", "load", "range_search", "search"]
    assert first == f"{names} False" and second.count("<function") == 3
    assert set(names) <= set(dir(sigah_jax))
    with pytest.raises(AttributeError, match="'train_it'"):
        _ = sigah_jax.train_it


def test_more_bits_than_columns_find_neighbours_better_than_random_hyperplanes(run, rows):
    h, _ = run
    assert (h.bits, h.d) == (BITS, D)
    centred, rng = rows - rows.mean(0), np.random.default_rng(0)
    random = [sets.recall(centred @ rng.normal(size=(D, BITS)) > 0, rows, 200) for _ in range(3)]
    assert sets.recall(h.project_queries(rows) > 0, rows, 200) > max(random) + 0.03


@pytest.mark.parametrize(
    "last", ["checkpoints/200", "refit/checkpoints/60", "alternation/checkpoints/160"]
)
def test_sigterm_inside_the_last_save_of_a_training_ends_it(run, rows, tmp_path, monkeypatch, last):
    save = checkpoints.save

    def terminated(workdir, step, *state, **more):
        if str(workdir / "checkpoints" / str(step)).endswith(f"run/{last}"):
            os.kill(os.getpid(), signal.SIGTERM)
        save(workdir, step, *state, **more)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "save", terminated)
        with pytest.raises(SystemExit) as e:
            sigah_jax.fit(rows, BITS, tmp_path / "run", SHORT)
    assert e.value.code == 143 and (tmp_path / "run" / last / "seal.json").exists()
    assert not (tmp_path / "run" / "encoder.npz").exists()
    again = sigah_jax.fit(rows, BITS, tmp_path / "run", SHORT)
    assert again.describe()["encoder"] == run[0].describe()["encoder"]


@pytest.mark.parametrize("passes", [1, 2])  # before the alternation, and at the end
def test_sigterm_while_codes_are_refined_is_not_kept_waiting(
    run, rows, tmp_path, monkeypatch, passes
):
    chosen, begun = refinement.chosen, []

    def choose(*args):
        begun.append(True)
        if len(begun) == passes:
            os.kill(os.getpid(), signal.SIGTERM)
        return chosen(*args)

    def leave(*_):  # as a command does, but for the end of the process
        raise InterruptedError

    left = signal.signal(signal.SIGTERM, leave)
    try:
        with monkeypatch.context() as patch, pytest.raises(InterruptedError):
            patch.setattr(refinement, "chosen", choose)
            sigah_jax.fit(rows, BITS, tmp_path / "run", SHORT)
    finally:
        signal.signal(signal.SIGTERM, left)
    again = sigah_jax.fit(rows, BITS, tmp_path / "run", SHORT)
    assert again.describe()["encoder"] == run[0].describe()["encoder"]


def test_the_scale_that_the_validation_queries_choose_is_kept(run, rows, tmp_path, monkeypatch):
    shutil.copytree(run[1], tmp_path / "run")
    (tmp_path / "run" / "encoder.npz").unlink()
    monkeypatch.setattr(query_scale, "chosen", lambda *_: 1.3)
    h = sigah_jax.fit(rows, BITS, tmp_path / "run", SHORT)
    assert h.query_scale == h.describe()["query_scale"] == 1.3
    assert h.describe()["encoder"] == run[0].describe()["encoder"]
    x = np.float32(1.3) * h.features(rows[:20])
    np.testing.assert_array_equal(h.query_features(rows[:20]), x)


def test_fit_gives_what_load_gives(run, rows):
    h, workdir = run
    loaded = sigah_jax.load(workdir)
    assert h.describe() == loaded.describe()
    np.testing.assert_array_equal(h.encode(rows), loaded.encode(rows))
    told = h.describe()
    assert told["step"] == 200 and told["preset"] == "best" and 0 < told["validation"]["map"] < 1
    assert told["data"].startswith("array 1000 x 20 float32 ")
    assert told["reference"]["rows"] == 50 and 0 < told["reference"]["error"] < 1
    assert list(told["recall"]) == ["100", "316"] and 0.2 < told["recall"]["316"] < 1
    # pairs of the validation queries and of the others among the rows, 950
    assert len(loaded.pairs.true) == 50 and loaded.pairs.weight.sum() == 950
    found = sigah_jax.range_search(h, rows[:100], h.encode(rows), 1.5, rerank=rows)
    own = [i in found.ids[a:b] for i, (a, b) in enumerate(itertools.pairwise(found.lims))]
    assert np.mean(own) > 0.95


def test_the_same_call_in_another_thread_trains_nothing_and_gives_the_same(run, rows, capsys):
    h, workdir = run
    logged = (workdir / "metrics.jsonl").read_text()
    with ThreadPoolExecutor(1) as thread:
        again = thread.submit(sigah_jax.fit, jnp.asarray(rows), BITS, workdir, SHORT).result()
    assert again.describe() == h.describe()
    assert (workdir / "metrics.jsonl").read_text() == logged
    assert not capsys.readouterr().out


def test_what_is_compiled_is_shared_by_fits_of_equal_shapes(run, rows, tmp_path):
    before = hashers.memory_maps()  # `run` has compiled
    sigah_jax.fit(2 * rows, BITS, tmp_path / "run", SHORT | {"seed": 1})
    # hundreds, when each fit kept its own
    assert hashers.memory_maps() < before + 50


def test_codes_are_the_same_whatever_settings_of_jax_a_user_has_changed(run, rows, tmp_path):
    with (  # what JAX_ENABLE_X64=1 sets, JAX_DISABLE_JIT=1 and so on
        jax.enable_x64(True),
        jax.disable_jit(True),
        jax.numpy_dtype_promotion("strict"),
        jax.numpy_rank_promotion("raise"),
        jax.transfer_guard("disallow"),
        jax.default_prng_impl("rbg"),
        jax.threefry_partitionable(False),
        jax.debug_nans(True),
        jax.debug_infs(True),
    ):
        h = sigah_jax.fit(rows, BITS, tmp_path / "run", SHORT)
        doubled = h.encode(rows), h.encode_queries(rows), h.project_queries(rows)
    wanted = run[0].encode(rows), run[0].encode_queries(rows), run[0].project_queries(rows)
    for got, want in zip(doubled, wanted, strict=True):
        np.testing.assert_array_equal(got, want)
        assert got.dtype == want.dtype


def test_an_outlier_is_told_before_training(rows, tmp_path, capsys):
    x = rows.copy()
    x[77] = 1e10
    config = fitting.config_of(x, BITS, SHORT)
    data = datasets.assemble(x[:0], x[:0], x, config.data, "here")
    prepare.check_data(config, data, logs.Log(tmp_path / "log.txt"))
    assert "warning: vectors: row 77 lies " in capsys.readouterr().out


def test_a_run_of_another_array_or_config_is_refused(run, rows):
    workdir = run[1]
    with pytest.raises(BadInput, match="made by another config"):
        sigah_jax.fit(rows + 1, BITS, workdir, SHORT)
    with pytest.raises(BadInput, match=r"another config .*model\.bits=24 there"):
        sigah_jax.fit(rows, BITS + 8, workdir, SHORT)


def test_a_run_without_its_first_checkpoints_is_still_of_its_rows(run, rows, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(run[1], workdir)
    shutil.rmtree(workdir / "checkpoints")
    with pytest.raises(BadInput, match="made by another config"):
        sigah_jax.fit(rows + 1, BITS, workdir, SHORT)
    same = sigah_jax.fit(rows, BITS, workdir, SHORT)
    assert same.describe()["encoder"] == run[0].describe()["encoder"]


def test_a_run_that_failed_on_its_data_leaves_the_workdir_to_the_repaired_rows(rows, tmp_path):
    short, workdir = SHORT | {"train.steps": 20, "eval.every_steps": 20}, tmp_path / "run"
    bad = rows.copy()
    bad[3] = np.nan
    with pytest.raises(BadInput, match="row 3 holds NaN"):
        sigah_jax.fit(bad, BITS, workdir, short)
    h = sigah_jax.fit(rows, BITS, workdir, short | {"train.anchors": 32})
    assert h.describe()["step"] == 20
    with pytest.raises(BadInput, match=r"another config \(train.anchors=32 there\)"):
        sigah_jax.fit(rows, BITS, workdir, short)


def test_the_home_directory_may_be_written_as_a_tilde(run, rows, monkeypatch):
    h, workdir = run
    monkeypatch.setenv("HOME", str(workdir.parent))
    again = sigah_jax.fit(rows, BITS, f"~/{workdir.name}", SHORT)
    assert again.describe() == h.describe() == sigah_jax.load(f"~/{workdir.name}").describe()


def test_without_a_workdir_a_memory_map_of_halves_is_trained_on_and_nothing_kept(
    rows, tmp_path, monkeypatch
):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    np.save(tmp_path / "x.npy", rows.astype(np.float16))
    x = np.load(tmp_path / "x.npy", mmap_mode="r")
    once = SHORT | {"train.steps": 20, "eval.every_steps": 20}
    h = sigah_jax.fit(x, BITS, changes=once)
    assert h.encode(x).shape == (1000, 3) and "workdir" not in h.describe()
    assert not list((tmp_path / "tmp").iterdir())


@pytest.mark.parametrize(
    "x, bits, changes, words",
    [
        # 50 validation queries and as many for training: 100
        (np.zeros((99, 5)), 8, SHORT, "99 rows, expected at least 100: 50 validation"),
        (np.zeros((1267, 5)), 8, {}, "1267 rows, expected at least 1268: 500 validation"),
        (np.ma.masked_equal(NORMAL, NORMAL[3, 3]), 8, {}, "x: 1 values are masked; fill or drop"),
        (scipy.sparse.csr_matrix(NORMAL), 8, {}, "x: a sparse matrix.*toarray"),
        (np.zeros(5), 8, {}, r"float64 \[5\]: expected integers or floats, \[n, d\]"),
        (np.zeros((2000, 5), complex), 8, {}, "expected integers or floats"),
        (np.zeros((2000, 5)), 0, {}, "bits=0"),
        (np.zeros((2000, 5)), 8.5, {}, "bits=8.5"),
        (np.zeros((2000, 5)), 8, {"train.stepz": 5}, "config.train.stepz=5: no such field"),
        (np.zeros((2000, 5)), 8, {"trains.steps": 5}, "config.trains.steps=5: "),
        (np.zeros((2000, 5)), 8, {"seed.steps": 5}, "config.seed.steps=5: "),
        (np.zeros((2000, 5)), 8, {}, "the 1500 training rows are all equal"),
        (NORMAL * 1e-20, 8, {}, "their variance underflows float32; scale the vectors"),
        (NORMAL + 1e9, 8, {}, "float64 columns lie so far from zero.*subtract the mean row"),
        (np.zeros((2000, 5)), 8, {"train.steps": "many"}, "config.train.steps='many'"),
        (np.zeros((2000, 5)), 8, {"optim.gen_lr": 7.0}, "config.optim.gen_lr=7.0"),
        (np.full((2000, 5), np.nan), 8, {}, "row 0 holds NaN or infinity"),
        (np.zeros((2000, 5)), 8, {"data.queries": "q.npy"}, "data.queries: `fit` takes its rows"),
        (np.zeros((2000, 5)), 8, {"eval.baselines": ()}, "fits no baselines"),
        (np.zeros((2000, 5)), 8, {"train": {"steps": 5}}, "a group of fields"),
        (np.zeros((2000, 5)), 8, {"preset": "paper"}, "config.preset: `fit` takes `bits`"),
        (np.zeros((2000, 5)), 8, {"model.bits": 4}, "config.model.bits: `fit` takes `bits`"),
        (np.zeros((2000, 0)), 8, {}, r"float64 \[2000, 0\]: expected"),
        (np.zeros((2000, 5)), 8, {"train.steps": None}, "config.train.steps=None: expected int"),
        (np.zeros((2000, 5)), 8, ["train.steps"], "changes=.*: expected a dict"),
        (np.zeros((2000, 5)), 8, {3: 5}, "changes=.*: expected a dict of values by names"),
    ],
)
def test_bad_input_is_refused(tmp_path, x, bits, changes, words):
    with pytest.raises(BadInput, match=words) as e:
        sigah_jax.fit(x, bits, tmp_path / "run", changes)
    assert "\n" not in str(e.value)


def test_training_queries_of_another_kind_are_found_better_than_by_rows_alone(rows, tmp_path):
    # queries lie in three dimensions only, base rows in twelve
    basis = np.linalg.qr(np.random.default_rng(3).normal(size=(D, 3)))[0]
    queries = ((rows - rows.mean(0)) @ basis @ basis.T + rows.mean(0)).astype(np.float32)[::-1]
    asked, test = queries[:700], queries[700:]
    h = sigah_jax.fit(rows, BITS, tmp_path / "run", SHORT, queries=asked)
    told = (tmp_path / "run" / "log.txt").read_text()
    assert "1000 training rows, 650 training queries, 50 validation queries" in told
    truth = np.argsort(((test[:, None] - rows[None]) ** 2).sum(-1), 1)[:, :10]

    def recall(h):
        ids = sigah_jax.search(h, test, h.encode(rows), 10, by="hamming")[1]
        return np.mean([np.isin(row, true).mean() for row, true in zip(ids, truth, strict=True)])

    assert recall(h) > recall(sigah_jax.fit(rows, BITS, changes=SHORT)) + 0.01
    with pytest.raises(BadInput, match="made by another config"):
        sigah_jax.fit(rows, BITS, tmp_path / "run", SHORT, queries=asked[1:])


@pytest.mark.parametrize(
    "n, queries, words",
    [
        (2000, np.zeros((200, 6)), r"queries is float64 \[200, 6\]: expected .*\[m, 5\] as x"),
        (2000, np.zeros(5), r"queries is float64 \[5\]: expected"),
        (2000, NORMAL[:99], "data.val_queries: 99 training queries are too few, expected at least"),
        (47, NORMAL, "x has 47 rows, expected at least 48 training rows"),
        (2000, NORMAL * [[np.nan]], "queries: row 0 holds NaN"),
    ],
)
def test_training_queries_that_cannot_be_used_are_refused(n, queries, words, tmp_path):
    with pytest.raises(BadInput, match=words) as e:
        sigah_jax.fit(NORMAL[:n], 8, tmp_path / "run", SHORT, queries=queries)
    assert "\n" not in str(e.value)


def test_a_training_query_without_a_direction_is_named_as_such(tmp_path):
    queries = NORMAL.copy()
    queries[3] = 0
    with pytest.raises(BadInput, match=r"^queries: row 3 is all zeros"):
        sigah_jax.fit(NORMAL, 8, tmp_path / "run", SHORT, metric="cosine", queries=queries)
