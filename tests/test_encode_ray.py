"""Encoding on a Ray cluster: a small one on this machine, whose workers are killed."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import hashers
import numpy as np
import pytest
from test_metric import measuring
from waiting import wait_for

from launch import encode_ray, ray_encoder, ray_inputs
from sigah_jax import encode
from sigah_jax.encoder import hasher, refining
from sigah_jax.errors import BadInput
from sigah_jax.retrieval import metric
from sigah_jax.run import loading

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

D, BITS, WIDTH = 20, 30, 4
os.environ["RAY_AUTH_MODE"] = "token"  # before Ray is imported, which reads it then
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return hashers.run_directory(tmp_path_factory.mktemp("runs") / "run", BITS, D)


# not in this process: Ray forks to start its daemons, which may never return in one with threads
CLUSTER = """
import sys, ray
options = {"num_cpus": 2, "include_dashboard": False, "object_store_memory": 80_000_000}
print(ray.init(**options).address_info["gcs_address"], flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """The flag that joins a cluster of two cores, which ends with the process that starts it."""
    ray = pytest.importorskip("ray")
    with (tmp_path_factory.mktemp("ray") / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", CLUSTER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    try:
        yield f"--address={process.stdout.readline().strip()}"
    finally:
        ray.shutdown()
        process.stdin.close()
        try:
            process.wait(30)
        finally:
            process.kill()


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty current directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def arguments(workdir, *more, source=("x.npy",)):
    return [f"--workdir={workdir}", "--input", *source, "--output=out", *more]


def run(workdir, *more, source=("x.npy",)):
    return encode_ray.main(arguments(workdir, *more, source=source))


def write_parquet(path, x, group=70, **columns):
    table = pa.table({"v": list(x)} | columns)
    pq.write_table(table, path, row_group_size=group)


def expected(workdir, source, *more):
    """What `sigah_jax.encode` writes."""
    command = [f"--workdir={workdir}", f"--input={source}", "--output=codes.npy", "--overwrite"]
    assert encode.main([*command, *more]) == 0
    return np.load("codes.npy")


def in_numpy(column):
    """Codes `[n, W]`, zeros for null, and which are null."""
    rows = column.to_pylist()
    packed = b"".join(bytes(WIDTH) if row is None else row for row in rows)
    return np.frombuffer(packed, np.uint8).reshape(-1, WIDTH), np.array([r is None for r in rows])


def encoder(workdir, **more):
    """An actor's encoder, outside Ray."""
    out = Path("out")
    out.mkdir(exist_ok=True)
    options = ray_encoder.Options(
        workdir=workdir,
        input=[],
        column="v",
        output=out,
        checkpoint=None,
        skip_bad=False,
        fragment_rows=1,
        address="",
        concurrency=1,
        num_cpus=1,
        num_gpus=0,
    )
    packed = hasher.to_bytes(loading.load(workdir))
    return ray_encoder.Encoder(options._replace(**more), packed)


def each(encoder, *sources, rows=1000):
    """Results of all fragments, one after the other."""
    fragments, _ = ray_inputs.plan(ray_inputs.list_inputs(sources, Path("out")), "v", rows)
    return [encoder(f._asdict()) for f in fragments]


def names(directory="out"):
    return sorted(p.name for p in Path(directory).iterdir())


def test_files_are_cut_by_rows_and_parquet_files_by_row_groups(here):
    np.save("x.npy", np.zeros((10, D), np.float32))
    write_parquet("y.parquet", np.zeros((10, D), np.float32), group=3)
    write_parquet("empty.parquet", np.zeros((10, D), np.float32)[:0])
    sources = ray_inputs.list_inputs(["x.npy", "empty.parquet", "y.parquet"], Path("out"))
    fragments, inputs = ray_inputs.plan(sources, "v", 4)
    assert [(Path(f.path).name, f.start, f.stop) for f in fragments] == [
        ("x.npy", 0, 4),
        ("x.npy", 4, 8),
        ("x.npy", 8, 10),
        ("y.parquet", 0, 6),  # groups of 3, 3, 3 and 1
        ("y.parquet", 6, 10),
    ]
    assert [f.name for f in fragments[2:4]] == [
        "00000-000000000008.parquet",
        "00002-000000000000.parquet",
    ]
    assert [i["path"] for i in inputs] == [str(sources[0]), str(sources[2])]  # those with rows


@pytest.mark.parametrize("rows", [16, 100, 150, 1000])
def test_codes_do_not_depend_on_the_cuts(workdir, here, rows):
    x = hashers.vectors(700, D)
    np.save("x.npy", x)
    wanted = expected(workdir, "x.npy")
    each(encoder(workdir), "x.npy", rows=rows)
    table = pq.read_table("out")
    assert table.schema.names == ["row", "code"] and table.num_rows == 700
    np.testing.assert_array_equal(in_numpy(table["code"])[0], wanted)
    np.testing.assert_array_equal(table["row"], np.arange(700))
    assert len(names()) == -(-700 // rows)


def test_an_actor_refines_codes_as_encode_does(workdir, here):
    h = loading.load(workdir)
    h = dataclasses.replace(h, refinement=refining.Refinement(0.01, 5))
    h.save("encoder.npz")
    np.save("x.npy", x := hashers.vectors(700, D))
    each(encoder("encoder.npz"), "x.npy", rows=100)
    packed = in_numpy(pq.read_table("out")["code"])[0]
    np.testing.assert_array_equal(packed, expected("encoder.npz", "x.npy"))
    assert (packed != h.encode(x, refine=0)).any(1).mean() > 0.1


def test_other_columns_of_parquet_pass_through(workdir, here):
    x = hashers.vectors(700, D)
    tags = [None if i % 7 == 0 else [str(i)] * (i % 3) for i in range(700)]
    write_parquet("x.parquet", x, id=np.arange(700)[::-1], tags=tags)
    each(encoder(workdir), "x.parquet", rows=100)
    table = pq.read_table("out")
    assert table.schema.names == ["id", "tags", "code"]
    assert table["tags"].to_pylist() == tags
    np.testing.assert_array_equal(table["id"], np.arange(700)[::-1])
    np.testing.assert_array_equal(in_numpy(table["code"])[0], expected(workdir, "x.parquet"))
    assert len(names()) == 5  # ten groups of 70, two for a file


def test_parquet_without_other_columns_gets_row_numbers(workdir, here):
    write_parquet("x.parquet", hashers.vectors(150, D))
    each(encoder(workdir), "x.parquet", rows=70)
    np.testing.assert_array_equal(pq.read_table("out")["row"], np.arange(150))


@pytest.mark.parametrize("others", [{}, {"id": np.arange(300)}])
def test_lance_is_read_at_one_version(workdir, here, others):
    lance = pytest.importorskip("lance")
    x = hashers.vectors(300, D)
    np.save("x.npy", x[5:])
    lists = pa.FixedSizeListArray.from_arrays(x.ravel(), D)
    data = lance.write_dataset(pa.table({"id": np.arange(300), "v": lists}), "x.lance")
    data.delete("id < 5")
    if not others:
        data.drop_columns(["id"])
    fragments, _ = ray_inputs.plan(ray_inputs.list_inputs(["x.lance"], Path("out")), "v", 100)
    data.delete("true")  # later than the plan
    assert not any(encoder(workdir)(f._asdict())["error"] for f in fragments)
    table = pq.read_table("out")
    name, first = ("id", 5) if others else ("row", 0)
    assert table.schema.names == [name, "code"]
    np.testing.assert_array_equal(table[name], np.arange(first, first + 295))
    np.testing.assert_array_equal(in_numpy(table["code"])[0], expected(workdir, "x.npy"))


def arrow_tensors(x):
    lists = pa.FixedSizeListArray.from_arrays(pa.array(x.ravel()), x.shape[1])
    return pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(pa.float32(), x.shape[1:]), lists)


def ray_tensors(x, kind="ArrowTensorTypeV2"):
    kind = getattr(pytest.importorskip("ray.data.extensions"), kind)(x.shape[1:], pa.float32())
    return pa.ExtensionArray.from_storage(kind, pa.array(x.tolist(), kind.storage_type))


@pytest.mark.parametrize("suffix", ["parquet", "lance"])
def test_tensors_are_read_as_lists_are(workdir, here, suffix):
    x = hashers.vectors(150, D)
    np.save("x.npy", x)
    table = pa.table({"v": arrow_tensors(x), "other": arrow_tensors(x)})
    if suffix == "lance":
        pytest.importorskip("lance").write_dataset(table, "x.lance")
    else:
        pq.write_table(table, "x.parquet", row_group_size=70)
        for kind in ("ArrowTensorType", "ArrowTensorTypeV2"):
            pq.write_table(pa.table({"v": ray_tensors(x, kind)}), f"{kind}.parquet")
            np.testing.assert_array_equal(
                expected(workdir, f"{kind}.parquet"), expected(workdir, "x.npy")
            )
    each(encoder(workdir), f"x.{suffix}", rows=70)
    table = pq.read_table("out")
    np.testing.assert_array_equal(in_numpy(table["code"])[0], expected(workdir, "x.npy"))
    np.testing.assert_array_equal(table["other"].combine_chunks().to_numpy_ndarray(), x)
    if suffix == "parquet":
        shutil.rmtree("out")
        each(encoder(workdir), "ArrowTensorType.parquet", "ArrowTensorTypeV2.parquet", rows=70)
        codes = in_numpy(pq.read_table("out")["code"])[0]
        np.testing.assert_array_equal(codes, np.tile(expected(workdir, "x.npy"), (2, 1)))


@pytest.mark.parametrize("suffix", ["parquet", "lance"])
def test_null_rows_are_named_or_skipped_in_parquet_and_lance_alike(workdir, here, suffix):
    rows = [*hashers.vectors(100, D).tolist(), None]
    rows[7] = None
    rows[50][3] = None
    table = pa.table({"v": pa.array(rows, pa.list_(pa.float32(), D))})
    if suffix == "lance":
        pytest.importorskip("lance").write_dataset(table, "x.lance")
    else:
        pq.write_table(table, "x.parquet")
    (result,) = each(encoder(workdir), f"x.{suffix}")
    assert "row 7 holds NaN or infinity; remove or repair it, or use" in result["error"]
    (result,) = each(encoder(workdir, skip_bad=True), f"x.{suffix}")
    assert (result["bad"], result["error"]) == (3, "")
    null = in_numpy(pq.read_table("out")["code"])[1]
    np.testing.assert_array_equal(np.flatnonzero(null), [7, 50, 100])


def write_lance(path, x, fixed=True):
    lists = pa.FixedSizeListArray.from_arrays(x.ravel(), x.shape[1]) if fixed else list(x)
    pytest.importorskip("lance").write_dataset(pa.table({"v": lists}), path)


def replace_file(path, new):
    """Another content of the same size and times."""
    stat = path.stat()
    os.utime(new, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    os.replace(new, path)


def replace_lance(path, new):
    shutil.rmtree(path)
    new.rename(path)


@pytest.mark.parametrize("moment", ["before", "codes", "others"])
@pytest.mark.parametrize(
    ("write", "end", "replace"),
    [
        (np.save, ".npy", replace_file),
        (write_parquet, ".parquet", replace_file),
        (write_lance, ".lance", replace_lance),
    ],
)
def test_an_input_that_is_replaced_leaves_no_codes_of_another_content(
    workdir, here, monkeypatch, write, end, replace, moment
):
    """Between two fragments, or while the second is read: before its codes or before the rest."""
    path, new = here / f"x{end}", here / f"new{end}"
    write(path, x := hashers.vectors(210, D))
    write(new, hashers.vectors(210, D, 1))
    fragments, _ = ray_inputs.plan(ray_inputs.list_inputs([path], Path("out")), "v", 70)
    e = encoder(workdir)
    assert e(fragments[0]._asdict())["error"] == ""
    if moment == "before":
        replace(path, new)

    def replacing(name):
        step = getattr(ray_encoder, name)

        def call(*arguments):
            replace(path, new)
            return step(*arguments)

        return call

    with monkeypatch.context() as patch:
        if moment != "before":
            name = {"codes": "fragment_codes", "others": "_write_codes"}[moment]
            patch.setattr(ray_encoder, name, replacing(name))
        error = e(fragments[1]._asdict())["error"]
    if end != ".lance":
        assert f"{path}: " in error and "while it was in use" in error
    else:  # an open data set keeps its files
        assert not error or f"{path}: " in error
    assert e(fragments[2]._asdict())["error"].startswith(f"{path}: ")
    np.save("x.npy", x)
    table = pq.read_table("out")
    wanted = expected(workdir, "x.npy")[: table.num_rows]
    np.testing.assert_array_equal(in_numpy(table["code"])[0], wanted)


def test_an_input_that_changes_where_it_is_is_refused(workdir, here):
    np.save("x.npy", hashers.vectors(210, D))
    fragments, _ = ray_inputs.plan([here / "x.npy"], "v", 70)
    with open("x.npy", "r+b") as f:
        np.save(f, hashers.vectors(210, D, 1))
    assert "x.npy: has changed while" in encoder(workdir)(fragments[1]._asdict())["error"]
    assert names() == []


def test_a_bad_row_is_named_and_leaves_no_file_of_its_fragment(workdir, here):
    x = hashers.vectors(300, D)
    x[[250, 251], 3] = np.nan
    np.save("x.npy", x)
    results = each(encoder(workdir), "x.npy", rows=100)
    assert [r["error"] for r in results[:2]] == ["", ""]
    assert results[2]["error"].endswith(
        "x.npy: row 250 holds NaN or infinity; remove or repair it, or use --skip_bad"
    )
    assert names() == ["00000-000000000000.parquet", "00000-000000000100.parquet"]


def test_bad_rows_that_are_skipped_have_null_codes(workdir, here):
    x = hashers.vectors(300, D)
    x[[0, 250, 299], 3] = [np.nan, np.inf, -np.inf]
    np.save("x.npy", x)
    results = each(encoder(workdir, skip_bad=True), "x.npy", rows=100)
    assert [r["bad"] for r in results] == [1, 0, 2]
    packed, null = in_numpy(pq.read_table("out")["code"])
    np.testing.assert_array_equal(np.flatnonzero(null), [0, 250, 299])
    np.testing.assert_array_equal(packed, expected(workdir, "x.npy", "--skip_bad"))


def test_rows_longer_than_those_of_training_are_told_also_of_files_that_are_there(
    here, monkeypatch
):
    x = hashers.vectors(300, D)
    x[250] *= 1e4
    np.save("x.npy", x)
    h = measuring(metric.of("ip", 60.0), BITS, D)
    h.save("encoder.npz")

    def in_this_process(options, packed, todo):
        e = ray_encoder.Encoder(options, packed)
        results = [e(f._asdict()) for f in todo]
        return sum(r["bad"] for r in results), max(r["longest"] for r in results)

    monkeypatch.setattr(encode_ray, "run", in_this_process)
    options = encoder("encoder.npz", input=["x.npy"], output=Path("o"), fragment_rows=100).options
    length = f"the longest row has length {np.linalg.norm(x[250]):.6g}, that of training 60;"
    assert length in encode_ray.encode_inputs(options)
    Path("o/00000-000000000000.parquet").unlink()
    assert length in encode_ray.encode_inputs(options)  # of the third file, which is there
    np.testing.assert_array_equal(in_numpy(pq.read_table("o")["code"])[0], h.encode(x))
    np.save("x.npy", hashers.vectors(300, D))
    options = options._replace(output=Path("other"))
    assert "longest" not in encode_ray.encode_inputs(options)


def test_a_fragment_that_kills_its_workers_is_given_up(workdir, here):
    np.save("x.npy", hashers.vectors(30, D))
    e = encoder(workdir)
    name = "00000-000000000000.parquet"
    for lost in range(3):
        (here / "out" / f"_{name}.host-{lost}.partial").touch()
    (result,) = each(e, "x.npy")
    assert result["error"] == "" and names() == [name]  # and what the lost ones left is gone
    for lost in range(4):
        (here / "out" / f"_{name}.host-{lost}.partial").touch()
    (result,) = each(e, "x.npy")
    assert f"out/{name}: 4 workers died on it" in result["error"]


def test_a_worker_without_the_accelerator_asked_for_refuses(workdir, here):
    np.save("x.npy", hashers.vectors(30, D))
    if hasher.jax.default_backend() == "cpu":
        (result,) = each(encoder(workdir, num_gpus=1), "x.npy")
        assert "--num_gpus=1: JAX finds no accelerator on" in result["error"]
    assert names() == []


def test_a_disk_that_refuses_is_told(workdir, here):
    np.save("x.npy", hashers.vectors(30, D))
    (result,) = each(encoder(workdir, output=here / "gone"), "x.npy")
    assert "gone/00000-000000000000.parquet: cannot be written (No such file" in result["error"]


def kill_worker(out, killed):
    """Ends the process that writes a file, once two are there, in the middle of it."""

    def kill():
        partial = next(out.glob("_*.partial"), None)
        if partial and len(list(out.glob("0*.parquet"))) >= 2:
            killed.append(int(partial.name.removesuffix(".partial").rpartition("-")[2]))
            os.kill(killed[0], signal.SIGKILL)
        return killed

    wait_for(kill, secs=200)


def test_a_killed_worker_loses_and_doubles_nothing(workdir, here, cluster, capfd):
    x = hashers.vectors(16_000, D)
    x[[5, 15_999], 3] = np.nan
    (here / "in").mkdir()
    np.save("in/a.npy", x)
    write_parquet("in/b.parquet", x, group=1600, id=np.arange(16_000))
    wanted = expected(workdir, "in/a.npy", "--skip_bad")
    options = ["--column=v", "--fragment_rows=3200", "--concurrency=1", cluster, "--skip_bad"]
    killed = []
    killer = threading.Thread(target=kill_worker, args=(here / "out", killed), daemon=True)
    killer.start()
    assert run(workdir, *options, source=["in"]) == 0
    assert len(killed) == 1
    said = "out: 32000 codes of 30 bits in 10 files; 4 bad rows have null codes\n"
    assert capfd.readouterr().out.splitlines(keepends=True)[-1] == said
    assert names() == [
        *(f"{i:05d}-{start:012d}.parquet" for i in (0, 1) for start in range(0, 16_000, 3200)),
        "_manifest.json",
    ]
    for index, column in enumerate(("row", "id")):
        parts = sorted((here / "out").glob(f"{index:05d}-*"))
        table = pa.concat_tables([pq.read_table(part) for part in parts])
        np.testing.assert_array_equal(table[column], np.arange(16_000))
        packed, null = in_numpy(table["code"])
        np.testing.assert_array_equal(packed, wanted)
        np.testing.assert_array_equal(np.flatnonzero(null), [5, 15_999])
    # again: all is there, and counted
    times = [p.stat().st_mtime_ns for p in (here / "out").iterdir()]
    assert run(workdir, *options, source=["in"]) == 0
    assert capfd.readouterr().out == said
    assert [p.stat().st_mtime_ns for p in (here / "out").iterdir()] == times
    # who does not skip must not take them for good
    assert run(workdir, *options[:-1], source=["in"]) == 2
    assert "out: 4 rows were skipped as bad; use --skip_bad" in capfd.readouterr().err


def test_a_killed_driver_goes_on_where_it_stopped(workdir, here, cluster):
    x = hashers.vectors(48_000, D)
    np.save("x.npy", x)
    options = ["--fragment_rows=4000", "--concurrency=1", cluster]
    command = [sys.executable, "-m", "launch.encode_ray"]
    environment = os.environ | {"PYTHONPATH": str(Path(encode_ray.__file__).parents[1])}
    driver = subprocess.Popen(command + arguments(workdir, *options), env=environment)
    wait_for(lambda: list((here / "out").glob("0*.parquet")), driver, secs=100)
    driver.send_signal(signal.SIGKILL)
    assert driver.wait(20) == -9
    there = {p.name: p.stat().st_mtime_ns for p in (here / "out").glob("0*.parquet")}
    assert 1 <= len(there) < 12
    assert run(workdir, *options) == 0
    now = {p.name: p.stat().st_mtime_ns for p in (here / "out").glob("0*.parquet")}
    assert there.items() <= now.items()  # what was finished is not done again
    assert len(now) == 12 and names()[12:] == ["_manifest.json"]
    table = pq.read_table("out")
    np.testing.assert_array_equal(table["row"], np.arange(48_000))
    np.testing.assert_array_equal(in_numpy(table["code"])[0], expected(workdir, "x.npy"))


def test_a_bad_row_ends_the_run_with_one_line(workdir, here, cluster, capsys):
    x = hashers.vectors(30, D)
    x[7, 3] = np.nan
    np.save("x.npy", x)
    assert run(workdir, cluster) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and "x.npy: row 7 holds NaN" in err and err.count("\n") == 1
    assert names() == ["_manifest.json"]


def test_a_cluster_without_room_is_told_at_once(workdir, here, cluster, capsys):
    np.save("x.npy", hashers.vectors(30, D))
    assert run(workdir, "--num_cpus=64", cluster) == 2
    assert "--num_cpus=64 --num_gpus=0: no node of the cluster" in capsys.readouterr().err


def test_an_output_goes_on_only_with_its_encoder_and_inputs(
    workdir, here, capsys, tmp_path_factory
):
    np.save("x.npy", hashers.vectors(30, D))
    np.save("y.npy", hashers.vectors(30, D))
    other = hashers.run_directory(tmp_path_factory.mktemp("runs") / "other", BITS, D, seed=1)
    nowhere = "--address=127.0.0.1:1"
    for workdir_, more, sources, words in (
        (other, [], ["y.npy"], f"{nowhere}: no cluster to join"),  # begun, but without codes
        (workdir, [], ["x.npy"], f"{nowhere}: no cluster to join"),  # so begun anew
        (other, [], ["x.npy"], "another encoder ("),
        (workdir, ["--fragment_rows=9"], ["x.npy"], "another fragment_rows (1048576, now 9)"),
        (workdir, [], ["y.npy"], f"another inputs ({{'path': '{here}/x.npy'"),
        (workdir, [], ["x.npy", "y.npy"], "another inputs (None, now {'path'"),
        (workdir, [], ["x.npy"], f"{nowhere}: no cluster to join"),
    ):
        if workdir_ is other and sources == ["x.npy"]:
            shutil.copy("x.npy", "out/00009-000000000000.parquet")  # stands for codes
        assert run(workdir_, nowhere, *more, source=sources) == 2
        err = capsys.readouterr().err
        assert words in err and err.count("\n") == 1
    assert "_manifest.json" in names()
    os.utime("x.npy")
    assert run(workdir, nowhere) == 2
    assert "'modified_ns': " in capsys.readouterr().err
    edited = json.dumps(json.loads(Path("out/_manifest.json").read_text()) | {"bits": 31})
    for held, words in (
        *((text, "damaged (") for text in ("", "{", "[]", "3", "null", '"x"', edited)),
        *((text, "was begun with another encoder (None") for text in ("{}", '{"inputs": 3}')),
    ):
        Path("out/_manifest.json").write_text(held)
        assert run(workdir, nowhere) == 2
        err = capsys.readouterr().err
        assert f"out/_manifest.json: {words}" in err and err.count("\n") == 1


def test_plain_codes_do_not_join_refined_ones(tmp_path):
    of = {"encoder": "1a"}
    with encode_ray.claim(tmp_path, of | {"refine": {"mu": 0.1, "iterations": 5}}):
        (tmp_path / "00000-000000000000.parquet").write_bytes(b"codes")
    with pytest.raises(BadInput, match="was begun with another refine"):
        encode_ray.claim(tmp_path, of).__enter__()


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (Path.mkdir, "a directory"),
        (lambda path: path.symlink_to("gone.npy"), "not a file, or a link to a missing one"),
        (os.mkfifo, "not a file"),
    ],
)
def test_a_directory_is_refused_if_something_in_it_would_be_left_out(here, make, kind):
    directory = here / "in"
    for path in ("set.lance", "_temporary", ".git", "out"):
        (directory / path).mkdir(parents=True)
    for name in ("x.npy", ".hidden.npy", "_SUCCESS"):
        (directory / name).touch()
    files = [directory / "set.lance", directory / "x.npy"]
    assert ray_inputs.list_inputs(["in"], Path("in/out")) == files
    make(directory / "more.npy")
    with pytest.raises(BadInput, match=f"in/more.npy is {kind}.*; move it out of .*in, or name"):
        ray_inputs.list_inputs(["in"], Path("in/out"))


def test_a_second_run_on_an_output_is_refused_and_removes_nothing(workdir, here, capsys):
    np.save("x.npy", hashers.vectors(30, D))
    with encode_ray.claim(here / "out", {"inputs": []}):
        Path("out/_00000-000000000000.parquet.host-1.partial").touch()
        before = names()
        assert run(workdir) == 2
        err = capsys.readouterr().err
        assert err == "error: --output=out: another process writes it; wait for it to end\n"
        assert names() == before
    assert "_manifest.json.lock" in before and "_manifest.json.lock" not in names()


def test_a_finished_file_that_is_damaged_is_to_be_removed(workdir, here, capsys):
    np.save("x.npy", hashers.vectors(30, D))
    options = ["--fragment_rows=10"]
    assert run(workdir, "--address=127.0.0.1:1", *options) == 2  # begins it
    each(encoder(workdir), "x.npy", rows=10)
    capsys.readouterr()
    assert run(workdir, *options) == 0
    assert capsys.readouterr().out == "out: 30 codes of 30 bits in 3 files\n"
    path = Path("out/00000-000000000010.parquet")
    whole, unreadable = path.read_bytes(), "cannot be read as parquet ("
    at = whole.index(pq.read_table(path)["code"][0].as_py())
    pq.write_table(pq.read_table(path)[:4], "short.parquet")
    for damaged, words in (
        (whole[: len(whole) // 2], unreadable),
        (b"", unreadable),
        (whole[:-40] + bytes(40), unreadable),
        (whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :], unreadable),
        (whole.replace(b"code", b"cods"), unreadable),
        (Path("short.parquet").read_bytes(), "holds 4 codes, expected 10"),
    ):
        path.write_bytes(damaged)
        assert run(workdir, *options) == 2
        err = capsys.readouterr().err
        assert err.startswith(f"error: {path}: ") and words in err and err.count("\n") == 1
        assert err.endswith("; remove it, and the same command makes it anew\n")


def write_twice(path, name):
    pq.write_table(pa.table([list(GOOD)] * 3, ["v", name, name]), path)


GOOD = np.ones((3, D), np.float32)


@pytest.mark.parametrize(
    "prepare, source, words",
    [
        (lambda: None, "gone.npy", "gone.npy is not a file or a directory of files"),
        (lambda: Path("in").mkdir(), "in", "in is not a file or a directory of files"),
        (lambda: np.save("x.npy", GOOD[:, 1:]), "x.npy", "x.npy: d=19, this hasher was"),
        (lambda: write_parquet("x.parquet", GOOD[:, 1:]), "x.parquet", "x.parquet: d=19"),
        (lambda: write_parquet("x.parquet", GOOD[:0]), "x.parquet", "all files are empty"),
        (lambda: write_parquet("x.parquet", GOOD, code=[1, 2, 3]), "x.parquet", "column 'code'"),
        (lambda: pq.write_table(pa.table({"w": [[1.0]]}), "x.parquet"), "x.parquet", "named 'v'"),
        (lambda: pq.write_table(pa.table({"v": [1]}), "x.parquet"), "x.parquet", "none of lists"),
        (lambda: Path("x.parquet").write_bytes(b"PAR1"), "x.parquet", "cannot be read as parquet"),
        (lambda: write_twice("x.parquet", "v"), "x.parquet", "more than one column 'v'; rename"),
        (lambda: write_twice("x.parquet", "w"), "x.parquet", "more than one column 'w'; rename"),
        (lambda: os.mkfifo("x.parquet"), "x.parquet", "is a FIFO, socket or device"),
        (lambda: os.mkfifo("x.npy"), "x.npy", "is a FIFO, socket or device"),
        (lambda: os.mkfifo("x.lance"), "x.lance", "cannot be read as Lance"),
        (
            lambda: write_lance("x.lance", GOOD, fixed=False),
            "x.lance",
            "expected lists of fixed size",
        ),
        (lambda: Path("x.lance").mkdir(), "x.lance", "x.lance: cannot be read as Lance"),
        (lambda: Path("out").write_text(""), "ok.npy", "--output=out: cannot be written"),
        (lambda: (Path("out").mkdir(), Path("out/a").touch()), "ok.npy", "no _manifest.json"),
        (lambda: Path("run").mkdir(), "ok.npy --workdir=run", "no config.json"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(workdir, here, capsys, prepare, source, words):
    np.save("ok.npy", GOOD)
    prepare()
    before = sorted(here.rglob("*"))
    assert run(workdir, "--column=v", source=source.split()) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and words in err and err.count("\n") == 1
    assert sorted(here.rglob("*")) == before


def test_without_ray_it_says_what_to_install(workdir, here, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray.data", None)
    assert run(workdir) == 2
    assert capsys.readouterr().err == (
        "error: encode_ray needs ray; run pip install 'sigah_jax[ray]'\n"
    )


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--fragment_rows=0", "--fragment_rows: expected 1 or more, got 0; see --help"),
        ("--concurrency=-1", "--concurrency: expected 1 or more, got -1"),
        ("--num_gpus=-1", "--num_gpus: expected 0 or more, got -1"),
        ("--num_cpus=x", "--num_cpus: invalid integer value: 'x'"),
    ],
)
def test_a_flag_out_of_range_is_refused(workdir, here, capsys, flag, words):
    assert run(workdir, flag) == 2
    assert capsys.readouterr().err.startswith(f"error: {words}")
