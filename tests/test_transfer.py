"""One file from servers that misbehave: what arrives, what is left, what is said."""

import hashlib
import os
import resource
import threading

import pytest
from servers import CUT, DATA, FAST, Hit, Page, md5, names, serve, serve_bytes, serve_ftp

from sigah_jax.data import transfer
from sigah_jax.errors import BadInput


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def get(pages, path, names=("/a",), **more):
    """`(reasons, hits)` of a download of DATA."""
    with serve(pages) as (address, hits):
        urls = [address + name for name in names]
        more = {"size_bytes": len(DATA), "digest": md5(DATA), "patience": FAST} | more
        reasons = transfer.fetch(urls, path, **more)
        return [reason.replace(address, "") for reason in reasons], hits


@pytest.mark.parametrize("digest", [md5(DATA), ""])
def test_a_cut_download_asks_for_the_rest_only(tmp_path, digest, capsys):
    reasons, hits = get({"/a": [Page(cut=CUT), Page()]}, tmp_path / "f", digest=digest)
    assert reasons == [] and (tmp_path / "f").read_bytes() == DATA
    assert hits == [Hit("/a", None, CUT), Hit("/a", f"bytes={CUT}-", len(DATA) - CUT)]
    assert names(tmp_path) == ["f"]
    said = capsys.readouterr().out
    assert f"connection cut at byte {CUT} of {len(DATA)}; again in 0.001 s" in said
    assert f"continues at byte {CUT}" in said


def test_the_next_run_continues_where_the_last_gave_up(tmp_path):
    pages = {"/a": [Page(cut=CUT)]}
    reasons, hits = get(pages, tmp_path / "f", digest="")
    assert reasons == [f"/a: connection cut at byte {CUT} of {len(DATA)}, 3 times in a row"]
    assert len(hits) == 3 and names(tmp_path) == ["f.part", "f.part.json"]

    # the address changed with the server: only a digest lets another one continue
    reasons, hits = get({"/a": [Page()]}, tmp_path / "f")
    assert reasons == [] and hits == [Hit("/a", f"bytes={CUT}-", len(DATA) - CUT)]
    assert (tmp_path / "f").read_bytes() == DATA


def test_a_slow_stream_of_cuts_is_not_given_up(tmp_path):
    cuts = [Page(cut=100_000 * i) for i in range(1, 10)]
    reasons, hits = get({"/a": [*cuts, Page()]}, tmp_path / "f")
    assert reasons == [] and len(hits) == 10 > FAST.tries
    assert sum(hit.sent for hit in hits) == len(DATA)


@pytest.mark.parametrize("heeds", [True, False])
def test_a_changed_file_is_not_glued_to_the_old_one(tmp_path, heeds):
    new = bytes(reversed(DATA))
    pages = {"/a": [Page(cut=CUT), Page(new, etag='"two"', heeds=heeds)]}
    reasons, hits = get(pages, tmp_path / "f", digest="")
    assert reasons == [] and (tmp_path / "f").read_bytes() == new
    assert [hit.sent for hit in hits] == [CUT, *([] if heeds else [len(DATA) - CUT]), len(DATA)]


def test_a_file_that_became_shorter_is_named(tmp_path):
    reasons, hits = get({"/a": [Page(cut=CUT), Page(DATA[:1000])]}, tmp_path / "f")
    assert reasons == ["/a: has 1000 bytes, expected 1000000"] and names(tmp_path) == []
    assert [hit.range for hit in hits] == [None, f"bytes={CUT}-", None]


def test_another_range_than_asked_for_is_refused(tmp_path):
    reasons, _ = get({"/a": [Page(cut=CUT), Page(skew=1)]}, tmp_path / "f")
    got = f"'bytes {CUT + 1}-{len(DATA) - 1}'"
    assert reasons == [f"/a: answers with the range {got}, asked for byte {CUT} on"]
    assert (tmp_path / "f.part").read_bytes() == DATA[:CUT]


@pytest.mark.parametrize("etag", ["", 'W/"weak"'])
def test_a_file_without_version_and_digest_is_not_continued(tmp_path, etag):
    pages = {"/a": [Page(cut=CUT, etag=etag), Page(etag=etag)]}
    reasons, hits = get(pages, tmp_path / "f", digest="")
    assert reasons == [] and [hit.range for hit in hits] == [None, None]


def test_a_server_without_ranges_starts_again(tmp_path, capsys):
    pages = {"/a": [Page(cut=CUT), Page(ranges=False)]}
    reasons, hits = get(pages, tmp_path / "f")
    assert reasons == [] and (tmp_path / "f").read_bytes() == DATA
    assert [hit.sent for hit in hits] == [CUT, len(DATA)]
    assert "starts again, cannot continue" in capsys.readouterr().out


def test_the_first_bytes_of_a_large_file(tmp_path):
    prefix = {"prefix": True, "size_bytes": 1000, "digest": ""}
    reasons, hits = get({"/a": [Page(cut=300), Page()]}, tmp_path / "f", **prefix)
    assert reasons == [] and (tmp_path / "f").read_bytes() == DATA[:1000]
    assert hits == [Hit("/a", "bytes=0-999", 300), Hit("/a", "bytes=300-999", 700)]


def test_the_first_bytes_are_refused_without_ranges(tmp_path):
    page = Page(ranges=False, claim=384_000_000_008)
    prefix = {"prefix": True, "size_bytes": 1000, "digest": ""}
    reasons, hits = get({"/a": [page]}, tmp_path / "f", **prefix)
    assert reasons == [
        "/a: does not serve byte ranges; all 384 GB would have to come for the first 1000 bytes"
    ]
    assert len(hits) == 1 and names(tmp_path) == []


def test_the_first_bytes_of_a_file_that_changed_start_again(tmp_path):
    new = bytes(reversed(DATA))
    prefix = {"prefix": True, "size_bytes": 1000, "digest": ""}
    pages = {"/a": [Page(cut=300), Page(new, etag='"two"')]}
    reasons, hits = get(pages, tmp_path / "f", **prefix)
    assert reasons == [] and (tmp_path / "f").read_bytes() == new[:1000]
    assert [hit.range for hit in hits] == ["bytes=0-999", "bytes=300-999", "bytes=0-999"]


def test_the_second_mirror_is_asked(tmp_path):
    reasons, hits = get({"/b": [Page()]}, tmp_path / "f", names=("/a", "/b"))
    assert reasons == [] and (tmp_path / "f").read_bytes() == DATA
    assert [hit.path for hit in hits] == ["/a", "/b"]


def test_the_second_mirror_continues_what_the_first_began(tmp_path):
    refused = Page(b"no", 403, ranges=False)
    pages = {"/a": [Page(cut=CUT), refused], "/b": [Page(etag='"other"')]}
    reasons, hits = get(pages, tmp_path / "f", names=("/a", "/b"))
    assert reasons == [] and hits[-1] == Hit("/b", f"bytes={CUT}-", len(DATA) - CUT)


def test_every_mirror_that_failed_is_named(tmp_path):
    html = Page(b"\n<!doctype html><p>moved", kind="text/html; charset=utf-8")
    plain = Page(b"<html>" + DATA[6:])
    pages = {
        "/busy": [Page(b"", 503, ranges=False)],
        "/html": [html],
        "/plain": [plain],
        "/short": [Page(DATA[:-1])],
        "/long": [Page(DATA + b"1")],
        "/bad": [Page(bytes(reversed(DATA)))],
    }
    reasons, _ = get(pages, tmp_path / "f", names=("/none", *pages))
    got = hashlib.md5(bytes(reversed(DATA))).hexdigest()
    assert reasons == [
        "/none: HTTP 404 Not Found",
        "/busy: HTTP 503 Service Unavailable, 3 times in a row",
        "/html: sent an HTML page in place of the file",
        "/plain: sent an HTML page in place of the file",
        "/short: has 999999 bytes, expected 1000000",
        "/long: has 1000001 bytes, expected 1000000",
        f"/bad: md5 is {got}, expected {md5(DATA)[4:]}; what came was removed",
    ]
    assert names(tmp_path) == []


def test_a_stream_of_unknown_length_may_not_be_longer(tmp_path):
    reasons, _ = get({"/a": [Page(DATA + b"1", claim=-1)]}, tmp_path / "f")
    assert reasons == ["/a: sends more than the 1000000 bytes expected"] and names(tmp_path) == []
    assert get({"/a": [Page(claim=-1)]}, tmp_path / "f")[0] == []


def test_a_page_in_place_of_a_file_leaves_nothing(tmp_path):
    reasons, _ = get({"/a": [Page(b"<html>" + DATA[6:])]}, tmp_path / "f")
    assert reasons == ["/a: sent an HTML page in place of the file"] and names(tmp_path) == []


def test_a_server_that_is_not_there(tmp_path):
    with serve({}) as (address, _):
        pass
    ftp = address.replace("http", "ftp")
    reasons = transfer.fetch([f"{address}/a", f"{ftp}/a", "x"], tmp_path / "f", 9, patience=FAST)
    for reason, url in zip(reasons, (address, ftp), strict=False):
        assert reason.startswith(f"{url}/a: no connection (") and "object at" not in reason
        assert reason.endswith("Connection refused), 3 times in a row")
    assert reasons[2].startswith("x: Invalid URL 'x': No scheme supplied")


STEERS = b"\x1b[2J\x1b]0;title\x07\x9b1m"  # a terminal clears its screen and has another title
NINES = b"9" * 5000  # more digits than Python reads as a number
HEAD = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 404 " + STEERS + b"\r\n\r\n",
        b"HTTP/1.1 404 " + b"x" * 60_000 + b"\r\n\r\n",
        b"HTTP/1.1 20" + STEERS + b" OK\r\n\r\n",
        STEERS + b"\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://" + STEERS + b"/\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://[::1\r\n\r\n",
        b"HTTP/1.1 206 OK\r\nContent-Range: " + STEERS + b"\r\n\r\n",
        HEAD + b"Content-Length: \xb2\r\n\r\n1",
        HEAD + b"Content-Length: " + NINES + b"\r\n\r\n1",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + STEERS + b"\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n-5\r\n12345\r\n",
    ],
)
def test_what_a_server_says_is_shown_as_plain_text(tmp_path, answer, capsys):
    with serve_bytes(answer) as address:
        (reason,) = transfer.fetch([f"{address}/a"], tmp_path / "f", 9, patience=FAST)
    assert reason.isprintable() and len(reason) < 400
    assert capsys.readouterr().out.replace("\n", "").isprintable()
    assert "f" not in names(tmp_path)


@pytest.mark.parametrize(
    "state",
    [
        "7",
        '{"a": 1, "b": 2}',
        "[1, 2]",
        '["{url}", 5]',
        '["{url}", "a\\nb"]',
        '["{url}", "κ"]',
        "[",
    ],
)
def test_a_damaged_note_of_where_a_part_came_from_starts_again(tmp_path, state):
    with serve({"/a": [Page()]}) as (address, hits):
        (tmp_path / "f.part").write_bytes(b"old" * 1000)
        (tmp_path / "f.part.json").write_text(state.replace("{url}", f"{address}/a"))
        size = len(DATA)
        assert transfer.fetch([f"{address}/a"], tmp_path / "f", size, patience=FAST) == []
    assert (tmp_path / "f").read_bytes() == DATA and [hit.range for hit in hits] == [None]


@pytest.mark.parametrize("size", [3000, len(DATA)])
def test_a_link_in_place_of_a_part_is_not_followed(tmp_path, size):
    victim = tmp_path / "victim"
    victim.write_bytes(bytes(size))
    for name in ("f.part", "f.part.json"):
        (tmp_path / name).symlink_to(victim)
    reasons, _ = get({"/a": [Page(cut=CUT), Page()]}, tmp_path / "f")
    assert reasons == [] and (tmp_path / "f").read_bytes() == DATA
    assert victim.read_bytes() == bytes(size) and names(tmp_path) == ["f", "victim"]


def test_a_server_that_falls_silent(tmp_path):
    patience = FAST._replace(timeout_secs=0.2, tries=2)
    gate = threading.Event()
    reasons, _ = get({"/a": [Page(gate=gate)]}, tmp_path / "f", patience=patience)
    gate.set()
    assert reasons[0].startswith("/a: no byte for 0.2 s at byte ")


def test_content_that_is_refused_at_the_end_is_removed(tmp_path):
    reasons, _ = get({"/a": [Page()]}, tmp_path / "f", finish=lambda part: "not an fbin file")
    assert reasons == ["/a: not an fbin file; what came was removed"] and names(tmp_path) == []


def test_a_full_disk_is_named_and_the_part_kept(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (CUT, hard))
    try:
        with pytest.raises(BadInput, match=r"f\.part: cannot be written \(File too large\); free"):
            get({"/a": [Page()]}, tmp_path / "f")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / "f.part").stat().st_size == CUT
    reasons, hits = get({"/a": [Page()]}, tmp_path / "f")
    assert reasons == [] and hits == [Hit("/a", f"bytes={CUT}-", len(DATA) - CUT)]


def test_ftp_continues_and_names_what_is_wrong(tmp_path):
    there = tmp_path / "server"
    there.mkdir()
    (there / "a").write_bytes(DATA)
    path = tmp_path / "f"
    with serve_ftp(there, cut=CUT) as (address, sent):
        assert transfer.fetch([f"{address}/a"], path, len(DATA), md5(DATA), patience=FAST) == []
        assert path.read_bytes() == DATA
        assert CUT <= sent[0] < len(DATA) and sum(sent) == len(DATA)
        reasons = transfer.fetch([f"{address}/b", f"{address}/a"], path, 10, patience=FAST)
    assert reasons[0].startswith(f"{address}/b: FTP 550 ")
    assert reasons[1] == f"{address}/a: has 1000000 bytes, expected 10"


def test_ftp_does_not_glue_a_changed_file(tmp_path):
    there = tmp_path / "server"
    there.mkdir()
    (there / "a").write_bytes(DATA)
    (tmp_path / "f.part").write_bytes(b"old" * 1000)
    os.utime(there / "a", (1e9, 1e9))
    with serve_ftp(there) as (address, sent):
        (tmp_path / "f.part.json").write_text(f'["{address}/a", "213 20200101000000"]')
        assert transfer.fetch([f"{address}/a"], tmp_path / "f", len(DATA), patience=FAST) == []
        assert (tmp_path / "f").read_bytes() == DATA and sum(sent) == len(DATA)
