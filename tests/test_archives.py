"""Archives that are hostile or damaged: what is written, what is left, what is said."""

import tarfile

import numpy as np
import pytest
from servers import names, tar_gz

from sigah_jax.data.archives import extract
from sigah_jax.data.sources import Member
from sigah_jax.errors import BadInput
from sigah_jax.files import whole


def link(target, kind=tarfile.SYMTYPE):
    info = tarfile.TarInfo()
    info.type, info.linkname, info.size = kind, str(target), 4  # a size makes it look like a file
    return info


def test_an_archive_cannot_write_elsewhere(tmp_path):
    place, outside = tmp_path / "data", tmp_path / "outside"
    (place / "set").mkdir(parents=True)
    outside.write_text("untouched")
    evil = {
        "../evil": b"evil",
        str(tmp_path / "absolute"): b"evil",
        "s/link": link(outside),
        "s/one": link(outside),
    }
    path = place / "set" / "s.tar.gz"
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE):
        path.write_bytes(tar_gz(evil | {"s/one": link(outside, kind)}))
        with pytest.raises(BadInput, match=r"s\.tar\.gz: s/one is no plain file, expected a file"):
            extract(path, (Member("s/one", "set/one", 4),), place)
        assert names(tmp_path) == ["data", "outside"] and names(place / "set") == ["s.tar.gz"]
    assert outside.read_text() == "untouched"

    # a link that was there before is replaced, not followed
    (place / "set" / "one").symlink_to(outside)
    path.write_bytes(tar_gz(evil | {"s/one": b"data"}))
    extract(path, (Member("s/one", "set/one", 4),), place)
    assert (place / "set" / "one").read_bytes() == b"data"
    assert outside.read_text() == "untouched" and names(tmp_path) == ["data", "outside"]


def test_a_link_in_place_of_a_file_being_unpacked_is_not_followed(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    (tmp_path / f"one.partial-{whole.this_thread()}").symlink_to(victim)
    (tmp_path / "s.tar.gz").write_bytes(tar_gz({"s/one": b"data"}))
    extract(tmp_path / "s.tar.gz", (Member("s/one", "one", 4),), tmp_path)
    assert (tmp_path / "one").read_bytes() == b"data" and victim.read_text() == "untouched"
    assert names(tmp_path) == ["one", "victim"]


@pytest.mark.parametrize(
    "damage, member, words",
    [
        (lambda data: data[:-40], "one", "damaged (Compressed file ended"),
        (lambda data: b"no tar" * 99, "one", "damaged (not a gzip file)"),
        (lambda data: data, "two", "holds no s/two; remove it and try again"),
        (lambda data: tar_gz({"s/one": b"2"}), "one", "s/one is a file of 1 bytes, expected a"),
    ],
)
def test_a_bad_archive_is_named_and_leaves_nothing(tmp_path, damage, member, words):
    path = tmp_path / "s.tar.gz"
    content = np.random.default_rng(0).bytes(90_000)
    path.write_bytes(damage(tar_gz({"s/one": content})))
    with pytest.raises(BadInput) as e:
        extract(path, (Member(f"s/{member}", member, 90_000),), tmp_path)
    assert str(e.value).startswith(f"{path}: {words}")
    assert names(tmp_path) == ([] if "damaged" in words else ["s.tar.gz"])
