"""What is near by cosine and by inner product: rows, encoders, exports, search and training."""

import dataclasses
import json
import pickle

import hashers
import numpy as np
import pytest
import sets

import sigah_jax
from launch import ray_encoder
from sigah_jax import encode, export, measure
from sigah_jax.data import datasets
from sigah_jax.encoder import drift, hasher
from sigah_jax.errors import BadInput
from sigah_jax.formats import vectors
from sigah_jax.retrieval import metric, neighbours, rerank
from sigah_jax.run import rundir
from sigah_jax.training import measurements

D, BITS = 12, 20
COSINE = metric.Metric("cosine")
IP = metric.of("ip", 40.0)  # longer than the rows of `hashers.vectors`


def whole_numbers(n, d=4, seed=0):
    """Rows of a small grid, of which many are equal or multiples of one another; none is zero."""
    rows = np.random.default_rng(seed).integers(-3, 4, (2 * n, d))
    return rows[np.any(rows, axis=1)][:n].astype(np.float32)


def lengthened(x, seed=0, sigma=2.0):
    """The same directions, at lengths that differ by orders of magnitude, with sigma .5 by ten."""
    return (x * np.random.default_rng(seed).lognormal(0, sigma, (len(x), 1))).astype(np.float32)


def cosines(xq, xb):
    xq, xb = xq.astype(np.float64), xb.astype(np.float64)
    return xq @ xb.T / np.linalg.norm(xq, axis=1)[:, None] / np.linalg.norm(xb, axis=1)


def measuring(of, bits=BITS, d=D, **model):
    """An untrained hasher of a metric, standardised for rows of `hashers.vectors`."""
    h = hashers.untrained_for(metric.base_rows(of, hashers.vectors(400, d)), bits, **model)
    params = h.params | {"standardiser": h.params["standardiser"] | of.arrays}
    return dataclasses.replace(h, metric=of, params=params)


def test_rows_of_l2_stay_as_they_are():
    x = np.arange(6, dtype=np.uint8).reshape(2, 3)
    assert metric.base_rows(metric.L2, x) is x and metric.queries_of(metric.L2, x) is x


@pytest.mark.parametrize("scale", [1, 1e-30, 1e30])
def test_unit_rows_have_length_one_at_every_size_that_float32_holds(scale):
    x = (hashers.vectors(50, D) - 7) * np.float32(scale)
    np.testing.assert_allclose(np.linalg.norm(metric.unit(x), axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(cosines(metric.unit(x), x).diagonal(), 1, rtol=1e-6)
    assert metric.are_unit(metric.unit(x)) and not metric.are_unit(1.01 * metric.unit(x))
    assert np.isnan(metric.unit(np.zeros((1, 3)))).all()


def test_multiples_of_a_row_are_one_point_to_the_bit():
    x = whole_numbers(200)
    for times in (2, 3, 7, 1000):
        np.testing.assert_array_equal(metric.unit(times * x), metric.unit(x))


def test_the_order_of_unit_rows_is_that_of_cosine_with_ties_by_id():
    xq, xb = whole_numbers(20), whole_numbers(300, seed=1)
    points = metric.queries_of(COSINE, xq), metric.base_rows(COSINE, xb)
    ids = neighbours.nearest_sets(*points, (40,), "cpu")
    for cosine, found in zip(np.round(cosines(xq, xb), 6), ids, strict=True):
        np.testing.assert_array_equal(np.sort(-cosine[found]), np.sort(-cosine)[:40])
    # three multiples are one point, of which the lower ids come first; the fourth is opposite
    multiples = xb[:1] * np.float32([[-1], [3], [1], [2]])
    nearest = neighbours.nearest_sets(metric.unit(xb[:1]), metric.unit(multiples), (1, 2), "cpu")
    assert nearest.tolist() == [[1, 2]]


def products(xq, xb):
    return xq.astype(np.float64) @ xb.astype(np.float64).T


def test_points_of_ip_have_length_one_and_stand_for_their_rows():
    x = lengthened(hashers.vectors(200, D))
    of = metric.of("ip", metric.longest(x))
    assert of.largest >= np.linalg.norm(x.astype(np.float64), axis=1).max()
    points, asked = metric.base_rows(of, x), metric.queries_of(of, x)
    for made in (points, asked):
        np.testing.assert_allclose(np.linalg.norm(made, axis=1), 1, rtol=1e-6)
        assert made.shape == (200, D + 1) and made.dtype == np.float32
    np.testing.assert_allclose(metric.rows_of(of, points), x, rtol=1e-5)
    assert not asked[:, -1].any()
    np.testing.assert_allclose(metric.as_queries(of, points), asked, atol=1e-6)
    # ‖a - b‖² = 2 (1 - q·x / (M ‖q‖))
    d = ((asked[:, None].astype(np.float64) - points[None]) ** 2).sum(-1)
    lengths = np.linalg.norm(x.astype(np.float64), axis=1)[:, None]
    np.testing.assert_allclose(d, 2 - 2 * products(x, x) / (of.largest * lengths), atol=1e-6)


def test_the_order_of_points_is_that_of_the_inner_product_with_duplicates_and_zeros():
    xq, xb = hashers.vectors(20, D) - 7, lengthened(hashers.vectors(300, D, 1) - 7, sigma=0.5)
    xb[[5, 200]], xb[[7, 100, 250]] = 0, xb[50]  # rows of zeros, and rows that are there twice
    of = metric.of("ip", metric.longest(xb))
    ids = neighbours.nearest_sets(
        metric.queries_of(of, xq), metric.base_rows(of, xb), range(1, 301), "cpu"
    )
    wanted = np.argsort(-products(xq, xb), axis=1, kind="stable")
    np.testing.assert_array_equal(ids, wanted)


def test_a_query_of_zeros_is_equally_far_from_all_and_a_row_of_zeros_a_point():
    zeros = np.zeros((1, D), np.int64)
    assert metric.queries_of(IP, zeros).tolist() == [[0] * (D + 1)]
    assert metric.base_rows(IP, zeros).tolist() == [[0] * D + [1]]
    # all products are 0: all rows are within a radius of at most 0, and none within a larger one
    limits = [metric.squared_limits(IP, radius, zeros).tolist() for radius in (-1.0, 0.0, 1.0)]
    assert limits == [[np.inf], [np.inf], [-np.inf]]


def test_a_longer_row_counts_as_if_it_had_the_largest_length():
    x = hashers.vectors(10, D)
    longest = metric.of("ip", metric.longest(x))
    ends = x * (longest.largest / np.linalg.norm(x, axis=1, keepdims=True))
    points = metric.base_rows(longest, 5 * ends)
    np.testing.assert_allclose(points, metric.base_rows(longest, ends), atol=1e-3)
    np.testing.assert_allclose(points[:, -1], 0, atol=1e-3)
    assert np.isnan(metric.base_rows(longest, np.float32([[np.inf] + [0] * (D - 1)]))).any()
    assert np.isnan(metric.base_rows(longest, np.full((1, D), 3e38, np.float32))).any()


@pytest.mark.parametrize("dtype", ["float32", "int16"])
def test_reranking_by_ip_is_exact_also_of_rows_longer_than_the_largest_length(dtype):
    xq, xb = whole_numbers(20), (9 * whole_numbers(300, seed=1)).astype(dtype)
    xb[[3, 77]] = 0
    candidates = np.stack([np.random.default_rng(q).permutation(300)[:80] for q in range(20)])
    d, ids = rerank.rerank(xq, xb, candidates, 10, metric.of("ip", 1.0))
    true = -np.take_along_axis(products(xq, xb), candidates, 1)
    order = np.stack([np.lexsort((c, row)) for c, row in zip(candidates, true, strict=True)])
    np.testing.assert_array_equal(ids, np.take_along_axis(candidates, order[:, :10], 1))
    np.testing.assert_array_equal(d, np.take_along_axis(true, order[:, :10], 1))


@pytest.mark.parametrize("dtype", ["float32", "int16"])
def test_reranking_gives_one_minus_the_cosine_and_the_lower_id(dtype):
    xq, xb = whole_numbers(20), whole_numbers(300, seed=1).astype(dtype)
    candidates = np.stack([np.random.default_rng(q).permutation(300)[:80] for q in range(20)])
    d, ids = rerank.rerank(xq, xb, candidates, 10, COSINE)
    true = 1 - np.take_along_axis(cosines(xq, xb), candidates, 1)
    np.testing.assert_allclose(d, np.sort(true, axis=1)[:, :10], atol=1e-6)
    np.testing.assert_allclose(d, 1 - np.take_along_axis(cosines(xq, xb), ids, 1), atol=1e-6)
    tied = d[:, 1:] == d[:, :-1]
    assert tied.any() and (np.diff(ids)[tied] > 0).all()


def test_reranking_names_a_row_that_has_no_cosine():
    xq, xb, candidates = whole_numbers(2), whole_numbers(5), np.array([[0, 3], [3, 4]])
    xb[3] = 0
    with pytest.raises(BadInput, match="base row 3 is all zeros, which have no cosine"):
        rerank.rerank(xq, xb, candidates, 1, COSINE)
    with pytest.raises(BadInput, match="query 1 is all zeros"):
        rerank.rerank(xq * [[1], [0]], xb, candidates[:, 1:] * 0, 1, COSINE)
    with pytest.raises(BadInput, match="query 1 holds values so small that float32 makes zeros"):
        rerank.rerank(xq * [[1], [1e-60]], xb, candidates[:, 1:] * 0, 1, COSINE)


@pytest.mark.parametrize("of", [COSINE, IP], ids=metric.NAMES[1:])
def test_a_hasher_makes_points_of_rows_itself(of):
    h, x = measuring(of), hashers.vectors(100, D)
    points, asked = metric.base_rows(of, x), metric.queries_of(of, x)
    for way in ("encode_queries", "both_codes", "both_projections", "project_queries", "features"):
        plain = getattr(h.euclidean, way)(asked)
        np.testing.assert_array_equal(getattr(h, way)(x), plain)
        np.testing.assert_array_equal(getattr(h, way)(4 * x), plain)  # of a query the length is
    for refine in (0, 0.001):
        codes = h.encode(x, refine=refine)
        np.testing.assert_array_equal(codes, h.euclidean.encode(points, refine=refine))
        assert (codes == h.encode(x / 4, refine=refine)).all() == (of == COSINE)
    made = h.euclidean.synthesise(codes)
    np.testing.assert_array_equal(h.synthesise(codes), metric.rows_of(of, made))
    assert h.d == D and h.synthesise(codes).shape == x.shape and h.euclidean.d == D + of.added
    told = h.describe()
    assert (told["metric"], told.get("longest", 0)) == of


def test_a_row_of_zeros_is_refused_by_its_number_and_told_apart_in_blocks():
    h, x = measuring(COSINE), hashers.vectors(100, D)
    x[37] = 0
    for way in (h.encode, h.encode_queries, h.project_queries):
        with pytest.raises(BadInput, match="vectors: row 37 is all zeros, which have no cosine"):
            way(x)
    blocks = list(h.encode_blocks(lambda i, j: x[i:j], 0, 100))
    codes, good = (np.concatenate([block[i] for block in blocks]) for i in (1, 2))
    assert np.flatnonzero(~good).tolist() == [37] and not codes[37].any()
    assert h.euclidean.encode(x).shape == (100, 3)  # of l2 it is a row like others


@pytest.mark.parametrize("of", [COSINE, IP], ids=metric.NAMES[1:])
def test_files_and_pickles_keep_the_metric_and_files_without_one_are_l2(of, tmp_path):
    h, x = measuring(of), hashers.vectors(50, D)
    h.save(tmp_path / "encoder.npz")
    for again in (sigah_jax.load(tmp_path / "encoder.npz"), pickle.loads(pickle.dumps(h))):
        assert again.metric == h.metric and again.describe() == h.describe()
        np.testing.assert_array_equal(again.encode(x), h.encode(x))
    arrays = dict(np.load(tmp_path / "encoder.npz"))
    about = json.loads(str(arrays.pop("about")))
    for given, wanted in ((None, "l2"), ("manhattan", None)):
        about["metric"] = given
        held = {name: value for name, value in about.items() if value is not None}
        np.savez(tmp_path / "other.npz", about=json.dumps(held), **arrays)
        if wanted:
            assert sigah_jax.load(tmp_path / "other.npz").metric.name == wanted
        else:
            with pytest.raises(BadInput, match="its metric is 'manhattan', of a newer version"):
                sigah_jax.load(tmp_path / "other.npz")


@pytest.mark.parametrize("of", [COSINE, IP], ids=metric.NAMES[1:])
@pytest.mark.parametrize("suffix", [".npz", ".stablehlo", ".onnx"])
def test_exported_encoders_make_points_of_rows_themselves(of, suffix, tmp_path):
    if suffix == ".onnx":
        pytest.importorskip("onnxruntime")
    h, x = measuring(of), lengthened(hashers.vectors(300, D))
    x[8] = 0 if of == IP else x[8]
    path = tmp_path / f"encoder{suffix}"
    assert export.export(h, path, overwrite=False).largest < export.MARGIN
    run = export.FORMATS[suffix][1](path.read_bytes())
    codes, query_codes, u = run(x)
    np.testing.assert_allclose(u, h.project_queries(x), atol=2e-5)
    for packed, wanted in ((codes, h.encode(x)), (query_codes, h.encode_queries(x))):
        assert np.bitwise_count(packed ^ wanted).mean() < 0.01
    assert [y.shape[0] for y in run(x[:0])] == [0, 0, 0]


@pytest.mark.parametrize("of", [COSINE, IP], ids=metric.NAMES[1:])
def test_a_search_ranks_and_reranks_by_the_metric_of_its_hasher(of):
    h, xb, xq = measuring(of), lengthened(hashers.vectors(300, D)), hashers.vectors(20, D, 1)
    codes = h.encode(xb)
    d, _ids = sigah_jax.search(h, xq, codes, 10, rerank=xb, oversample=30)  # all are candidates
    true = 1 - cosines(xq, xb) if of == COSINE else -products(xq, xb)
    np.testing.assert_allclose(d, np.sort(true, axis=1)[:, :10], rtol=1e-5, atol=1e-6)
    same = sigah_jax.search(h, 8 * xq, codes, 10)[1], sigah_jax.search(h, xq, codes, 10)[1]
    np.testing.assert_array_equal(*same)
    xq[5] = 0
    if of == IP:  # all rows are equally near
        assert sigah_jax.search(h, xq, codes, 4, rerank=xb, oversample=75)[1][5].tolist() == [
            *range(4)
        ]
        return
    with pytest.raises(BadInput, match="queries: vectors: row 5 is all zeros"):
        sigah_jax.search(h, xq, codes, 10)


SHORT = {
    "data.val_queries": 50,
    "train.steps": 40,
    "train.anchors": 16,
    "train.graph_neighbours": 8,
    "eval.block_rows": 128,
    "eval.every_steps": 40,
    "model.hash_widths": (16,),
    "model.dis_widths": (8,),
    "model.decoder": "linear",  # compiled in less time
}


def test_a_training_by_cosine_is_one_by_l2_on_unit_rows(tmp_path, capsys):
    x = lengthened(sets.rows(600, D, 6))
    h = sigah_jax.fit(x, BITS, tmp_path / "cosine", SHORT, metric="cosine")
    assert "metric: cosine" in capsys.readouterr().out
    same = sigah_jax.fit(metric.unit(x), BITS, tmp_path / "l2", SHORT)
    told = capsys.readouterr().out
    assert told.count("metric: l2; the training rows have unit length, so that cosine and") == 1
    assert (h.metric, same.metric) == (COSINE, metric.L2)
    assert h.describe()["encoder"] == same.describe()["encoder"]
    assert sigah_jax.load(tmp_path / "cosine", "latest").metric == COSINE
    with pytest.raises(BadInput, match=r"another config \(data.metric=cosine there\)"):
        sigah_jax.fit(x, BITS, tmp_path / "cosine", SHORT)


def test_a_training_by_ip_resumes_and_finds_what_cosine_and_l2_do_not(tmp_path, capsys):
    x = lengthened(sets.rows(700, D, 6))
    xb, xq = x[:600], x[600:] - 3
    short = SHORT | {"train.steps": 80, "train.steps_per_call": 20}
    h = sigah_jax.fit(xb, BITS, tmp_path / "ip", short, metric="ip")
    assert "metric: ip; the longest row has length" in capsys.readouterr().out
    longest = np.linalg.norm(xb.astype(np.float64), axis=1).max()
    assert h.metric.name == "ip" and h.metric.largest == pytest.approx(longest, rel=1e-6)
    again = sigah_jax.load(tmp_path / "ip", "latest")
    assert again.metric == h.metric and again.d == h.d == D
    # a run that lost its encoder resumes from its last checkpoint to the same
    (tmp_path / "ip" / "encoder.npz").unlink()
    resumed = sigah_jax.fit(xb, BITS, tmp_path / "ip", short, metric="ip")
    assert resumed.describe()["encoder"] == h.describe()["encoder"]

    def recall(h):
        near = np.argsort(-products(xq, xb), axis=1)[:, :10]
        ids = sigah_jax.search(h, xq, h.encode(xb), 10, by="hamming")[1]
        return np.mean([np.isin(row, true).mean() for row, true in zip(ids, near, strict=True)])

    once = short | {"refine.iterations": 0, "refit.share": 0}  # compiled in less time
    others = [sigah_jax.fit(xb, BITS, changes=once, metric=name) for name in ("l2", "cosine")]
    assert recall(h) > max(map(recall, others)) + 0.05


@pytest.mark.parametrize(
    "how, words",
    [
        (
            {"metric": "cosin"},
            r"config.data.metric='cosin': expected one of \('l2', 'cosine', 'ip'\)",
        ),
        ({"metric": None}, "config.data.metric=None"),
        ({"changes": {"data.metric": "cosine"}}, "config.data.metric: `fit` takes"),
    ],
)
def test_a_metric_that_there_is_not_is_refused(how, words):
    with pytest.raises(BadInput, match=words) as e:
        sigah_jax.fit(hashers.vectors(2000, D), BITS, **how)
    assert "\n" not in str(e.value)


def test_a_row_of_zeros_in_a_file_is_named_before_a_training(tmp_path):
    data = hashers.configuration(BITS).data
    data.update({"metric": "cosine", "base": "mine.npy"})
    x = hashers.vectors(3000, D)
    x[2500] = 0
    with pytest.raises(BadInput, match=r"mine\.npy: row 2500 is all zeros"):
        datasets.assemble(x, None, None, data, "here")
    x = x.astype(np.float64)
    x[2400] = 1e-60
    with pytest.raises(BadInput, match=r"mine\.npy: row 2400 holds values so small"):
        datasets.assemble(x, None, None, data, "here")


@pytest.mark.parametrize("of, rows_are", [(COSINE, "both"), (IP, "base")])
def test_codes_of_one_hash_function_are_of_queries_too_only_where_points_are(
    of, rows_are, tmp_path
):
    h, x = measuring(of, query_head=False), hashers.vectors(50, D)
    assert (h.encode(x) == h.encode_queries(x)).all() == (of == COSINE)
    np.save(tmp_path / "x.npy", x)
    encode.encode_file(h, str(tmp_path / "x.npy"), tmp_path / "c.npy", False, False)
    assert json.loads((tmp_path / "c.npy.json").read_text())["of"]["rows_are"] == rows_are


@pytest.mark.parametrize("of", [COSINE, IP], ids=metric.NAMES[1:])
def test_figures_of_drift_are_of_points(of):
    h, x = measuring(of), hashers.vectors(50, D)
    assert drift.figures(h, x) == drift.figures(h.euclidean, metric.base_rows(of, x))
    assert drift.figures(h, x) != drift.figures(h.euclidean, metric.base_rows(of, x[:, ::-1]))


@pytest.mark.parametrize("of", [COSINE, IP], ids=metric.NAMES[1:])
def test_fragments_on_a_cluster_have_the_codes_of_the_whole(of, tmp_path):
    h, x = measuring(of), hashers.vectors(100, D)
    np.save(tmp_path / "x.npy", x)
    sent = hasher.unpacked(hasher.to_bytes(h))
    opened = vectors.open_file(str(tmp_path / "x.npy"))
    parts = [ray_encoder.fragment_codes(sent, opened, *rows) for rows in ((0, 37), (37, 100))]
    assert all(good.all() for _, good, _ in parts)
    np.testing.assert_array_equal(np.concatenate([codes for codes, *_ in parts]), h.encode(x))
    lengths = [longest for *_, longest in parts]
    wanted = [metric.longest(x[:37]), metric.longest(x[37:])] if of == IP else [0, 0]
    assert lengths == wanted


@pytest.mark.parametrize("of", [COSINE, IP], ids=metric.NAMES[1:])
def test_encode_tells_of_rows_longer_than_those_of_training(of, tmp_path, capsys):
    h, x = measuring(of), hashers.vectors(100, D)
    h.save(tmp_path / "encoder.npz")
    x[70:72] *= [[1e4], [np.nan]]
    np.save(tmp_path / "x.npy", x)
    argv = [f"--workdir={tmp_path / 'encoder.npz'}", f"--input={tmp_path / 'x.npy'}", "--skip_bad"]
    for output, more, told in (("c", [], of == IP), ("q", ["--queries"], False)):
        assert encode.main([*argv, f"--output={tmp_path / output}.npy", *more]) == 0
        out = capsys.readouterr().out
        longest = f"the longest row has length {np.linalg.norm(x[70]):.6g}, that of training 40;"
        assert (longest in out) == told and out.count("\n") == 1 + told
    codes, good = np.load(tmp_path / "c.npy"), np.arange(100) != 71
    np.testing.assert_array_equal(codes[good], h.encode(x[good]))
    np.save(tmp_path / "y.npy", x[:50])  # none is longer, but one before them was
    argv[1:] = [f"--input={tmp_path / 'y.npy'}", f"--output={tmp_path / 'c.npy'}", "--append"]
    assert encode.main([*argv, "--skip_bad"]) == 0
    assert (longest in capsys.readouterr().out) == (of == IP)


def test_the_longest_row_is_found_in_any_block_and_rows_without_a_code_do_not_count(monkeypatch):
    monkeypatch.setattr(metric, "BLOCK_ROWS", 7)
    x = hashers.vectors(100, D)
    for row in (0, 6, 7, 99):
        longer = x.copy()
        longer[row] *= 100
        longer[[3, 50]] = np.nan
        longer[[4, 51]] = 1e30  # its square overflows
        assert metric.longest(longer) == pytest.approx(100 * np.linalg.norm(x[row]), rel=1e-6)
    assert metric.longest(x[:0]) == 0


def test_a_base_is_scaled_in_blocks(monkeypatch):
    x = hashers.vectors(100, D)
    monkeypatch.setattr(datasets, "BLOCK_ROWS", 7)
    np.testing.assert_array_equal(datasets.points(metric.base_rows, COSINE, x), metric.unit(x))
    for make in (metric.base_rows, metric.queries_of):
        points = datasets.points(make, IP, x.astype(np.float16))
        np.testing.assert_array_equal(points, make(IP, x.astype(np.float16)))
        assert points.dtype == np.float32
    assert datasets.points(metric.base_rows, metric.L2, x) is x


@pytest.mark.parametrize("of", [COSINE, IP], ids=metric.NAMES[1:])
def test_measure_counts_what_is_near_by_the_metric(of):
    x = hashers.vectors(330, D)
    xb, xq = metric.base_rows(of, x[30:]), metric.queries_of(of, x[:30])
    data = datasets.Dataset(xb, xq, xb, xq, (), "here", metric=of)
    h = measuring(of).euclidean
    nearness = cosines if of == COSINE else products
    truth = np.argsort(-nearness(x[:30], x[30:]), axis=1)[:, :5]
    codes = h.encode(xb)
    asked = measurements.Search(data, 5, 60, truth, "cpu", 16)  # all rows are candidates
    find = lambda k: sigah_jax.search(h, xq, codes, k, by="hamming")[1]  # noqa: E731
    found = measurements.found_and_reranked(find, asked)
    assert found["reranked"].recall == 1 > found["alone"].recall
    assert measurements.exact(asked).code_bytes == 4 * D


def test_measure_keeps_directories_of_other_metrics_apart(tmp_path, capsys):
    np.save(tmp_path / "x.npy", hashers.vectors(2400, D))
    argv = [f"--input={tmp_path / 'x.npy'}", "--bits=8", f"--workdir={tmp_path / 'm'}"]
    config = measure.make_config(measure.parse([*argv, "--metric=cosine"]), 8)
    assert config.data.metric == "cosine"
    rundir.claim(tmp_path / "m" / "bits8", config).close()
    for given, words in (
        ([], "bits8 there is of --metric=cosine, now l2; use another --workdir"),
        (["--metric=dot"], "--metric: invalid choice: 'dot' (choose from "),
    ):
        assert measure.main([*argv, *given]) == 2
        told = capsys.readouterr().err
        assert words in told and told.count("\n") == 1


def test_a_hasher_of_an_unknown_metric_is_refused():
    with pytest.raises(ValueError, match="its metric is 'hamming'"):
        metric.kept("hamming", {})
