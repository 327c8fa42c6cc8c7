"""The command, from files to an .npz file, and all that it refuses."""

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from hashers import run_directory, vectors

import sigah_jax.search as search
from sigah_jax import encode
from sigah_jax.encoder import radius, search_files
from sigah_jax.files import resumable
from sigah_jax.retrieval import metric, topk
from sigah_jax.run import loading

BITS, D = 20, 6  # 3 bytes a code, the last of which is not full
ENCODER = r"--codes=.*encoded.npy: .*encoded.npy.json names encoder [0-9a-f]{16}, "
WITHIN = {"workdir": "h.npz", "k": None, "radius": 4.5}
BAD = [0, 1, 7, *range(100, 150), 499]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A directory of a run, vectors and their codes."""
    path = tmp_path_factory.mktemp("search")
    h = loading.load(run_directory(path / "run", BITS, D))
    xb, xq = vectors(500, D, 1), vectors(12, D, 2)
    np.save(path / "xb.npy", xb)
    np.save(path / "xq.npy", xq)
    np.save(path / "cb.npy", h.encode(xb))
    np.save(path / "cq.npy", h.encode_queries(xq))
    run_directory(path / "another", BITS, D, seed=1)
    np.save(path / "other.npy", vectors(500, D, 9))
    np.save(path / "wide.npy", np.zeros((500, 4), np.uint8))
    run_directory(path / "more_bits", BITS + 2, D)  # 3 bytes a code too
    dataclasses.replace(h, metric=metric.Metric("cosine")).save(path / "cosine.npz")
    for run, name, output in (
        ("run", "xb.npy", "encoded.npy"),
        ("run", "xq.npy", "encoded_q.npy"),
        ("another", "xq.npy", "another_q.npy"),
    ):
        command = [f"--workdir={path / run}", f"--input={path / name}", f"--output={path / output}"]
        assert encode.main(command + ["--queries"] * (name == "xq.npy")) == 0
    xb[7], xq[4] = np.nan, np.nan
    np.save(path / "bad.npy", xb)
    xb[BAD] = np.nan
    np.save(path / "gaps.npy", xb)
    command = [f"--workdir={path / 'run'}", f"--input={path / 'gaps.npy'}", "--skip_bad"]
    assert encode.main([*command, f"--output={path / 'gaps_c.npy'}"]) == 0
    assert encode.main([*command, f"--output={path / 'gaps_q.npy'}", "--queries"]) == 0
    symmetric = run_directory(path / "symmetric", BITS, D, query_head=False)
    command = [f"--workdir={symmetric}", f"--input={path / 'xq.npy'}"]
    assert encode.main([*command, f"--output={path / 'symmetric.npy'}"]) == 0
    np.save(path / "nan.npy", xq)
    held_out = vectors(100, D, 3)
    pairs = radius.pairs_of(h, held_out, vectors(400, D, 4), h.encode(vectors(400, D, 4)))
    dataclasses.replace(h, pairs=pairs).save(path / "h.npz")
    return path


def flags(made, output, **more):
    """Flags of a search of codes by codes; `workdir` makes it one by vectors, None drops one."""
    given = {"codes": made / "cb.npy", "queries": made / "cq.npy", "k": 7, "output": output}
    if "workdir" in more:
        given["queries"] = made / "xq.npy"
    given |= more
    line = [f"--{name}={value}" for name, value in given.items() if value not in (None, True)]
    return line + [f"--{name}" for name, value in given.items() if value is True]


def found(output):
    with np.load(output) as f:
        assert sorted(f) == ["distances", "ids"]
        return f["distances"], f["ids"]


def found_within(output):
    with np.load(output) as f:
        assert sorted(f) == ["distances", "ids", "lims"]
        return f["lims"], f["distances"], f["ids"]


def differing(made, packed):
    """How many bits of codes `[Q, W]` and of the base differ, `[Q, n]`."""
    return np.bitwise_count(packed[:, None] ^ np.load(made / "cb.npy")).sum(-1, dtype=int)


def order(d, k):
    """The k least distances of each row and where they are; ties to the lower id."""
    ids = np.argsort(d, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(d, ids, 1), ids


def hamming_order(made, k):
    return order(differing(made, np.load(made / "cq.npy")), k)


def both_order(made, k):
    """By the code of a query, twice, and by the code that it has as a base row."""
    as_base = loading.load(made / "run").encode(np.load(made / "xq.npy"))
    return order(2 * differing(made, np.load(made / "cq.npy")) + differing(made, as_base), k)


@pytest.mark.parametrize("engine", ["auto", "cpu", "accelerator"])
def test_codes_by_codes(made, tmp_path, capsys, engine):
    output = tmp_path / "near.npz"
    assert search.main(flags(made, output, k=50, engine=engine)) == 0
    out = capsys.readouterr().out
    assert "50 neighbours of 12 queries among 500 codes of 3 bytes" in out
    assert f"cb.npy: no {made / 'cb.npy'}.json names the encoder" in out and out.count("\n") == 2
    d, ids = found(output)
    expected_d, expected_ids = hamming_order(made, 50)
    np.testing.assert_array_equal(ids, expected_ids)
    np.testing.assert_array_equal(d, expected_d)
    assert d.dtype == np.int32 and ids.dtype == np.int64
    assert [p.name for p in tmp_path.iterdir()] == ["near.npz"]


def test_vectors_are_encoded_by_the_run(made, tmp_path):
    output = tmp_path / "near.npz"
    for by, wanted in (("both", both_order), ("hamming", hamming_order)):
        more = {"by": by, "overwrite": True}
        assert search.main(flags(made, output, workdir=made / "run", k=50, **more)) == 0
        for one, other in zip(found(output), wanted(made, 50), strict=True):
            np.testing.assert_array_equal(one, other)


def test_both_codes_of_a_file_of_queries_rank_together(made, tmp_path):
    argv = [f"--workdir={made / 'run'}", f"--input={made / 'xq.npy'}", "--queries=both"]
    assert encode.main([*argv, f"--output={tmp_path / 'cq.npy'}"]) == 0
    more = {"queries": tmp_path / "cq.npy", "codes": made / "encoded.npy", "by": "both"}
    assert search.main(flags(made, tmp_path / "near.npz", k=50, **more)) == 0
    for one, other in zip(found(tmp_path / "near.npz"), both_order(made, 50), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(("oversample", "count"), [(None, 70), (3, 21), (100, 500)])
def test_reranks_the_nearest_codes_by_vectors(made, tmp_path, oversample, count):
    # 7 neighbours of 70, of 21, and of 700, which is more than there are
    output = tmp_path / "near.npz"
    more = {"workdir": made / "run", "rerank": made / "xb.npy", "oversample": oversample}
    assert search.main(flags(made, output, by="both", **more)) == 0
    d, ids = found(output)
    xq, xb = np.load(made / "xq.npy"), np.load(made / "xb.npy")
    exact = ((xq[:, None].astype(float) - xb) ** 2).sum(-1)
    outside = np.ones_like(exact, bool)
    np.put_along_axis(outside, both_order(made, count)[1], False, 1)
    exact[outside] = np.inf
    np.testing.assert_array_equal(ids, np.argsort(exact, axis=1)[:, :7])
    np.testing.assert_allclose(d, np.sort(exact, axis=1)[:, :7], rtol=1e-5)
    assert d.dtype == np.float32 and ids.dtype == np.int64


def test_real_queries_by_projection(made, tmp_path):
    output = tmp_path / "near.npz"
    assert search.main(flags(made, output, workdir=made / "run", by="projection")) == 0
    d, ids = found(output)
    u = loading.load(made / "run").both_projections(np.load(made / "xq.npy")).astype(float)
    b = np.unpackbits(np.load(made / "cb.npy"), axis=1, count=BITS)
    exact = (np.abs(u)[:, None] * ((u > 0)[:, None] != b)).sum(-1)
    np.testing.assert_allclose(d, np.sort(exact, axis=1)[:, :7], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(np.take_along_axis(exact, ids, 1), d, rtol=1e-4, atol=1e-5)
    assert d.dtype == np.float32


def test_real_queries_by_what_the_decoder_makes_of_the_nearest_codes(made, tmp_path):
    output = tmp_path / "near.npz"
    more = {"workdir": made / "run", "candidates": 21}
    assert search.main(flags(made, output, **more)) == 0
    d, ids = found(output)
    h = loading.load(made / "run")
    z, synthetic = h.features(np.load(made / "xq.npy")), h.decode(np.load(made / "cb.npy"))
    exact = ((z[:, None].astype(float) - synthetic) ** 2).sum(-1)
    outside = np.ones_like(exact, bool)
    np.put_along_axis(outside, both_order(made, 21)[1], False, 1)
    exact[outside] = np.inf
    np.testing.assert_allclose(d, np.sort(exact, axis=1)[:, :7], rtol=1e-4)
    np.testing.assert_allclose(np.take_along_axis(exact, ids, 1), d, rtol=1e-4)


def test_the_stages_are_told_one_after_the_other(made, tmp_path, capsys):
    more = {"workdir": made / "run", "candidates": 50, "overwrite": True}
    assert search.main(flags(made, tmp_path / "near.npz", **more)) == 0
    told = "50 nearest by both codes of the query, by synthetic features, "
    assert told in capsys.readouterr().out
    more |= {"rerank": made / "xb.npy", "oversample": 10}  # of which 70 are re-ranked
    assert search.main(flags(made, tmp_path / "near.npz", **more)) == 0
    told = "70 nearest by both codes of the query, 70 nearest by synthetic features, re-ranked by "
    assert told in capsys.readouterr().out


def test_candidates_by_projection_are_reranked_by_vectors(made, tmp_path):
    for by, oversample in (("projection", 100), ("hamming", 100)):  # all rows are candidates
        more = {"workdir": made / "run", "rerank": made / "xb.npy", "oversample": oversample}
        assert search.main(flags(made, tmp_path / f"{by}.npz", by=by, **more)) == 0
    one, other = found(tmp_path / "projection.npz"), found(tmp_path / "hamming.npz")
    np.testing.assert_array_equal(one[1], other[1])


@pytest.mark.parametrize("rows", [1, 100, 10**6])  # of a block
@pytest.mark.parametrize(
    "more",
    [
        {"queries": "cq.npy"},
        {"workdir": "run"},
        {"workdir": "run", "by": "projection"},
        {"workdir": "run", "by": "both"},
        {"workdir": "run", "rerank": "gaps.npy"},
        {"workdir": "run", "rerank": "gaps.npy", "by": "projection", "k": 446},
    ],
)
def test_bad_rows_are_as_if_they_were_not_there(made, tmp_path, monkeypatch, capsys, rows, more):
    # the same search of a file of the good rows alone, whose ids are then places in `good`
    good = np.setdiff1d(np.arange(500), BAD)  # 446
    for name, of in (("codes", "gaps_c.npy"), ("rerank", "gaps.npy")):
        np.save(tmp_path / f"{name}.npy", np.load(made / of)[good])
    named = {"queries", "rerank", "workdir"}
    more = {name: made / value if name in named else value for name, value in more.items()}
    alone = more | ({"rerank": tmp_path / "rerank.npy"} if "rerank" in more else {})
    alone |= {"codes": tmp_path / "codes.npy"}
    assert search.main(flags(made, tmp_path / "alone.npz", **alone)) == 0
    monkeypatch.setattr(search.gaps, "COPY_BYTES", rows * (3 + 8))
    capsys.readouterr()
    more |= {"codes": made / "gaps_c.npy"}
    assert search.main(flags(made, tmp_path / "near.npz", **more)) == 0
    assert "among 446 codes" in capsys.readouterr().out
    (d, ids), (d_alone, ids_alone) = (found(tmp_path / f) for f in ("near.npz", "alone.npz"))
    np.testing.assert_array_equal(ids, good[ids_alone])
    np.testing.assert_array_equal(d, d_alone)


@pytest.mark.parametrize("boolean", [False, True])
@pytest.mark.parametrize(
    "more",
    [
        {"queries": "cq.npy"},
        {"workdir": "run"},
        {"workdir": "run", "by": "both", "rerank": "gaps.npy"},
    ],
)
def test_a_subset_is_as_if_the_file_held_these_rows_alone(made, tmp_path, capsys, more, boolean):
    kept = np.arange(3, 500, 7)
    good = np.setdiff1d(kept, BAD)
    np.save(tmp_path / "only.npy", np.isin(np.arange(500), kept) if boolean else kept[::-1])
    for name, of in (("codes", "gaps_c.npy"), ("rerank", "gaps.npy")):
        np.save(tmp_path / f"{name}.npy", np.load(made / of)[good])
    named = {"queries", "rerank", "workdir"}
    more = {name: made / value if name in named else value for name, value in more.items()}
    alone = more | ({"rerank": tmp_path / "rerank.npy"} if "rerank" in more else {})
    alone |= {"codes": tmp_path / "codes.npy"}
    assert search.main(flags(made, tmp_path / "alone.npz", **alone)) == 0
    capsys.readouterr()
    more |= {"codes": made / "gaps_c.npy", "only": tmp_path / "only.npy"}
    assert search.main(flags(made, tmp_path / "near.npz", **more)) == 0
    assert f"among {len(good)} of 500 codes" in capsys.readouterr().out
    (d, ids), (d_alone, ids_alone) = (found(tmp_path / f) for f in ("near.npz", "alone.npz"))
    np.testing.assert_array_equal(ids, good[ids_alone])
    np.testing.assert_array_equal(d, d_alone)


@pytest.mark.parametrize(
    ("only", "words"),
    [
        ([3, 500], "--only=only.npy: holds row 500, but rows are numbered 0 to 499"),
        ([3, 4, 3], "--only=only.npy: holds row 3 twice; give each row once"),
        ([True] * 499, "--only=only.npy: holds 499 booleans, expected one for each of 500 codes"),
        ([1.5], "--only=only.npy: holds float64 [1]; give row numbers [n], or a boolean"),
        ([3, 4], "--k=7: --only=only.npy leaves 2 codes of "),
        ([], "leaves 0 codes of "),
        ([None], "only.npy: cannot be read as npy (Object arrays cannot be loaded"),
        (None, "only.npy: cannot be read (No such file"),
    ],
)
def test_what_is_no_subset_of_the_codes_is_refused(
    made, tmp_path, capsys, monkeypatch, only, words
):
    monkeypatch.chdir(tmp_path)
    if only is not None:
        np.save("only.npy", np.array(only))
    assert words in refused(made, tmp_path, capsys, only="only.npy")


@pytest.mark.parametrize(
    "more",
    [
        {"workdir": "run"},
        {"workdir": "run", "by": "projection"},
        {"workdir": "run", "by": "both"},
        {"queries": "encoded_q.npy"},
    ],
)
def test_codes_of_the_encoder_of_the_queries_need_no_remark(made, tmp_path, capsys, more):
    named = {"queries", "workdir"}
    more = {name: made / value if name in named else value for name, value in more.items()}
    more["codes"] = made / "encoded.npy"
    assert search.main(flags(made, tmp_path / "near.npz", **more)) == 0
    assert capsys.readouterr().out.count("\n") == 1


def test_codes_without_a_query_head_may_be_base_and_queries(made, tmp_path, capsys):
    both = {"codes": made / "symmetric.npy", "queries": made / "symmetric.npy"}
    assert search.main(flags(made, tmp_path / "near.npz", **both)) == 0
    d, ids = found(tmp_path / "near.npz")
    assert (d[:, 0] == 0).all() and ids.shape == (12, 7)


def test_all_rows_within_a_radius(made, tmp_path, capsys):
    h, xq, xb = loading.load(made / "h.npz"), np.load(made / "xq.npy"), np.load(made / "xb.npy")
    only, bad = np.arange(0, 500, 3), np.array(BAD)
    np.save(tmp_path / "only.npy", only)
    every = {"workdir": made / "h.npz", "k": None, "radius": 4.5, "overwrite": True}
    for more, options, told in (
        ({}, {}, "500 codes of 3 bytes, by synthetic features (validation queries found 95."),
        ({"recall": 0.8, "rerank": made / "xb.npy"}, {"recall": 0.8, "rerank": xb}, "xb.npy left"),
        ({"only": tmp_path / "only.npy"}, {"only": only}, "among 167 of 500 codes"),
        ({"codes": made / "gaps_c.npy"}, {"missing": bad}, "among 446 codes"),
    ):
        assert search.main(flags(made, tmp_path / "near.npz", **every, **more)) == 0
        cb = np.load(more.get("codes", made / "cb.npy"))
        wanted = radius.range_search(h, xq, cb, 4.5, **options)
        for one, other in zip(found_within(tmp_path / "near.npz"), wanted, strict=False):
            np.testing.assert_array_equal(one, other)
            assert one.dtype == other.dtype
        out = capsys.readouterr().out
        assert f"{len(wanted.ids) / 12:.1f} rows within 4.5 of each of 12 queries" in out
        assert told in out and f"{wanted.precision:.1%} of what they found lay" in out
        assert len(wanted.ids) > 12


def earlier(facts):
    """Facts as versions without a hash of the facts and a CRC-32 of the codes wrote them."""
    return {field: facts[field] for field in ("of", "rows", "bad")}


def test_refuses_what_is_not_about_the_codes_beside_it(made, tmp_path, capsys):
    codes, facts = tmp_path / "c.npy", tmp_path / "c.npy.json"
    shutil.copy(made / "encoded.npy", codes)
    now = json.loads((made / "encoded.npy.json").read_text())
    old = earlier(now)
    for state in ([], 3, None, now | {"bad": [3]}, now | {"rows": "500"}):
        facts.write_text(json.dumps(state))
        assert f"{facts}: damaged (" in refused(made, tmp_path, capsys, codes=codes)
    facts.write_text(json.dumps(now)[:-1])
    assert f"{facts}: damaged (" in refused(made, tmp_path, capsys, codes=codes)
    bad = ("no", 3, None, ["1"], [1.5], [-1], [500], [3, 3], [[1]], [10**30])
    of = old["of"] | {"bits": "20"}
    for state in ({}, old | {"of": 3}, old | {"of": of}, *(old | {"bad": b} for b in bad)):
        facts.write_text(json.dumps(state))
        err = refused(made, tmp_path, capsys, codes=codes)
        assert f"{facts}: cannot be read as what `encode` leaves" in err
    facts.write_text(json.dumps(old | {"rows": 400}))
    err = refused(made, tmp_path, capsys, codes=codes)
    assert f"{facts}: is about 400 codes of 3 bytes, {codes} holds 500 of 3" in err


def test_codes_that_were_damaged_or_replaced_are_refused(made, tmp_path, capsys):
    codes, facts = tmp_path / "c.npy", tmp_path / "c.npy.json"
    shutil.copy(made / "encoded.npy", codes)
    shutil.copy(made / "encoded.npy.json", facts)
    with codes.open("r+b") as f:
        f.seek(-1, 2)
        f.write(b"\x01")
    err = refused(made, tmp_path, capsys, codes=codes)
    assert f"{facts}: is about codes whose CRC-32 differs from that of {codes}" in err
    # earlier versions wrote no CRC-32: their facts are taken as they are
    facts.write_text(json.dumps(earlier(json.loads(facts.read_text()))))
    more = {"queries": made / "encoded_q.npy", "codes": codes}
    assert search.main(flags(made, tmp_path / "near.npz", **more)) == 0


@pytest.mark.parametrize(("at_codes", "at_facts"), [(i, j) for j in range(4) for i in range(j + 1)])
def test_a_search_while_an_overwrite_ends_takes_codes_and_facts_of_one_version(
    made, tmp_path, monkeypatch, at_codes, at_facts
):
    """Codes are read after `at_codes` steps of the end of `encode`, facts after `at_facts`."""
    codes = tmp_path / "c.npy"
    facts, partial = (resumable.beside(codes, end) for end in (".json", ".partial"))
    for name, whole in (("gaps_c.npy", codes), ("encoded.npy", partial)):
        shutil.copy(made / name, whole)
        shutil.copy(made / f"{name}.json", resumable.beside(whole, ".json"))
    steps = [
        codes.unlink,
        lambda: shutil.copy(resumable.beside(partial, ".json"), facts),
        lambda: os.replace(partial, codes),
    ]
    read = search_files.read_file

    def end(count):
        while len(steps) > 3 - count:
            steps.pop(0)()

    def read_between(name):
        end(at_codes * (str(name) == str(codes)))
        try:
            return read(name)
        finally:
            end(at_facts * (str(name) == str(codes)))

    more = {"queries": made / "encoded_q.npy", "k": 50}
    with monkeypatch.context() as patch:
        patch.setattr(search_files, "read_file", read_between)
        patch.setattr(search_files.time, "sleep", lambda secs: end(3))
        assert search.main(flags(made, tmp_path / "near.npz", codes=codes, **more)) == 0
    one_version = "gaps_c.npy" if at_facts < 2 and at_codes < 1 else "encoded.npy"
    output = tmp_path / "expected.npz"
    assert search.main(flags(made, output, codes=made / one_version, **more)) == 0
    for one, other in zip(found(tmp_path / "near.npz"), found(output), strict=True):
        np.testing.assert_array_equal(one, other)


def test_does_not_depend_on_how_many_queries_pass_at_once(made, tmp_path, monkeypatch):
    more = {"workdir": made / "run", "rerank": made / "xb.npy"}
    assert search.main(flags(made, tmp_path / "all.npz", **more)) == 0
    monkeypatch.setattr(topk, "RESULTS", 5 * 70)
    assert search.main(flags(made, tmp_path / "few.npz", **more)) == 0
    for one, other in zip(found(tmp_path / "all.npz"), found(tmp_path / "few.npz"), strict=True):
        np.testing.assert_array_equal(one, other)


def test_reads_the_formats_of_vectors(made, tmp_path):
    codes, x = np.load(made / "cb.npy"), np.load(made / "xb.npy")
    header = np.array([500, 3], "<u4").tobytes()
    (tmp_path / "cb.u8bin").write_bytes(header + codes.tobytes())
    rows = np.zeros(500, [("d", "<i4"), ("x", "<f4", (D,))])
    rows["d"], rows["x"] = D, x
    rows.tofile(tmp_path / "xb.fvecs")
    more = {"workdir": made / "run", "codes": tmp_path / "cb.u8bin"}
    more["rerank"] = tmp_path / "xb.fvecs"
    assert search.main(flags(made, tmp_path / "a.npz", **more)) == 0
    more |= {"codes": made / "cb.npy", "rerank": made / "xb.npy"}
    assert search.main(flags(made, tmp_path / "b.npz", **more)) == 0
    np.testing.assert_array_equal(found(tmp_path / "a.npz")[1], found(tmp_path / "b.npz")[1])


def test_an_output_that_exists_is_replaced_only_if_asked(made, tmp_path, capsys):
    output = tmp_path / "near.npz"
    output.write_text("mine")
    assert search.main(flags(made, output)) == 2
    assert f"--output={output}: exists; use --overwrite" in capsys.readouterr().err
    assert output.read_text() == "mine"
    assert search.main(flags(made, output, overwrite=True)) == 0
    assert found(output)[1].shape == (12, 7)


def test_an_encoder_is_not_replaced_by_what_it_finds(made, tmp_path, capsys):
    encoder = tmp_path / "encoder.npz"
    loading.load(made / "run").save(encoder)
    before = encoder.read_bytes()
    for workdir in (encoder, tmp_path):
        assert search.main(flags(made, encoder, workdir=workdir, overwrite=True)) == 2
        assert "is the encoder of --workdir; use another name" in capsys.readouterr().err
    assert encoder.read_bytes() == before


def refused(made, tmp_path, capsys, **more):
    """The one line on standard error of a search that must leave nothing."""
    output = more.pop("output", tmp_path / "near.npz")
    before = sorted(tmp_path.iterdir())
    assert search.main(flags(made, output, **more)) == 2
    assert sorted(tmp_path.iterdir()) == before
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1
    return err


def test_the_home_directory_may_be_written_as_a_tilde(made, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(made))
    command = ["--workdir=~/run", "--input=~/xb.npy", "--output=~/home.npy"]
    assert encode.main(command) == 0
    facts = json.loads((made / "home.npy.json").read_text())
    assert facts["of"]["input"] == str(made / "xb.npy")
    more = {"workdir": "~/run", "codes": "~/home.npy", "queries": "~/xq.npy", "rerank": "~/xb.npy"}
    assert search.main(flags(made, "~/home.npz", **more)) == 0
    assert (made / "home.npz").exists() and "was not checked" not in capsys.readouterr().out


def test_a_directory_without_permission_is_told_as_that(made, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(search.os, "access", lambda *_: False)  # root may write everywhere
    assert search.main(flags(made, tmp_path / "near.npz")) == 2
    error = capsys.readouterr().err
    assert "no permission to write to its directory" in error and "make its" not in error


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"k": 501}, "--k=501: .*cb.npy holds 500 codes; choose 1 to 500"),
        ({"k": 0}, "--k=0: "),
        ({"output": "near.npy"}, "--output=near.npy: .* end its name so"),
        ({"output": "nowhere/near.npz"}, "--output=nowhere/near.npz: .*make its directory"),
        ({"k": 447, "codes": "gaps_c.npy"}, "holds 446 codes beside 54 bad rows; choose 1 to 446"),
        ({"codes": "missing.npy"}, "missing.npy: cannot be read"),
        ({"codes": "xb.npy"}, "--codes=.*xb.npy: holds float32, expected uint8 codes$"),
        ({"queries": "xq.npy"}, "--queries=.*xq.npy: holds float32, .* vectors with --workdir"),
        ({"queries": "wide.npy"}, "--queries=.*wide.npy: codes of 4 bytes, .* takes 3; "),
        ({"by": "both"}, "--queries=.*cq.npy: codes of 3 bytes, .* takes 6; .* --queries=both"),
        ({"k": None}, "--k: the nearest of each query, or all rows within --radius; give one"),
        ({"workdir": "h.npz", "radius": 4}, "--k: the nearest of each query, or all rows"),
        ({"k": None, "radius": 4}, "--radius: needs vectors as --queries, and --workdir"),
        ({"recall": 0.9}, "--recall: is of --radius"),
        (WITHIN | {"by": "both"}, "--by: is of --k"),
        (WITHIN | {"candidates": 3}, "--candidates: is of --k"),
        (WITHIN | {"engine": "cpu"}, "--engine: is of --k"),
        (WITHIN | {"rerank": "xb.npy", "oversample": 3}, "--oversample: is of --k"),
        (WITHIN | {"recall": 1.5}, "--recall=1.5: expected a share above 0 and below 1"),
        (WITHIN | {"radius": -1}, "--radius=-1.0: expected a distance, 0 or more"),
        (WITHIN | {"radius": 0.01}, "--radius=0.01: too few rows lie .*; choose [0-9.]+ or more, "),
        (WITHIN | {"workdir": "run"}, "--radius: this encoder was saved without pairs of valid"),
        (WITHIN | {"rerank": "other.npy"}, "--rerank=.*does not hold the codes"),
        (WITHIN | {"radius": 30, "rerank": "bad.npy"}, "--rerank=.*bad.npy: base row 7: holds NaN"),
        ({"rerank": "xb.npy"}, "--rerank: .*--workdir"),
        ({"oversample": 3}, "--oversample: is of --rerank"),
        ({"workdir": "run", "rerank": ""}, "--rerank: is empty; give a value, or leave it out"),
        ({"workdir": "run", "only": ""}, "--only: is empty; give a value, or leave it out"),
        ({"by": "projection"}, "--by=projection: needs vectors as --queries, and --workdir"),
        ({"by": "projection", "workdir": "run", "oversample": 3}, "--oversample: is of --rerank"),
        ({"by": "both", "workdir": "run", "candidates": 9}, "--candidates: all rows are ranked by"),
        ({"workdir": "run", "candidates": 0}, "--candidates=0: must be 1 or more"),
        ({"workdir": "nowhere"}, "nowhere: no such run directory or encoder"),
        ({"workdir": "run", "checkpoint": "7"}, "7: no such checkpoint"),
        ({"workdir": "run", "codes": "wide.npy"}, "--codes=.*: codes of 4 bytes, .*20 bits"),
        ({"workdir": "run", "queries": "cq.npy"}, "--queries=.*cq.npy: d=3, .*trained on d=6"),
        ({"workdir": "run", "queries": "nan.npy"}, "--queries=.*nan.npy: .*row 4 holds NaN"),
        ({"workdir": "run", "rerank": "wide.npy"}, "--rerank=.*: d=4, .*trained on d=6"),
        ({"workdir": "run", "rerank": "xq.npy"}, "--rerank=.*: 12 rows, .*cb.npy holds 500 codes"),
        ({"workdir": "run", "rerank": "other.npy"}, "--rerank=.*does not hold the codes"),
        ({"workdir": "another", "rerank": "xb.npy"}, "--rerank=.*does not hold the codes"),
        ({"workdir": "run", "rerank": "bad.npy"}, "--rerank=.*bad.npy: base row 7: holds NaN"),
        ({"workdir": "run", "rerank": "xb.npy", "oversample": 0}, "--oversample=0"),
        ({"workdir": "another", "codes": "encoded.npy"}, ENCODER + ".*another has [0-9a-f]{16};"),
        ({"workdir": "another", "codes": "encoded.npy", "by": "projection"}, ENCODER),
        ({"workdir": "another", "codes": "encoded.npy", "by": "both"}, ENCODER),
        ({"workdir": "more_bits", "codes": "encoded.npy"}, "names bits 20, .*more_bits has 22;"),
        ({"workdir": "cosine.npz", "codes": "encoded.npy"}, "names metric l2, .*npz has cosine;"),
        ({"queries": "gaps_q.npy"}, "--queries=.*gaps_q.npy: row 0 was bad and has no code"),
        ({"queries": "encoded.npy"}, "--queries=.*encoded.npy: are codes of a base; encode"),
        ({"codes": "encoded_q.npy"}, "--codes=.*encoded_q.npy: are codes of queries; encode"),
        ({"queries": "another_q.npy", "codes": "encoded.npy"}, ENCODER + ".*another_q.npy has"),
    ],
)
def test_refuses_in_one_line_and_writes_nothing(made, tmp_path, capsys, monkeypatch, more, words):
    monkeypatch.chdir(tmp_path)
    named = {"codes", "queries", "rerank", "workdir"}
    more = {k: made / value if value and k in named else value for k, value in more.items()}
    if "bad.npy" in str(more) and "radius" not in more:
        more |= {"k": 50}  # all rows are candidates
    assert re.search(words, refused(made, tmp_path, capsys, **more).strip())


def test_among_no_rows_nothing_lies_within_a_radius(made, tmp_path):
    np.save(tmp_path / "none.npy", np.zeros(500, bool))
    np.save(tmp_path / "nan.npy", np.full((500, D), np.nan))
    h = f"--workdir={made / 'h.npz'}"
    command = [h, f"--input={tmp_path / 'nan.npy'}", f"--output={tmp_path / 'c.npy'}"]
    assert encode.main([*command, "--skip_bad"]) == 0
    more = {"workdir": made / "h.npz", "k": None, "radius": 30}
    for i, given in enumerate(
        (
            {"only": tmp_path / "none.npy", "rerank": made / "xb.npy"},
            {"codes": tmp_path / "c.npy", "rerank": tmp_path / "nan.npy"},
        )
    ):
        output = tmp_path / f"{i}.npz"
        assert search.main(flags(made, output, **more, **given)) == 0
        with np.load(output) as f:
            assert f["lims"].tolist() == [0] * 13 and not len(f["ids"])


def test_refuses_a_run_directory_that_is_damaged(made, tmp_path, capsys):
    shutil.copytree(made / "run", tmp_path / "run")
    (tmp_path / "run" / "encoder.npz").unlink()
    (tmp_path / "run" / "config.json").write_text("{")
    err = refused(made, tmp_path, capsys, workdir=tmp_path / "run")
    assert f"{tmp_path / 'run' / 'config.json'}: damaged (" in err


def test_a_full_disk_leaves_nothing_and_keeps_what_was_there(made, tmp_path):
    output = tmp_path / "near.npz"
    output.write_text("mine")
    command = [sys.executable, "-m", "sigah_jax.search"]
    command += flags(made, output, k=400, overwrite=True)
    limited = ["bash", "-c", 'ulimit -f 20 && exec "$@"', "bash", *command]  # 20 blocks of 1 KiB
    done = subprocess.run(limited, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == (
        f"error: --output={output}: cannot be written (File too large); free space or choose "
        "another directory\n"
    )
    assert output.read_text() == "mine" and len(list(tmp_path.iterdir())) == 1
