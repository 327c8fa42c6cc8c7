"""faiss's quantisers: exact bytes or a refusal, and that their ranking is that of their search."""

import faiss
import numpy as np
import pytest
from scipy.spatial.distance import cdist

from sigah_jax.baselines import quantisers
from sigah_jax.errors import BadInput, BitsRefused
from sigah_jax.retrieval import real_queries

N, D = 1500, 24


@pytest.fixture(scope="module")
def made():
    """Training rows, base and queries of one distribution, far from norm 1, and the true order."""
    rng = np.random.default_rng(0)
    mixed = rng.standard_normal((D, D)) * 0.8 ** np.arange(D)
    x = (rng.standard_normal((2 * N + 30, D)) @ mixed.T * 50 + 300).astype(np.float32)
    xt, xb, xq = x[:N], x[N : 2 * N], x[2 * N :]
    return xt, xb, xq, cdist(xq, xb).argsort(1)


def of(name, bits, made, seed=0):
    quantiser = quantisers.fit(name, seed, made[0], bits)
    quantisers.add(quantiser, made[1])
    return quantiser


def test_a_length_that_a_quantiser_has_is_exact_and_ranks_far_better_than_chance(made):
    *_, xb, xq, order = made
    exact = [
        ("opq", 16),
        ("opq_all", 16),
        ("rq", 32),
        ("rabitq", 96),
        ("sqtqmse1", 24),
        ("sqtqmse2", 48),
        ("sq8", 64),
    ]
    assert {name for name, _ in exact} == set(quantisers.NAMES)
    for name, bits in exact:
        quantiser = of(name, bits, made)
        assert 8 * quantiser.index.sa_code_size() == bits and quantiser.index.ntotal == N
        way = quantisers.way(quantiser, xq)
        values = real_queries.measure(way, xq, xb, order)
        assert values["reranked"] > 0.6, name  # by chance 100 / N = .07
        assert values["map@1000"] > 0.75, name  # by chance 2/3
        assert values["ms_per_query"] > 0
        # the search finds what the ranking says; none of these moves rows to more columns but
        # RaBitQ, which ranks by its own estimates
        d = way.distances(slice(5, 25))
        found = np.take_along_axis(d, way.search(100)[5:25], 1)
        np.testing.assert_allclose(found, np.sort(d, 1)[:, :100], 1e-3, 1e-4, err_msg=name)


def test_a_residual_quantiser_ranks_by_its_decoded_rows(made):
    *_, xq, _ = made
    quantiser = of("rq", 24, made)
    decoded = quantiser.index.reconstruct_n(0, N) / quantiser.scale + quantiser.centre
    wanted = cdist(xq, decoded) ** 2 * quantiser.scale**2
    got = quantisers.way(quantiser, xq).distances(slice(None))
    np.testing.assert_allclose(got, wanted, rtol=1e-3, atol=1e-3)


def test_the_unit_of_the_vectors_changes_no_ranking(made):
    xt, xb, xq, order = made
    wide = [0.001 * x - 7 for x in (xt, xb, xq)]
    values = [real_queries.score(quantisers.way(of("sqtqmse2", 64, m), m[2]).distances, order, N)
              for m in (made, (*wide, order))]  # fmt: skip
    assert abs(values[0]["map@1000"] - values[1]["map@1000"]) < 0.01


def test_few_rows_are_clustered_without_a_warning_each_and_to_the_same_codes(made, capfd):
    few = made[0][:300]
    for name in ("opq", "rq"):
        quantiser = quantisers.fit(name, 0, few, 16)
        assert capfd.readouterr() == ("", "")
        plain = faiss.index_factory(D, quantisers.factory_key(name, 16, D))
        drawn = few[np.random.default_rng(0).permutation(len(few))]
        plain.train((drawn - quantiser.centre) * np.float32(quantiser.scale))
        assert "WARNING" in capfd.readouterr().err  # of faiss, so that this can fail
        scaled = (few - quantiser.centre) * np.float32(quantiser.scale)
        assert (plain.sa_encode(scaled) == quantiser.index.sa_encode(scaled)).mean() > 0.99


def test_rabitq_keeps_8_bits_of_a_query(made):
    index = quantisers.fit("rabitq", 0, made[0], 96).index
    assert faiss.downcast_index(index.index).qb == 8


def test_a_seed_draws_what_is_random_and_repeats(made):
    assert set(quantisers.RANDOM) < set(quantisers.NAMES)
    one, same, other = (
        quantisers.way(of("rq", 16, made, seed), made[2]).distances(slice(None))
        for seed in (0, 0, 1)
    )
    assert (one == same).all() and not np.allclose(one, other, rtol=1e-3)


@pytest.mark.parametrize(
    "name, size, d, key",
    [
        ("opq", 8, 784, "OPQ8_64,PQ8x8"),
        ("opq_all", 8, 784, "OPQ8_784,PQ8x8"),
        ("opq_all", 16, 96, "OPQ16_96,PQ16x8"),
        ("opq_all", 8, 60, "OPQ8_64,PQ8x8"),  # 4 columns of zeros
        ("rq", 8, 96, "RQ8x8"),
        ("rq", 8, 784, "PCA128,RQ8x8"),
        ("rq", 64, 784, "PCA512,RQ64x8"),
        ("rabitq", 16, 384, "PCAR64,RaBitQ"),
        ("rabitq", 32, 96, "RR192,RaBitQ"),
        ("sqtqmse1", 8, 96, "PCAR64,SQtqmse1"),
        ("sqtqmse2", 64, 96, "RR256,SQtqmse2"),
        ("sq8", 8, 96, "PCA8,SQ8"),
    ],
)
def test_keys_of_faiss(name, size, d, key):
    assert quantisers.factory_key(name, 8 * size, d) == key


@pytest.mark.parametrize(
    "name, bits, words",
    [
        ("rq", 20, "20 bits are not whole bytes"),
        ("opq", 96, "8 columns a byte are all 24 columns; see opq_all"),
        ("opq_all", 256, "32 parts need as many columns, there are 24"),
        ("rabitq", 64, "factors alone take 8 bytes"),
        ("sq8", 256, "32 bytes need as many columns"),
    ],
)
def test_a_length_that_a_quantiser_cannot_have_is_refused_with_the_reason(name, bits, words):
    with pytest.raises(BitsRefused, match=words):
        quantisers.fit(name, 0, np.zeros((300, D), np.float32), bits)


def test_too_few_training_rows_are_named():
    with pytest.raises(BadInput, match="rq: 255 training rows, expected at least 256") as caught:
        quantisers.fit("rq", 0, np.zeros((255, D), np.float32), 16)
    assert not isinstance(caught.value, BitsRefused)
