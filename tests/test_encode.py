"""The command that encodes a file, as a user runs it."""

import json
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import hashers
import numpy as np
import pytest
from waiting import wait_for

from sigah_jax import encode
from sigah_jax.encoder import code_facts, hasher
from sigah_jax.errors import BadInput
from sigah_jax.files import locks, resumable
from sigah_jax.run import loading

D, BITS = 20, 30


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return hashers.run_directory(tmp_path_factory.mktemp("runs") / "run", BITS, D)


@pytest.fixture(scope="module")
def h(workdir):
    return loading.load(workdir)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty current directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(workdir, *more, source="x.npy", output="codes.npy"):
    return encode.main([f"--workdir={workdir}", f"--input={source}", f"--output={output}", *more])


def names(directory):
    return sorted(p.name for p in directory.iterdir())


def test_the_codes_of_a_file_are_those_of_its_array(workdir, h, here, capsys):
    x = hashers.vectors(300, D)
    np.save("x.npy", x)
    assert run(workdir) == 0
    codes = np.load("codes.npy", mmap_mode="r")
    assert codes.dtype == np.uint8 and codes.shape == (300, 4)
    np.testing.assert_array_equal(codes, h.encode(x))
    assert capsys.readouterr().out == "codes.npy: 300 codes of 30 bits\n"
    facts = json.loads((here / "codes.npy.json").read_text())
    assert facts["of"]["input"] == str(here / "x.npy") and facts["rows"] == 300
    facts = code_facts.read_facts("codes.npy", codes)
    assert facts["rows_are"] == "base"
    assert facts["encoder"] == h.describe()["encoder"] and facts["bits"] == 30
    assert len(facts["bad"]) == 0
    assert names(here) == ["codes.npy", "codes.npy.json", "x.npy"]


def write_fvecs(path, x):
    path.write_bytes(b"".join(struct.pack("<i", len(row)) + row.tobytes() for row in x))


def write_fbin(path, x):
    path.write_bytes(struct.pack("<II", *x.shape) + x.tobytes())


def write_hdf5(path, x):
    with pytest.importorskip("h5py").File(path, "w") as f:
        f["test"], f["train"] = x[:5], x


def write_parquet(path, x):
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pa.table({"v": list(x)}), path, row_group_size=70)


def write_mat(path, x):
    pytest.importorskip("scipy.io").savemat(path, {"X": x})


def test_queries_have_codes_of_their_own(workdir, h, here):
    np.save("x.npy", x := hashers.vectors(300, D))
    assert run(workdir, "--queries") == 0
    np.testing.assert_array_equal(np.load("codes.npy"), h.encode_queries(x))
    assert code_facts.read_facts("codes.npy", np.load("codes.npy"))["rows_are"] == "queries"


def test_both_codes_of_queries_stand_beside_one_another(workdir, h, here):
    np.save("x.npy", x := hashers.vectors(300, D))
    assert run(workdir, "--queries=both") == 0
    packed = np.load("codes.npy")
    np.testing.assert_array_equal(packed.reshape(300, 2, -1), h.both_codes(x))
    assert code_facts.read_facts("codes.npy", packed)["rows_are"] == "both codes of queries"


@pytest.mark.parametrize(
    "name, dataset, write",
    [
        ("x.fvecs", "", write_fvecs),
        ("x.fbin", "", write_fbin),
        ("x.hdf5", ":train", write_hdf5),
        ("x.parquet", "", write_parquet),
        ("x.mat", "", write_mat),
        ("x.npy", "", lambda path, x: np.save(path, x.astype(np.float16))),
    ],
)
def test_every_format_of_the_data_package_is_read(workdir, h, here, name, dataset, write):
    x = hashers.vectors(300, D).astype(np.float16).astype(np.float32)
    write(here / name, x)
    assert run(workdir, source=name + dataset) == 0
    np.testing.assert_array_equal(np.load("codes.npy"), h.encode(x))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_bad_row_is_named_and_nothing_is_left(workdir, here, value, capsys):
    x = hashers.vectors(300, D)
    x[[200, 250], 3] = value
    np.save("x.npy", x)
    assert run(workdir) == 2
    assert "x.npy: row 200 holds NaN or infinity" in capsys.readouterr().err
    assert names(here) == ["x.npy"]


def test_a_null_row_of_parquet_is_named_or_skipped(workdir, h, here, capsys):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    x = hashers.vectors(300, D)
    rows = x.tolist()
    rows[7] = None
    pq.write_table(pa.table({"v": pa.array(rows, pa.list_(pa.float32()))}), "x.parquet")
    argv = [f"--workdir={workdir}", "--input=x.parquet", "--output=codes.npy"]
    assert encode.main(argv) == 2
    assert "x.parquet: row 7 holds NaN or infinity" in capsys.readouterr().err
    assert names(here) == ["x.parquet"]
    assert encode.main([*argv, "--skip_bad"]) == 0
    wanted = h.encode(x)
    wanted[7] = 0
    np.testing.assert_array_equal(np.load("codes.npy"), wanted)


def test_a_row_that_cannot_be_read_leaves_nothing_where_nothing_was_encoded(workdir, here):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = hashers.vectors(300, D).tolist()
    rows[7] = rows[7][:-1]
    pq.write_table(pa.table({"v": pa.array(rows, pa.list_(pa.float32()))}), "x.parquet")
    assert encode.main([f"--workdir={workdir}", "--input=x.parquet", "--output=codes.npy"]) == 2
    assert names(here) == ["x.parquet"]


def test_bad_rows_can_be_skipped_and_are_listed(workdir, h, here, capsys):
    x = hashers.vectors(300, D)
    wanted = h.encode(x)
    bad = [0, 130, 131, 299]
    x[bad, 3] = np.nan
    wanted[bad] = 0
    np.save("x.npy", x)
    assert run(workdir, "--skip_bad") == 0
    np.testing.assert_array_equal(np.load("codes.npy"), wanted)
    assert code_facts.read_facts("codes.npy", np.load("codes.npy"))["bad"].tolist() == bad
    assert "4 bad rows have zeros and are listed in codes.npy.json" in capsys.readouterr().out
    # the list goes when no row is bad any more
    np.save("x.npy", hashers.vectors(300, D))
    assert run(workdir, "--skip_bad", "--overwrite") == 0
    assert len(code_facts.read_facts("codes.npy", np.load("codes.npy"))["bad"]) == 0
    assert names(here) == ["codes.npy", "codes.npy.json", "x.npy"]


def test_an_interrupted_run_resumes_where_it_stopped(workdir, h, here, monkeypatch, capsys):
    x = hashers.vectors(300, D)
    x[[5, 200], 3] = np.nan
    np.save("x.npy", x)
    asked = []

    def interrupted(open_file, after):
        def opened(name):
            v = open_file(name)

            def read(start, stop):
                if start >= after:
                    raise KeyboardInterrupt
                asked.append(start)
                return v.read(start, stop)

            return v._replace(read=read)

        return opened

    for after, code in ((128, 130), (256, 130), (999, 0)):
        with monkeypatch.context() as patch:
            patch.setattr(encode, "open_file", interrupted(encode.open_file, after))
            assert run(workdir, "--skip_bad") == code
        told = capsys.readouterr()
        if code:
            assert told.err == "interrupted; the same command resumes where it stopped\n"
            assert names(here) == ["codes.npy.partial", "codes.npy.partial.json", "x.npy"]
    # a block that was being encoded when the next one was read is read again, and no other
    assert asked == [0, 0, 128, 128, 256]
    assert code_facts.read_facts("codes.npy", np.load("codes.npy"))["bad"].tolist() == [5, 200]
    whole = np.concatenate([c for _, c, _ in h.encode_blocks(lambda i, j: x[i:j], 0, 300)])
    np.testing.assert_array_equal(np.load("codes.npy"), whole)


@pytest.mark.parametrize(
    ("sign", "code", "said"),
    [
        (signal.SIGKILL, -9, ""),
        (signal.SIGINT, 130, "interrupted; the same command resumes where it stopped\n"),
        (signal.SIGTERM, 143, "terminated; the same command resumes where it stopped\n"),
    ],
)
def test_a_process_that_is_stopped_resumes_to_the_same_codes(workdir, h, here, sign, code, said):
    rows = 30_000  # in blocks of 16
    x = hashers.vectors(rows, D)
    np.save("x.npy", x)
    command = [sys.executable, "-m", "sigah_jax.encode", f"--workdir={workdir}"]
    command += ["--input=x.npy", "--output=codes.npy"]
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "1"}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    partial = here / "codes.npy.partial"
    wait_for(lambda: partial.exists() and partial.stat().st_size > 200, process)
    process.send_signal(sign)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (code, said)
    state = json.loads((here / "codes.npy.partial.json").read_text())
    assert state["rows"] < rows and not (here / "codes.npy").exists()
    assert run(workdir) == 0
    codes, sure = np.load("codes.npy"), np.abs(hashers.projections(h, x)[0]).min(1) > 1e-5
    np.testing.assert_array_equal(codes[sure], h.encode(x)[sure])
    assert names(here) == ["codes.npy", "codes.npy.json", "x.npy"]


def stop_after_a_block(workdir, monkeypatch):
    """Begins to encode 300 rows in the working directory, which is interrupted."""
    blocks = hasher.Hasher.encode_blocks

    def one(*arguments):
        yield next(blocks(*arguments))
        raise KeyboardInterrupt

    np.save("x.npy", hashers.vectors(300, D))
    with monkeypatch.context() as patch:
        patch.setattr(hasher.Hasher, "encode_blocks", one)
        assert run(workdir) == 130


def test_another_input_or_encoder_does_not_go_on_with_a_partial_output(
    workdir, h, here, monkeypatch, capsys, tmp_path_factory
):
    stop_after_a_block(workdir, monkeypatch)
    np.save("x.npy", hashers.vectors(301, D))
    other = hashers.run_directory(tmp_path_factory.mktemp("runs") / "other", BITS, D, seed=1)
    for at, more, field in (
        (workdir, [], "bytes"),
        (workdir, ["--skip_bad"], "bytes"),
        (other, [], "bytes"),
    ):
        assert run(at, *more) == 2
        assert f"codes.npy.partial: was begun with another {field}" in capsys.readouterr().err
    assert run(workdir, "--overwrite") == 0
    np.testing.assert_array_equal(np.load("codes.npy"), h.encode(hashers.vectors(301, D)))


def replace(path, x):
    """Another file of the same name, size and times."""
    stat = path.stat()
    np.save("y.npy", x)
    os.replace("y.npy", path)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def write_over(path, x):
    with path.open("r+b") as f:
        np.save(f, x)


@pytest.mark.parametrize("change", [replace, write_over, lambda path, x: path.unlink()])
def test_an_input_that_changes_while_it_is_encoded_is_refused_and_begun_anew(
    workdir, h, here, monkeypatch, capsys, change
):
    blocks = hasher.Hasher.encode_blocks
    np.save("x.npy", hashers.vectors(300, D))
    x = hashers.vectors(300, D, 1)

    def changed(*arguments):
        for block in blocks(*arguments):
            yield block
            if block[0] == 128:
                change(here / "x.npy", x)

    with monkeypatch.context() as patch:
        patch.setattr(hasher.Hasher, "encode_blocks", changed)
        assert run(workdir) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: x.npy: ") and "while it was in use" in err
    assert set(names(here)) <= {"x.npy"}
    np.save("x.npy", x)
    assert run(workdir) == 0
    np.testing.assert_array_equal(np.load("codes.npy"), h.encode(x))


def test_another_content_of_the_same_size_and_time_does_not_resume(
    workdir, h, here, monkeypatch, capsys
):
    stop_after_a_block(workdir, monkeypatch)
    replace(here / "x.npy", x := hashers.vectors(300, D, 1))
    assert run(workdir) == 2
    assert "codes.npy.partial: was begun with another content" in capsys.readouterr().err
    assert run(workdir, "--overwrite") == 0
    np.testing.assert_array_equal(np.load("codes.npy"), h.encode(x))


@pytest.mark.parametrize("more", [[], ["--overwrite"]])
@pytest.mark.parametrize("link", [None, os.symlink, os.link])
def test_the_vectors_themselves_are_never_replaced(workdir, here, capsys, more, link):
    np.save("x.npy", hashers.vectors(30, D))
    if link:
        link("x.npy", "codes.npy")
    before = {p.name: p.read_bytes() for p in here.iterdir()}
    assert run(workdir, *more, output="codes.npy" if link else "./x.npy") == 2
    assert "npy: is the file of vectors itself; choose another --output" in capsys.readouterr().err
    assert {p.name: p.read_bytes() for p in here.iterdir()} == before


def bad(name, value):
    return lambda here: np.save(here / name, value)


@pytest.mark.parametrize(
    "source, more, output, prepare, words",
    [
        ("x.npy", [], "codes.npy", bad("x.npy", np.ones((9, 19))), "x.npy: d=19, this hasher was"),
        ("x.npy", [], "codes.npy", bad("codes.npy", np.ones(3)), "codes.npy: exists; use"),
        ("x.npy", [], "codes.bin", None, "end its name so"),
        ("x.npy", [], "gone/codes.npy", None, "cannot be written (No such file"),
        ("y.npy", [], "codes.npy", None, "y.npy: cannot be read (No such file"),
        ("x.npy", ["--checkpoint=7"], "codes.npy", None, "no such checkpoint"),
        ("x.npy", ["--workdir=."], "codes.npy", None, "no config.json"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    workdir, here, capsys, source, more, output, prepare, words
):
    np.save("x.npy", hashers.vectors(30, D))
    if prepare:
        prepare(here)
    before = {p.name: p.read_bytes() for p in here.iterdir()}
    assert run(workdir, *more, source=source, output=output) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and words in err and err.count("\n") == 1
    assert {p.name: p.read_bytes() for p in here.iterdir()} == before


def test_a_full_disk_is_one_line_and_the_same_command_goes_on(workdir, h, here):
    pytest.importorskip("resource")
    x = hashers.vectors(20_000, D)
    np.save("x.npy", x)
    # 20,000 codes of 4 bytes pass the limit of 50,000
    code = (
        "import resource, sys; from sigah_jax import encode; "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY)); "
        f"sys.exit(encode.main(['--workdir={workdir}', '--input=x.npy', '--output=codes.npy']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: codes.npy: cannot be written (")
    assert done.stderr.count("\n") == 1
    assert run(workdir) == 0
    sure = np.abs(hashers.projections(h, x)[0]).min(1) > 1e-5
    np.testing.assert_array_equal(np.load("codes.npy")[sure], h.encode(x)[sure])


def append(workdir, source="y.npy", *more):
    return run(workdir, "--append", *more, source=source)


@pytest.fixture
def collection(workdir, h, here, capsys):
    """300 rows in x.npy, of which two are bad, and their codes; 100 more in y.npy, one bad."""
    x, y = hashers.vectors(300, D), hashers.vectors(100, D, 1)
    old, new = h.encode(x), h.encode(y)
    x[[5, 200], 3], y[7, 3] = np.nan, np.nan
    old[[5, 200]], new[7] = 0, 0
    np.save("x.npy", x)
    np.save("y.npy", y)
    assert run(workdir, "--skip_bad") == 0
    capsys.readouterr()
    return old, np.concatenate([old, new])


def test_codes_of_new_rows_follow_those_that_are_there(workdir, h, here, collection, capsys):
    _, whole = collection
    assert append(workdir, "y.npy", "--skip_bad") == 0
    told = "codes.npy: 100 codes added as rows 300 to 399; 1 bad rows have zeros and are listed"
    assert capsys.readouterr().out.startswith(told)
    np.testing.assert_array_equal(np.load("codes.npy"), whole)
    facts = code_facts.read_facts("codes.npy", np.load("codes.npy"))
    assert facts["bad"].tolist() == [5, 200, 307]
    assert [part["rows"] for part in facts["parts"]] == [300, 400]
    np.save("z.npy", z := hashers.vectors(1, D, 2))
    assert append(workdir, "z.npy") == 0
    assert capsys.readouterr().out == "codes.npy: 1 codes added as rows 400 to 400\n"
    np.testing.assert_array_equal(np.load("codes.npy"), np.concatenate([whole, h.encode(z)]))
    assert names(here) == ["codes.npy", "codes.npy.json", "x.npy", "y.npy", "z.npy"]


@pytest.mark.parametrize(("source", "rows"), [("x.npy", "0 to 299"), ("y.npy", "300 to 399")])
def test_an_input_whose_codes_are_there_is_not_added_again(
    workdir, here, collection, capsys, source, rows
):
    assert append(workdir, "y.npy", "--skip_bad") == 0
    before = {p.name: p.read_bytes() for p in here.iterdir()}
    capsys.readouterr()
    assert append(workdir, source, "--skip_bad") == 0
    told = f"codes.npy: holds the codes of {source} as rows {rows}; nothing was added; "
    assert capsys.readouterr().out.startswith(told)
    assert {p.name: p.read_bytes() for p in here.iterdir()} == before


def test_a_file_that_has_grown_or_has_another_name_is_not_added_again(
    workdir, here, collection, capsys
):
    x, y = np.load("x.npy"), np.load("y.npy")
    np.save("grown.npy", np.concatenate([x, y]))
    before = Path("codes.npy").read_bytes()
    assert append(workdir, "grown.npy", "--skip_bad") == 2
    error = capsys.readouterr().err
    assert "grown.npy: begins with the rows whose codes are rows 0 to 299 of codes.npy" in error
    assert error.count("\n") == 1 and Path("codes.npy").read_bytes() == before
    assert append(workdir, "y.npy", "--skip_bad") == 0
    Path("link.npy").symlink_to("y.npy")
    assert append(workdir, "link.npy", "--skip_bad") == 2
    assert "are rows 300 to 399 of codes.npy" in capsys.readouterr().err
    for row in (50, 250):  # other rows, though most of them are the same
        other = x.copy()
        other[row:] += 1
        np.save(f"other{row}.npy", other)
        assert append(workdir, f"other{row}.npy", "--skip_bad") == 0


def old_or_whole(collection):
    """Whether the codes here are whole; they fit what is known of them, and are old otherwise."""
    old, whole = collection
    there = np.load("codes.npy")
    facts = code_facts.read_facts("codes.npy", there)
    assert facts["bad"].tolist() == ([5, 200] if len(there) == 300 else [5, 200, 307])
    np.testing.assert_array_equal(there, old if len(there) == 300 else whole)
    return len(there) == 400


def test_codes_behind_a_symbolic_link_are_not_appended_to(workdir, here, collection, capsys):
    Path("link.npy").symlink_to("codes.npy")
    Path("link.npy.json").symlink_to("codes.npy.json")
    assert append(workdir, "y.npy", "--skip_bad", "--output=link.npy") == 2
    assert "link.npy: is a symbolic link; give the file itself" in capsys.readouterr().err
    assert Path("link.npy").is_symlink() and len(np.load("codes.npy")) == 300


def test_a_run_that_was_killed_at_its_last_step_has_ended(workdir, here, capsys):
    np.save("x.npy", hashers.vectors(300, D))
    assert run(workdir) == 0
    made = Path("codes.npy").read_bytes()
    shutil.copy("codes.npy.json", "codes.npy.partial.json")
    capsys.readouterr()
    assert run(workdir) == 0
    assert "holds the codes of x.npy as rows 0 to 299; nothing was added" in capsys.readouterr().out
    assert Path("codes.npy").read_bytes() == made
    assert sorted(p.name for p in here.iterdir()) == ["codes.npy", "codes.npy.json", "x.npy"]
    assert run(workdir) == 2  # as of every other output that exists


def test_a_kill_at_any_moment_of_an_append_leaves_old_or_new_codes(
    workdir, h, here, collection, monkeypatch, tmp_path_factory
):
    """Before every write, rename and removal, the files are copied as a kill leaves them."""
    left, copies = [], tmp_path_factory.mktemp("killed")

    def copying(step):
        def call(*args, **more):
            left.append(copies / str(len(left)))
            shutil.copytree(here, left[-1])
            return step(*args, **more)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(encode, "_SAVE_EVERY_SECS", 0)
        patch.setattr(encode, "row_blocks", lambda *_: [(0, 120), (120, 240), (240, 300)])
        for owner, name in (
            (os, "open"),
            (os, "fsync"),
            (os, "replace"),
            (Path, "unlink"),
            (resumable, "append"),
        ):
            patch.setattr(owner, name, copying(getattr(owner, name)))
        assert append(workdir, "y.npy", "--skip_bad") == 0
    states = []
    for directory in left:
        shutil.rmtree(here)
        shutil.copytree(directory, here)
        monkeypatch.chdir(here)
        partial = here / "codes.npy.partial"
        states.append((old_or_whole(collection), partial.exists() and partial.stat().st_size))
        encode.encode_file(h, "y.npy", Path("codes.npy"), False, True, append=True)
        assert old_or_whole(collection) and not partial.exists()
    assert len(left) > 20 and len({size for done, size in states if not done}) == 3
    assert any(done for done, _ in states)


@pytest.mark.slow
def test_twenty_kills_of_an_append_at_random_leave_old_or_new_codes(workdir, here, collection):
    rows, generator = 200_000, random.Random(0)
    np.save("y.npy", y := hashers.vectors(rows, D, 1))
    command = [sys.executable, "-m", "sigah_jax.encode", f"--workdir={workdir}"]
    command += ["--input=y.npy", "--output=codes.npy", "--append"]
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "1"}
    shutil.copytree(here, here.parent / "whole")
    start = time.monotonic()
    subprocess.run(command, cwd=here.parent / "whole", env=environment, check=True)
    secs, partial, at = time.monotonic() - start, here / "codes.npy.partial", []
    whole = np.load(here.parent / "whole" / "codes.npy")
    assert len(whole) == 300 + len(y)
    for i in range(20):
        process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        if i % 2:  # once codes are written, and at any time
            wait_for(lambda: partial.exists() or process.poll() is not None)  # noqa: B023
        time.sleep(generator.random() * secs / (4 if i % 2 else 1))
        process.kill()
        process.communicate(timeout=60)
        there = np.load("codes.npy")
        code_facts.read_facts("codes.npy", there)
        np.testing.assert_array_equal(there, whole[: len(there)])
        assert len(there) in (300, len(whole))
        state = here / "codes.npy.partial.json"
        at.append((len(there), json.loads(state.read_text())["rows"] if state.exists() else 0))
        if len(there) == len(whole):  # begin again
            for path in here.glob("codes.npy*"):
                path.unlink()
            assert run(workdir, "--skip_bad") == 0
    print(at)
    assert subprocess.run(command, env=environment, check=False).returncode == 0
    np.testing.assert_array_equal(np.load("codes.npy"), whole)


def test_an_append_that_is_stopped_resumes_and_another_one_does_not(
    workdir, h, here, collection, monkeypatch, capsys
):
    blocks = hasher.Hasher.encode_blocks

    def one(h, read, first, rows, *more):
        yield next(blocks(h, read, first, rows, *more))
        if rows == 300:  # not among those that are compared with the codes there
            raise KeyboardInterrupt

    old, _ = collection
    rows = hashers.vectors(300, D, 3)
    np.save("y.npy", rows)
    with monkeypatch.context() as patch:
        patch.setattr(hasher.Hasher, "encode_blocks", one)
        assert append(workdir) == 130
    np.testing.assert_array_equal(np.load("codes.npy"), old)
    assert json.loads((here / "codes.npy.partial.json").read_text())["rows"] == 428
    np.save("z.npy", z := hashers.vectors(20, D, 2))
    capsys.readouterr()
    assert append(workdir, "z.npy") == 2
    assert "codes.npy.partial: was begun with another input" in capsys.readouterr().err
    first = []

    def noting(*arguments):
        first.append(arguments[2])
        return blocks(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(hasher.Hasher, "encode_blocks", noting)
        assert append(workdir) == 0
    assert first == [0, 128]  # its first rows are compared with those that are there
    np.testing.assert_array_equal(np.load("codes.npy"), np.concatenate([old, h.encode(rows)]))
    # what another command left is begun anew if asked, and the codes stay
    with monkeypatch.context() as patch:
        patch.setattr(hasher.Hasher, "encode_blocks", one)
        np.save("y.npy", hashers.vectors(300, D, 4))
        assert append(workdir) == 130
    assert append(workdir, "z.npy", "--overwrite") == 0
    expected = np.concatenate([old, h.encode(rows), h.encode(z)])
    np.testing.assert_array_equal(np.load("codes.npy"), expected)


def test_codes_that_change_before_they_are_locked_are_not_appended_to(
    workdir, here, collection, monkeypatch, capsys
):
    opened = resumable.open_output

    def late(*arguments):
        shutil.copy("codes.npy", "moved.npy")
        os.replace("moved.npy", "codes.npy")
        return opened(*arguments)

    monkeypatch.setattr(resumable, "open_output", late)
    assert append(workdir, "y.npy", "--skip_bad") == 2
    assert "codes.npy: was removed or replaced by another file while" in capsys.readouterr().err
    assert not list(here.glob("*.partial*"))


def without_facts(here):
    (here / "codes.npy.json").unlink()


def damaged(here):
    packed = np.load("codes.npy")
    packed[0] ^= 1
    np.save("codes.npy", packed)


@pytest.mark.parametrize(
    ("prepare", "more", "words"),
    [
        (lambda here: (here / "codes.npy").unlink(), [], "--append: codes.npy is not there; leave"),
        (without_facts, [], "--append: codes.npy.json is missing, so nothing tells which encoder"),
        (damaged, [], "codes.npy.json: is about codes whose CRC-32 differs"),
        (None, ["--queries"], "holds codes of rows_are base, these would be of queries; give"),
        (None, ["--refine=0.5"], "holds codes of refine 0, these would be of 0.5; give"),
        (None, ["another"], "--append: codes.npy holds codes of encoder "),
        (None, [], "y.npy: row 7 holds NaN or infinity"),
    ],
)
def test_what_cannot_be_appended_is_refused_and_the_codes_stay(
    workdir, here, collection, capsys, tmp_path_factory, prepare, more, words
):
    if prepare:
        prepare(here)
    if more == ["another"]:
        workdir, more = tmp_path_factory.mktemp("runs") / "other", []
        hashers.run_directory(workdir, BITS, D, seed=1)
    before = {p.name: p.read_bytes() for p in here.iterdir()}
    assert append(workdir, "y.npy", *more) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and words in err and err.count("\n") == 1
    assert {p.name: p.read_bytes() for p in here.iterdir()} == before


def test_codes_that_another_process_writes_are_not_appended_to(h, here, collection):
    with locks.held(here / "codes.npy.partial"), pytest.raises(BadInput, match="another process"):
        encode.encode_file(h, "y.npy", Path("codes.npy"), False, True, append=True)
    assert not old_or_whole(collection)
