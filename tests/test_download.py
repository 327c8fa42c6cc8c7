"""The download command: sets, disks, and what is said when it cannot."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest
from servers import CUT, DATA, FAST, Hit, Page, md5, names, serve, tar_gz
from waiting import wait_for

from sigah_jax.data import download
from sigah_jax.data.directory import data_directory
from sigah_jax.data.sources import SOURCES, File, Member, Way, command_for, finals
from sigah_jax.errors import BadInput


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def archive(address, data, *members):
    files = tuple(Member(f"s/{name}", f"set/{name}", size) for name, size in members)
    return File("set/s.tar.gz", (f"{address}/s.tar.gz",), len(data), md5(data), files)


def plain(address, name="a", data=DATA):
    """Ways of a set that is one file."""
    return (Way((File(f"set/{name}", (f"{address}/{name}",), len(data), md5(data)),)),)


def run(tmp_path, ways, capsys):
    """`(exit code, stdout, stderr)` of the command for a set "set"."""
    code = download.run(["set", f"--dir={tmp_path}"], {"set": ways}, FAST)
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    return code, said.out, said.err


def test_a_set_is_fetched_once(tmp_path, capsys):
    with serve({"/a": [Page(cut=CUT), Page()], "/b": [Page(b"b")]}) as (address, hits):
        ways = (Way(plain(address)[0].files + plain(address, "b", b"b")[0].files),)
        code, out, err = run(tmp_path, ways, capsys)
        assert (code, err) == (0, "") and f"set: complete in {tmp_path}/set\n" in out
        assert f"set: a, 1.00MB from {address}/a\n" in out
        assert (tmp_path / "set" / "a").read_bytes() == DATA
        assert names(tmp_path / "set") == ["a", "b"]

        code, out, _ = run(tmp_path, ways, capsys)
        assert (code, out) == (0, f"set: already complete in {tmp_path}/set\n")
        (tmp_path / "set" / "b").unlink()
        assert run(tmp_path, ways, capsys)[0] == 0
        assert [hit.path for hit in hits] == ["/a", "/a", "/b", "/b"]


def test_cuts_without_end_are_one_line_and_exit_code_2(tmp_path, capsys):
    with serve({"/a": [Page(cut=CUT)]}) as (address, _):
        ways = plain(address)
        code, _, err = run(tmp_path, ways, capsys)
    assert code == 2 and err == (
        f"error: set: no mirror gave it: {address}/a: connection cut at byte {CUT} of {len(DATA)}, "
        "3 times in a row; 400kB are kept, the same command continues\n"
    )
    assert names(tmp_path / "set") == ["a.part", "a.part.json"]


def test_another_form_is_taken_and_every_mirror_of_all_is_named(tmp_path, capsys):
    with serve({"/c": [Page(b"c")]}) as (address, _):
        first = Way((File("set/a", (f"{address}/a", f"{address}/b"), 9),))
        second = Way((File("set/c", (f"{address}/c",), 1),), lacks="learn split")
        third = Way((File("set/d", (f"{address}/d",), 1),))
        (tmp_path / "set").mkdir()
        (tmp_path / "set" / "a.part").write_bytes(b"no more needed")
        code, out, _ = run(tmp_path, (first, second), capsys)
        assert code == 0 and f"{address}/a: HTTP 404 Not Found; now the next mirror\n" in out
        assert "set: no mirror gave it; now another form, without learn split\n" in out
        assert f"set: complete in {tmp_path}/set, without learn split\n" in out
        assert names(tmp_path / "set") == ["c"]
        assert run(tmp_path, (first, second), capsys)[1].startswith("set: already complete")

        code, _, err = run(tmp_path / "2", (first, third), capsys)
    gone = [f"{address}/{name}: HTTP 404 Not Found" for name in "abd"]
    assert code == 2 and err == f"error: set: no mirror gave it: {'; '.join(gone)}\n"


def fbin(rows, columns=3):
    x = np.arange(rows * columns, dtype=np.float32).reshape(rows, columns)
    return np.array([rows, columns], "<u4").tobytes() + x.tobytes(), x


def test_the_first_rows_of_an_fbin_file_become_one(tmp_path, capsys):
    data, x = fbin(1000)
    wanted = 8 + 10 * 3 * 4
    with serve({"/big": [Page(data, cut=50), Page(data)]}) as (address, hits):
        ways = (Way((File("set/x.fbin", (f"{address}/big",), wanted, first_rows=(10, 3)),)),)
        assert run(tmp_path, ways, capsys)[0] == 0
    assert hits == [Hit("/big", "bytes=0-127", 50), Hit("/big", "bytes=50-127", 78)]
    got = (tmp_path / "set" / "x.fbin").read_bytes()
    assert np.frombuffer(got, "<u4", 2).tolist() == [10, 3]
    np.testing.assert_array_equal(np.frombuffer(got, "<f4", offset=8).reshape(10, 3), x[:10])


@pytest.mark.parametrize("rows, columns", [(1000, 4), (9, 3)])
def test_an_fbin_file_of_another_shape_is_refused(tmp_path, capsys, rows, columns):
    data = np.array([rows, columns], "<u4").tobytes() + bytes(1000)
    with serve({"/big": [Page(data)]}) as (address, _):
        ways = (Way((File("set/x.fbin", (f"{address}/big",), 128, first_rows=(10, 3)),)),)
        code, _, err = run(tmp_path, ways, capsys)
    assert code == 2 and names(tmp_path / "set") == []
    assert f"the fbin header says {rows} x {columns}, expected 3 columns and 10 rows" in err


def test_an_archive_gives_its_members_and_goes(tmp_path, capsys):
    data = tar_gz({"./s/one": b"1" * 500, "s/more/three": b"3", "s/two": b"22"})
    with serve({"/s.tar.gz": [Page(data)]}) as (address, _):
        ways = (Way((archive(address, data, ("one", 500), ("two", 2)),)),)
        assert run(tmp_path, ways, capsys)[0] == 0
    assert (tmp_path / "set" / "one").read_bytes() == b"1" * 500
    assert names(tmp_path / "set") == ["one", "two"]


def test_a_small_disk_is_named_before_anything_is_asked(tmp_path, monkeypatch):
    free = SimpleNamespace(bytes=0)
    monkeypatch.setattr(shutil, "disk_usage", lambda directory: SimpleNamespace(free=free.bytes))
    data = tar_gz({"s/one": bytes(5000)})
    with serve({"/s.tar.gz": [Page(data)]}) as (address, hits):
        ways = (Way((archive(address, data, ("one", 5000)),)),)
        needed = len(data) + 5000  # the archive and what is in it, side by side
        free.bytes = 100
        with pytest.raises(
            BadInput, match=r"set: .*kB are needed and 100B are free; free some, or"
        ):
            download.get_set("set", ways, tmp_path, FAST)
        free.bytes = needed - 1
        with pytest.raises(BadInput, match="are needed"):
            download.get_set("set", ways, tmp_path, FAST)
        assert hits == []
        free.bytes = needed
        download.get_set("set", ways, tmp_path, FAST)
    huge = (Way((File("set/a", ("http://127.0.0.1:1/a",), 10**18),)),)
    with pytest.raises(BadInput, match=r"1\.00EB are needed"):
        download.get_set("set", huge, tmp_path, FAST)


def test_what_is_there_needs_no_room(tmp_path, monkeypatch):
    room = SimpleNamespace(free=len(DATA) - CUT)
    monkeypatch.setattr(shutil, "disk_usage", lambda directory: room)
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.part").write_bytes(DATA[:CUT])
    with serve({"/a": [Page()]}) as (address, _):
        ways = plain(address)
        download.get_set("set", ways, tmp_path, FAST)
    assert (tmp_path / "set" / "a").read_bytes() == DATA


@contextlib.contextmanager
def ordinary_user():
    """Root may write everywhere; the file modes of this test must count."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


@pytest.mark.parametrize("there", ["set/a.tar.gz", "set/b"])
def test_a_directory_in_place_of_a_file_is_told_before_the_download(tmp_path, capsys, there):
    file = File("set/a.tar.gz", ("http://127.0.0.1:1/a",), 9, members=(Member("b", "set/b", 4),))
    (tmp_path / there).mkdir(parents=True)
    code, out, err = run(tmp_path, (Way((file,)),), capsys)
    assert code == 2 and "set: a.tar.gz" not in out
    assert (
        err == f"error: {tmp_path}/{there}: is a directory where a file is expected; move it away\n"
    )


def test_a_directory_that_cannot_be_used_is_named(tmp_path, capsys):
    ways = (Way((File("set/a", ("http://127.0.0.1:1/a",), 9),)),)
    (tmp_path / "file").write_text("")
    code, _, err = run(tmp_path / "file", ways, capsys)
    assert code == 2
    assert f"error: {tmp_path}/file/set: cannot be used (Not a directory); choose another" in err

    (tmp_path / "closed").mkdir(mode=0o500)
    with ordinary_user():
        code, _, err = run(tmp_path / "closed", ways, capsys)
    assert code == 2
    assert f"error: {tmp_path}/closed/set: cannot be used (Permission denied); choose" in err


def test_two_downloads_of_a_set_do_not_meet(tmp_path):
    gate = threading.Event()
    with serve({"/a": [Page(gate=gate)]}) as (address, hits):
        ways = plain(address)
        arguments = ("set", ways, tmp_path, FAST)
        first = threading.Thread(target=download.get_set, args=arguments, daemon=True)
        first.start()
        wait_for(lambda: hits)
        with pytest.raises(BadInput, match=r"set: another download of this set is running; wait"):
            download.get_set("set", ways, tmp_path, FAST)
        gate.set()
        first.join(20)
        assert len(hits) == 1 and (tmp_path / "set" / "a").read_bytes() == DATA


def test_an_interrupt_keeps_the_part(tmp_path):
    gate = threading.Event()
    with serve({"/a": [Page(gate=gate), Page()]}) as (address, hits):
        program = (
            "import sys\n"
            "from sigah_jax.data.download import *\n"
            f"ways = {plain(address)!r}\n"
            f"sys.exit(run(['set', '--dir={tmp_path}'], {{'set': ways}}))\n"
        )
        command = [sys.executable, "-c", program]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        part = tmp_path / "set" / "a.part"
        wait_for(lambda: part.exists() and part.stat().st_size, process)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
        gate.set()
        assert process.returncode == 130
        assert err == "interrupted; what has come is kept, the same command continues\n"
        kept = part.stat().st_size
        assert 0 < kept < len(DATA)
        assert subprocess.run(command, check=False, capture_output=True).returncode == 0
        assert hits[-1] == Hit("/a", f"bytes={kept}-", len(DATA) - kept)


@pytest.mark.parametrize(
    "argv, words",
    [
        ([], "the following arguments are required: SET; see --help"),
        (["gist"], "SET: invalid choice: 'gist' (choose from "),
        (["cifar", "--dri=x"], "unrecognized arguments: --dri=x; see --help"),
        (["cifar", "--dir"], "error: --dir: expected one argument; see --help"),
        (["cifar", "--dir=~nobody-of-this-name/x"], "no home directory is known; give --dir"),
    ],
)
def test_bad_arguments_are_one_line_and_exit_code_2(argv, words, capsys):
    assert download.run(argv) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and words in err and err.count("\n") == 1


def test_data_directory(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.delenv("SIGAH_DATA", raising=False)
    assert str(data_directory()) == "/home/me/.cache/sigah_jax"
    monkeypatch.setenv("SIGAH_DATA", "/big")
    assert str(data_directory()) == "/big" and str(data_directory("~/x")) == "/home/me/x"
    with pytest.raises(BadInput, match="s3:// is not on a disk"):
        data_directory("s3://mine/data")


def test_sources_agree_with_themselves():
    digits = {"md5": 32, "sha256": 64}
    for name, ways in SOURCES.items():
        files = [file for way in ways for file in way.files]
        paths = [path for file in files for path, _ in finals(file)]
        assert len(set(paths)) == len(paths) and all(p.startswith(f"{name}/") for p in paths)
        for file in files:
            kind, _, digest = file.digest.partition(":")
            rows, columns = file.first_rows or (0, 0)
            assert bool(file.digest) != bool(file.first_rows)  # a checksum, else a header
            assert len(digest) == digits.get(kind, 0)
            assert not rows or file.size_bytes == 8 + 4 * rows * columns
            assert all(url.split(":")[0] in ("http", "https", "ftp") for url in file.urls)


def test_command_for_says_what_to_type_and_how_much_it_is():
    # 2.74 GB of archive, beside it (1,000,000 + 500,000 + 1,000) rows of 3,844 bytes: 5.77 GB
    assert command_for("gist1m") == (
        "python -m sigah_jax.data.download gist1m (2.7 GB to download, needs 8.5 GB of disk)"
    )
    assert "download cifar --dir='/my data' (" in command_for("cifar", "/my data")
