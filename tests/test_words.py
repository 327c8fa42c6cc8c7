"""Which words are taken, by hand; bad input."""

import contextlib
import hashlib
import io
import json
import tarfile
import zlib

import numpy as np
import pytest

from experiments import words

FILE = f"{words.NAME}.json"
VECTORS = {
    word: [i + column / 128 for column in range(words.COLUMNS)] for i, word in enumerate("ab,")
}
HELD = {"words": list("ba,"), "vectors": {word: [*v, 5.0, 7] for word, v in VECTORS.items()}}


def package(path, name=f"package/{FILE}", more=""):
    data = json.dumps(HELD | {"more": more}).encode()
    with tarfile.open(path, "w:gz") as archive:
        info = tarfile.TarInfo(name)
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
    return hashlib.sha256(data).hexdigest()


def test_the_first_words_and_their_columns_are_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(words.WORDS, FILE, package(tmp_path / "p.tgz"))
    monkeypatch.setattr(words, "ROWS", 2)
    output = tmp_path / "x.npy"
    flags = [f"--package={tmp_path / 'p.tgz'}", f"--output={output}"]
    assert words.main(flags) == 0
    np.testing.assert_array_equal(np.load(output), np.float32([VECTORS["b"], VECTORS["a"]]))
    assert (tmp_path / "x.txt").read_text() == "b\na\n"
    assert capsys.readouterr().out.endswith(f"2 rows of 100, their words in {tmp_path / 'x.txt'}\n")
    assert words.main(flags) == 2 and "x.npy: exists" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (f"package/{FILE}", "is of another version (SHA-256 "),
        ("package/other.json", "is not the package"),
    ],
)
def test_another_package_is_refused(tmp_path, capsys, name, reason):
    package(tmp_path / "p.tgz", name)
    assert words.main([f"--package={tmp_path / 'p.tgz'}", f"--output={tmp_path / 'x.npy'}"]) == 2
    error = capsys.readouterr().err
    assert reason in error and error.endswith(f"{words.PACK}\n") and error.count("\n") == 1
    assert not (tmp_path / "x.npy").exists()


def test_a_damaged_package_is_refused(tmp_path, capsys):
    path, noise = tmp_path / "p.tgz", np.random.default_rng(0).bytes(200_000).hex()
    package(path, more=noise)  # so long that the archive is opened before the damage is met
    data = path.read_bytes()
    for place in range(len(data) // 2, len(data), 100):
        path.write_bytes(data[:place] + bytes(100) + data[place + 100 :])
        with tarfile.open(path) as archive, contextlib.suppress(OSError):
            try:
                archive.extractfile(f"package/{FILE}").read()
            except zlib.error:
                break
    else:
        raise AssertionError("no such damage")
    assert words.main([f"--package={path}", f"--output={tmp_path / 'x.npy'}"]) == 2
    assert "p.tgz: is not the package" in capsys.readouterr().err
