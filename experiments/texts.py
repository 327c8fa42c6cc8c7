"""What makers of vectors of texts share: files of an npm package, and texts beside vectors."""

import hashlib
import tarfile
import zlib
from pathlib import Path

from sigah_jax.errors import BadInput
from sigah_jax.files import whole


def read_package(
    flag: str, path: Path, name: str, wanted: dict[str, str], pack: str
) -> list[bytes]:
    """Files of an npm package, from its directory or its `.tgz`.

    Args:
        flag: that named the path, for messages.
        name: of the package.
        wanted: file -> SHA-256, in the order of the result.
        pack: the command that gets the package.

    Raises:
        BadInput: it is another package, or another version.
    """
    where = f"--{flag}={path}"
    try:
        if path.is_dir():
            files = {file: (path / file).read_bytes() for file in wanted}
        else:
            with tarfile.open(path) as archive:
                files = {file: archive.extractfile(f"package/{file}").read() for file in wanted}
    except (OSError, EOFError, KeyError, AttributeError, tarfile.TarError, zlib.error) as e:
        why = "it is not a whole .tgz file" if isinstance(e, tarfile.ReadError) else e
        raise BadInput(f"{where}: is not the package {name} ({why}); {pack}") from e
    check_hashes(where, files, wanted, pack)
    return list(files.values())


def check_hashes(where: str, files: dict[str, bytes], wanted: dict[str, str], remedy: str) -> None:
    """BadInput naming the first file whose SHA-256 is another one than wanted."""
    for name, data in files.items():
        found = hashlib.sha256(data).hexdigest()
        if found != wanted[name]:
            raise BadInput(
                f"{where}: {name} is of another version (SHA-256 {found[:16]}…, expected "
                f"{wanted[name][:16]}…); {remedy}"
            )


def check_output(path: Path) -> None:
    """BadInput if vectors cannot be written there."""
    if path.suffix != ".npy":
        raise BadInput(f"--output={path}: expected a name that ends in .npy")
    if path.exists():
        raise BadInput(f"{path}: exists; remove it or give another --output")
    if not path.parent.is_dir():
        raise BadInput(f"--output={path}: there is no such directory; make it")


def check_texts(path: Path, texts: list[str]) -> Path:
    """Where the texts of these vectors are written; BadInput if a file there holds others.

    The vectors come last, so that a run which is killed may leave its texts.
    """
    beside = path.with_suffix(".txt")
    if beside.exists() and beside.read_bytes() != _lines(texts):
        raise BadInput(f"{beside}: holds other texts; remove it or give another --output")
    return beside


def write_texts(path: Path, texts: list[str]) -> Path:
    """Writes the texts of the vectors in a file, one a line; see `check_texts`."""
    beside = check_texts(path, texts)
    with whole.telling(beside, "free space or choose another directory"):
        whole.write_text(beside, _lines(texts).decode())
    return beside


def _lines(texts: list[str]) -> bytes:
    return "".join(f"{text}\n" for text in texts).encode()
