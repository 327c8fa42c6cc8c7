"""Files out of downloaded archives, so that nothing can be written elsewhere.

Not responsible for getting archives (`transfer`) nor for which members are wanted (`sources`).
"""

import gzip
import shutil
import tarfile
import zlib
from pathlib import Path

from sigah_jax.data.sources import Member
from sigah_jax.data.transfer import NO_DISK, has_size
from sigah_jax.errors import BadInput
from sigah_jax.files import whole

_CHUNK_BYTES = 1 << 20


def extract(archive: Path, members: tuple[Member, ...], directory: Path) -> None:
    """Takes the members out of a `.tar.gz` file, then removes it.

    The names in the archive are only compared, never used as paths, and only plain files are
    read: nothing can be written elsewhere.

    Raises:
        BadInput: a damaged archive (it is removed), a member that is missing, not a plain file or
            of another size, or a disk that refuses.
    """
    todo = [m for m in members if not has_size(directory / m.path, m.size_bytes)]
    missing = {member.name: member for member in todo}
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for info in tar:
                member = missing.pop(info.name.removeprefix("./"), None)
                if member:
                    _extract_member(tar, info, member, archive, directory)
                if not missing:
                    break
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as e:
        archive.unlink()
        raise BadInput(
            f"{archive}: damaged ({e}) and removed; the same command gets it anew"
        ) from e
    if missing:
        raise BadInput(f"{archive}: holds no {', '.join(missing)}; remove it and try again")
    archive.unlink()


def _extract_member(
    tar: tarfile.TarFile, info: tarfile.TarInfo, member: Member, archive: Path, directory: Path
) -> None:
    path = directory / member.path
    if not info.isreg() or info.size != member.size_bytes:
        kind = f"a file of {info.size} bytes" if info.isreg() else "no plain file"
        raise BadInput(
            f"{archive}: {info.name} is {kind}, expected a file of {member.size_bytes} bytes; "
            "remove the archive and try again"
        )
    with whole.telling(path, NO_DISK):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tar.extractfile(info) as source, whole.writing(path) as f:
            shutil.copyfileobj(source, f, _CHUNK_BYTES)
