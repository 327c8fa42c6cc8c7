"""What comes before the first step: checks, first arrays, graph, growth, ground truth, stages."""

import dataclasses

import jax
import numpy as np
import pytest
import sets

from sigah_jax import config
from sigah_jax.data.datasets import Dataset
from sigah_jax.errors import BadInput
from sigah_jax.retrieval import approximate, euclidean
from sigah_jax.run import logs
from sigah_jax.training import objective, prepare, stages

D, N = 20, 600


@pytest.fixture(scope="module")
def data():
    x = sets.rows(N + 100, D, 12)
    return Dataset(x[:N], x[N : N + 50], x[:0], x[:0], (), "rows")


def configuration(**train):
    c = config.vectors_config("bits=16")
    c.train.update({"anchors": 32, "graph_neighbours": 8} | train)
    c.model.input_dims = 12
    return c


def check(c, x, tmp_path):
    none = x[:0]
    with logs.Log(tmp_path / "log.txt") as log:
        prepare.check_data(c, Dataset(x, none, none, none, (), "made here", "look out"), log)
    return (tmp_path / "log.txt").read_text()


def test_the_data_are_told_with_their_warning(data, tmp_path):
    told = check(configuration(), data.xt, tmp_path)
    assert "data: made here" in told and "warning: look out" in told
    assert f"{N} training rows, 20 columns" in told  # what there is none of is not told


@pytest.mark.parametrize(
    "train, rows, words",
    [
        ({"anchors": 300}, lambda x: x, "a batch of 900 rows from a training set of 600"),
        ({"graph_neighbours": N}, lambda x: x, "expected less than the 600 training rows"),
        ({}, lambda x: 0 * x, "the 600 training rows are all equal"),
        ({}, lambda x: x * np.float32(1e-22), "their variance underflows float32"),
    ],
)
def test_rows_that_no_training_could_use_are_refused(data, tmp_path, train, rows, words):
    with pytest.raises(BadInput, match=words):
        check(configuration(**train), rows(data.xt), tmp_path)


def test_an_approximate_graph_holds_nearly_all_neighbours_however_few_lists_are_tried(tmp_path):
    z = sets.low_dimensional(600, 12)
    exact = euclidean.neighbour_graph(z, 8, "cpu")
    with logs.Log(tmp_path / "log.txt") as log:
        c = configuration(graph="approximate", graph_probes=98)  # all 4 √600 lists
        graph = prepare.neighbour_graph(c, tmp_path / "cache", z, log)
        np.testing.assert_array_equal(graph, exact)
        assert "holds 100.0% of the exact neighbours" in (tmp_path / "log.txt").read_text()
        c = configuration(graph="approximate", graph_probes=1)  # these find less than half
        graph = prepare.neighbour_graph(c, tmp_path / "cache", z, log)
        assert approximate.recall(z, graph, "cpu") >= 0.95
        assert (graph != exact).any()
        np.testing.assert_array_equal(
            prepare.neighbour_graph(configuration(), tmp_path / "cache", z, log), exact
        )
    assert len(list((tmp_path / "cache").glob("approximate_graph-*.npy"))) == 2
    assert len(list((tmp_path / "cache").glob("graph-*.npy"))) == 1


def test_a_pool_has_rows_for_a_batch_the_graph_and_validation():
    assert prepare.pool_rows(configuration()) == 500 + 500
    assert prepare.pool_rows(configuration(anchors=256)) == 500 + 3 * 256
    assert prepare.pool_rows(configuration(graph_neighbours=2000)) == 500 + 2001


def test_features_have_length_one_on_average_and_the_rotation_orthonormal_rows(data):
    standardiser, variances, rotation = prepare.first_arrays(configuration(), data.xt, 12)
    z = (data.xt - np.asarray(standardiser["mean"])) @ np.asarray(standardiser["projection"])
    np.testing.assert_allclose(z.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(z.var(0), variances, rtol=1e-3)
    assert 0.9 < (z**2).sum(1).mean() <= 1.001  # less what the dropped directions hold
    assert rotation.shape == (12, 16)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(12), atol=1e-4)


def test_graph_and_ground_truth_are_exact_and_cached(data, tmp_path):
    c = configuration()
    standardiser, *_ = prepare.first_arrays(c, data.xt, 12)
    standardiser = jax.tree.map(np.asarray, standardiser)
    with logs.Log(tmp_path / "log.txt") as log:
        made = [prepare.prepare(c, tmp_path / "cache", data, standardiser, log) for _ in range(2)]
    first, again = made
    z = (data.xt - standardiser["mean"]) @ standardiser["projection"]
    kept, d = (z**2).sum() / len(z), data.xt.shape[1]
    line = f"features: the first 12 of {d} principal directions, {kept:.1%} of variance"
    assert line in (tmp_path / "log.txt").read_text()
    distances = ((z[:, None].astype(float) - z[None]) ** 2).sum(-1)
    np.fill_diagonal(distances, np.inf)
    found = np.take_along_axis(distances, first.graph, 1)
    np.testing.assert_allclose(found, np.sort(distances, 1)[:, :8], rtol=1e-4)
    to_base = ((data.xv[:, None].astype(float) - data.xt[None]) ** 2).sum(-1)
    np.testing.assert_array_equal(first.validation_truth[:, 0], to_base.argmin(1))
    assert len(list((tmp_path / "cache").iterdir())) == 2
    np.testing.assert_array_equal(again.graph, first.graph)


def test_where_neighbours_stand_apart_they_are_as_many_and_weigh_as_the_config_says(data, tmp_path):
    c = configuration()  # of 16 bits, whose neighbours weigh 4
    standardiser, *_ = prepare.first_arrays(c, data.xt, 12)
    standardiser = jax.tree.map(np.asarray, standardiser)
    with logs.Log(tmp_path / "log.txt") as log:
        for below, weight, wanted in ((0.0, 16.0, 4), (10.0, 16.0, 16), (10.0, 2.0, 4)):
            c.apart.below, c.apart.neighbour_weight = below, weight
            made = prepare.prepare(c, tmp_path / "cache", data, standardiser, log)
            assert made.neighbour_weight == wanted and made.neighbours == (3 if below else 1)
    assert (tmp_path / "log.txt").read_text().count("nearest neighbours stand apart (") == 2


def test_a_run_has_a_training_and_two_of_the_decoder_alone(data, tmp_path):
    c = configuration(steps=100)
    c.refine.share = 0.2
    training, refit, last = stages.stages(c, tmp_path, data)
    assert training.validated and not refit.validated
    assert (training.directory, refit.directory) == (tmp_path, tmp_path / "refit")
    assert training.training.parts == ("hash", "decoder") and refit.training.parts == ("decoder",)
    assert (training.training.steps, refit.training.steps) == (100, 40)
    atoms = [stage.training.nets.gen.decoder.atoms for stage in (training, refit)]
    assert atoms == [c.model.atoms, c.refit.atoms]
    weights = refit.training.weights
    assert (weights.ordinal, weights.quantisation) == (0, 0)
    assert weights.reconstruction == c.refit.reconstruction
    assert training.training.weights == objective.Weights.of(c)
    assert last.training == refit.training._replace(steps=20)
    assert last.directory == tmp_path / "alternation"
    c.refit.share = 0.0  # the decoder of the first training goes on
    _, last = stages.stages(c, tmp_path, data)
    assert last.training.nets.gen.decoder.atoms == c.model.atoms
    c.refine.iterations = 0
    assert len(stages.stages(c, tmp_path, data)) == 1


def growth_of(z, k=16):
    z = z.astype(np.float32)
    return prepare.growth(z, euclidean.neighbour_graph(z, k, "cpu"))


def test_rows_of_one_dimension_grow_alike_at_all_scales():
    rng = np.random.default_rng(0)
    for d in (2, 8):
        assert 0.85 < growth_of(rng.random((4000, d))) < 1.15
    x = rng.random((4000, 4))
    for k in (15, 35):  # no squares, so that ranks grow by two factors, 3 and 5, 5 and 7
        assert 0.85 < growth_of(x, k) < 1.15


def test_pairs_of_near_rows_stand_apart():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(2000, 1, 8)) + 0.2 * rng.normal(size=(2000, 2, 8))
    assert growth_of(rows.reshape(-1, 8)) < 0.8


def test_equal_rows_and_few_neighbours_say_nothing():
    assert growth_of(np.zeros((100, 3))) == 1.0
    z = np.random.default_rng(0).random((50, 3)).astype(np.float32)
    assert prepare.growth(z, euclidean.neighbour_graph(z, 3, "cpu")) == 1.0
    twice = np.repeat(z, 2, 0)  # each row is there twice, its nearest is at 0
    assert prepare.growth(twice, euclidean.neighbour_graph(twice, 16, "cpu")) == 1.0


def test_training_queries_have_their_neighbours_among_the_training_rows(data, tmp_path):
    c = configuration()
    standardiser, *_ = prepare.first_arrays(c, data.xt, 12)
    standardiser = jax.tree.map(np.asarray, standardiser)
    queries = data.xt[:40] * np.float32(0.5)
    given = dataclasses.replace(data, xa=queries)
    with logs.Log(tmp_path / "log.txt") as log:
        prepare.check_data(c, given, log)
        made = prepare.prepare(c, tmp_path / "cache", given, standardiser, log)
    asked, z = ((x - standardiser["mean"]) @ standardiser["projection"] for x in (queries, data.xt))
    np.testing.assert_allclose(made.z_queries, asked, atol=1e-5)
    distances = ((asked[:, None].astype(float) - z[None]) ** 2).sum(-1)
    found = np.take_along_axis(distances, made.graph, 1)
    np.testing.assert_allclose(found, np.sort(distances, 1)[:, :8], rtol=1e-4)
    told = (tmp_path / "log.txt").read_text()
    assert "600 training rows, 40 training queries, 50 validation queries" in told
    assert "neighbours of 40 training queries, k=8" in told
    assert given.hashes.keys() - data.hashes.keys() == {"xa"}
