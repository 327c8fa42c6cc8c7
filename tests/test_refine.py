"""Codes by synthesis: flips that bring a synthetic feature nearer to its row."""

import dataclasses
import functools

import hashers
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sigah_jax.search as search
from sigah_jax import encode
from sigah_jax.devices import parallel
from sigah_jax.encoder import code_facts, hash_functions, hasher, refining, search_files
from sigah_jax.errors import BadInput
from sigah_jax.model import networks, refine
from sigah_jax.run import loading

D, BITS, MU = 20, 30, 0.01


def parts(h, x):
    """z and u of rows, the function `best_flips` of blocks, and E of codes b."""
    function = jax.jit(functools.partial(hash_functions.features_and_projections, h.nets))
    z, u, _ = (np.asarray(a) for a in function(h.params, x))
    params = {"gen": h.params["gen"], "moves": h._moves, "mu": np.float32(MU)}
    flips = jax.jit(functools.partial(refine.best_flips, h.nets))

    @jax.jit
    def energy(b):
        z_hat = networks.decode(h.nets, h.params["gen"], jnp.where(b, 1.0, -1.0))[0]
        price = MU / (z**2).sum(-1) ** 2
        return ((z - z_hat) ** 2).sum(-1) + price * (jnp.abs(u) * ((u > 0) != b)).sum(-1)

    return z, u, lambda rows: np.asarray(flips(params, rows)), energy


def refined(flips, z, u, iterations):
    """The refined codes of one block: `[n, K] bool`."""
    block = 0, (z, u, np.ones(len(z), bool))
    ((_, packed, _),) = refining.refine_blocks(flips, [block], 128, iterations)
    return np.unpackbits(packed, axis=1, count=u.shape[1]).astype(bool)


@pytest.mark.parametrize("decoder", ["ista", "mlp", "linear"])
def test_every_flip_lowers_the_objective_until_none_does(decoder):
    h, x = hashers.untrained(BITS, D, decoder=decoder, atoms=64), hashers.vectors(300, D)
    z, u, flips, energy = parts(h, x)
    before = energy(u > 0)
    for iterations in range(1, 6):
        b = refined(flips, z, u, iterations)
        now = energy(b)
        changed = (b != (u > 0)).any(1)
        assert (now <= before + 1e-6).all() and changed.any()
        before = now
    b = refined(flips, z, u, 100)
    rows = np.concatenate([z, u, np.where(b, 1, -1)], 1).astype(np.float32)
    assert not flips(rows).any()  # all are finished


def test_candidates_are_the_best_bits_alone_and_together():
    # bits 0 and 1 undo one another where they are equal, as they are in the first row
    gain = np.array([[5.0, 4.0, 3.0, 2.0, -1.0]] * 2, np.float32)
    b = np.array([[1, 1, 1, 1, 1], [1, -1, 1, 1, 1]], np.float32)
    moves = np.zeros((5, 5), np.float32)
    moves[0, 1] = moves[1, 0] = 1.5
    sets = np.asarray(refine.candidates(gain, b, moves))
    bits = [[np.flatnonzero(chosen).tolist() for chosen in row] for row in sets]
    assert bits == [[[0], [0, 2], [0, 1, 2, 3], [1]], [[0], [0, 1], [0, 1, 2, 3], [1]]]
    two = np.asarray(refine.candidates(gain[:, :2], b[:, :2], moves[:2, :2]))
    assert two[0].tolist() == [[1, 0], [1, 1], [1, 1], [0, 1]]  # no fourth bit: all there are


def test_moves_predict_what_two_flips_do_to_a_linear_decoder():
    h = hashers.untrained(BITS, D, decoder="linear")
    params, b = h.params["gen"], np.ones((1, BITS), np.float32)
    at = np.asarray(networks.decode(h.nets, params, b)[0])
    b[0, [2, 7]] = -1
    moved = np.asarray(networks.decode(h.nets, params, b)[0]) - at
    predicted = h._moves[np.ix_([2, 7], [2, 7])].sum()
    np.testing.assert_allclose((moved**2).sum(), predicted, rtol=1e-4)


def test_of_eight_bits_two_rows_in_three_end_at_the_least_of_all_codes():
    h, x = hashers.untrained(8, D, atoms=32), hashers.vectors(200, D)
    z, u, flips, energy = parts(h, x)
    every = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).astype(bool)
    least = np.min([energy(np.tile(b, (len(z), 1))) for b in every], axis=0)
    start, end = energy(u > 0), energy(refined(flips, z, u, 16))
    assert (end <= start).all()
    at_start, at_end = ((e <= least * (1 + 1e-5) + 1e-6).mean() for e in (start, end))
    assert at_end > 0.6 and at_end > 3 * at_start
    assert (end - least).mean() < 0.1 * (start - least).mean()


def test_refined_codes_are_the_same_in_blocks_of_any_size_and_nearer_to_their_rows():
    h, x = hashers.untrained(BITS, D, block_rows=64), hashers.vectors(700, D)
    plain, refined = h.encode(x), h.encode(x, refine=MU)
    error = [((h.features(x) - h.decode(c)) ** 2).sum(1).mean() for c in (plain, refined)]
    assert error[1] < 0.95 * error[0]
    for rows in (16, 4096):
        other = hashers.untrained(BITS, D, block_rows=rows).encode(x, refine=MU)
        assert (other == refined).all(1).mean() > 0.99
    np.testing.assert_array_equal(h.encode(x[:0], refine=MU), plain[:0])
    single = h.encode(x[5:6], refine=MU)
    assert np.bitwise_count(single ^ refined[5:6]).sum() <= 1


@pytest.mark.parametrize("size", [1, 7, 64, 1000])
def test_rows_of_several_blocks_are_refined_together_as_each_alone(size):
    """Rows that say how often they flip; some are bad, one block wholly, and one has no rows."""
    rng = np.random.default_rng(0)
    lengths, iterations, calls = [90, 0, 5, 200, 64, 3], 6, []
    blocks, expected, start = [], [], 0
    for i, n in enumerate(lengths):
        u = np.where(rng.random((n, 12)) < 0.5, 1, -1) * rng.integers(1, 9, (n, 12))
        z, good = rng.integers(0, 9, (n, 1)), rng.random(n) < (0.8 if i != 2 else 0)
        done = np.minimum(z, iterations)  # a round flips one bit, the next one
        bits = (u > 0) ^ (np.arange(12) < done)
        blocks.append((start, (z.astype(np.float32), u.astype(np.float32), good)))
        expected.append((start, np.packbits(bits & good[:, None], axis=1), good))
        start += n

    def flips(rows):
        calls.append(len(rows))
        u, b = rows[:, 1:13], rows[:, 13:]
        flipped = ((u > 0) != (b > 0)).sum(1)
        return (np.arange(12) == flipped[:, None]) & (flipped < rows[:, 0])[:, None]

    found = list(refining.refine_blocks(flips, blocks, size, iterations))
    assert [start for start, *_ in found] == [start for start, *_ in expected]
    for (_, packed, good), (_, wanted, there) in zip(found, expected, strict=True):
        np.testing.assert_array_equal(good, there)
        np.testing.assert_array_equal(packed, wanted)
    assert all(rows % size == 0 for rows in calls)
    rounds = [np.minimum(z[good, 0] + 1, iterations).sum() for _, (z, _, good) in blocks]
    assert sum(calls) <= sum(rounds) + iterations * size  # all calls are full but the last ones


def test_the_number_of_devices_changes_no_flip():
    h, x = hashers.untrained(BITS, D), hashers.vectors(512, D)
    z, u, flips, _ = parts(h, x)
    rows = np.concatenate([z, u, np.where(u > 0, 1, -1)], 1).astype(np.float32)
    params = {"gen": h.params["gen"], "moves": h._moves, "mu": np.float32(MU)}
    function = functools.partial(refine.best_flips, h.nets)
    for n in (1, 8):
        got = parallel.map_rows(function, 128, jax.devices()[:n])(params, rows)
        assert (got == flips(rows)).all(1).mean() > 0.99


def test_a_heavier_cost_flips_less():
    h, x = hashers.untrained(BITS, D), hashers.vectors(300, D)
    flipped = [np.bitwise_count(h.encode(x) ^ h.encode(x, refine=mu)).sum() for mu in (0.001, 1e4)]
    assert flipped[0] > 100 and flipped[1] < 5  # whose |u| is next to 0


def test_bad_rows_and_values_are_refused():
    h, x = hashers.untrained(BITS, D), hashers.vectors(200, D)
    for mu in (-1.0, np.nan, np.inf, 10**400, "a"):
        with pytest.raises(BadInput, match=r"refine=.*expected μ, 0 or more"):
            h.encode(x, refine=mu)
    x[150, 3] = np.nan
    with pytest.raises(BadInput, match="row 150 holds NaN"):
        h.encode(x, refine=MU)
    blocks = list(h.encode_blocks(lambda i, j: x[i:j], 0, 200, refine=MU))
    good = np.concatenate([g for *_, g in blocks])
    assert np.flatnonzero(~good).tolist() == [150]
    assert not np.concatenate([c for _, c, _ in blocks])[150].any()


def test_a_checkpoint_is_not_refined_and_what_is_stopped_resumes_to_the_same_codes(
    tmp_path, monkeypatch, capsys
):
    workdir = hashers.run_directory(tmp_path / "run", BITS, D)
    h = dataclasses.replace(loading.load(workdir), refinement=refining.Refinement(MU, 5))
    h.save(workdir / "encoder.npz")  # as a run that has ended leaves it
    x, output = hashers.vectors(300, D), tmp_path / "c.npy"
    np.save(tmp_path / "x.npy", x)
    argv = [f"--workdir={workdir}", f"--input={tmp_path}/x.npy", f"--output={output}"]
    assert encode.main([*argv, "--checkpoint=20"]) == 0
    np.testing.assert_array_equal(np.load(output), h.encode(x, refine=0))
    assert code_facts.read_facts(f"{output}", np.load(output))["refine"] == 0

    blocks = hasher.Hasher.encode_blocks

    def one(*arguments):
        yield next(blocks(*arguments))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(hasher.Hasher, "encode_blocks", one)
        assert encode.main([*argv, "--overwrite"]) == 130
    output.unlink()  # the whole one of before
    (tmp_path / "c.npy.json").unlink()
    for plain in ("--refine=0", "--checkpoint=20"):
        assert encode.main([*argv, plain]) == 2
        assert f"was begun with another refine ({MU}, now None)" in capsys.readouterr().err
    assert encode.main([*argv, "--overwrite"]) == 0
    packed = np.load(output)
    np.testing.assert_array_equal(packed, h.encode(x))
    assert code_facts.read_facts(f"{output}", packed)["refine"] == MU
    with pytest.raises(BadInput, match="--overwrite"):  # other codes are not mixed with these
        encode.encode_file(h, f"{tmp_path}/x.npy", output, False, False, refine=0.1)


def test_codes_of_which_nothing_is_known_may_be_plain_or_refined(tmp_path, capsys):
    h = hashers.untrained(BITS, D)
    h = dataclasses.replace(h, refinement=refining.Refinement(1e-4, 16))
    h.save(tmp_path / "e.npz")
    x, name = hashers.vectors(300, D), f"{tmp_path}/x.npy"
    np.save(name, x)
    kinds = [h.encode(x), h.encode(x, refine=0)]
    assert (
        np.bitwise_count(kinds[0] ^ kinds[1]).sum(1).mean() > 1.2 * search_files.MOST_WRONG * BITS
    )
    argv = [f"--workdir={tmp_path}/e.npz", f"--codes={tmp_path}/c.npy", f"--queries={name}"]
    argv += ["--k=3", f"--rerank={name}", f"--output={tmp_path}/o.npz", "--overwrite"]
    for packed in kinds:
        np.save(tmp_path / "c.npy", packed)
        assert search.main(argv) == 0, capsys.readouterr().err
    np.save(tmp_path / "c.npy", kinds[0][::-1])
    assert search.main(argv) == 2
    assert "does not hold the codes that" in capsys.readouterr().err


def test_refined_codes_are_not_queries_even_of_one_hash_function(tmp_path):
    h = hashers.untrained(BITS, D, query_head=False)
    np.save(tmp_path / "x.npy", hashers.vectors(300, D))
    for mu, rows_are in ((0, "both"), (MU, "base")):
        output = tmp_path / f"{rows_are}.npy"
        encode.encode_file(h, f"{tmp_path}/x.npy", output, False, False, refine=mu)
        assert code_facts.read_facts(f"{output}", np.load(output))["rows_are"] == rows_are


def test_a_file_of_refined_codes_says_so_and_is_searched(tmp_path, capsys):
    workdir = hashers.run_directory(tmp_path / "run", BITS, D)
    x, name = hashers.vectors(300, D), f"{tmp_path}/x.npy"
    np.save(name, x)
    argv = [f"--workdir={workdir}", f"--input={name}", f"--output={tmp_path}/c.npy"]
    assert encode.main([*argv, f"--refine={MU}"]) == 0
    packed = np.load(tmp_path / "c.npy")
    np.testing.assert_array_equal(packed, hashers.untrained(BITS, D).encode(x, refine=MU))
    assert code_facts.read_facts(f"{tmp_path}/c.npy", packed)["refine"] == MU
    argv = [f"--workdir={workdir}", f"--codes={tmp_path}/c.npy", f"--queries={name}", "--k=3"]
    assert search.main([*argv, f"--rerank={name}", f"--output={tmp_path}/o.npz"]) == 0
    for wrong in ("--refine=-1", "--refine=nan"):
        argv = [f"--workdir={workdir}", f"--input={name}", f"--output={tmp_path}/d.npy", wrong]
        assert encode.main(argv) == 2
        assert "expected μ, 0 or more, and no --queries" in capsys.readouterr().err
    assert encode.main([*argv[:-1], "--refine=.1", "--queries"]) == 2
