"""Gets data sets: python -m sigah_jax.data.download gist1m

Not responsible for addresses and checksums (`sources`), for one file's transfer (`transfer`) nor
for what is in an archive (`archives`).
"""

if __name__ == "__main__":  # before the heavy imports, in which Ctrl-C may come
    from sigah_jax.process import interrupts

    interrupts.begin()

import contextlib
import functools
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from sigah_jax.command_line import Parser, command, of_path
from sigah_jax.data import transfer
from sigah_jax.data.archives import extract
from sigah_jax.data.directory import data_directory
from sigah_jax.data.sources import SOURCES, File, Way, finals
from sigah_jax.data.transfer import PATIENCE, Patience, has_size
from sigah_jax.errors import BadInput
from sigah_jax.files import locks, progress, whole

_ELSEWHERE = "choose another directory with --dir or $SIGAH_DATA"


def get_set(
    name: str,
    ways: tuple[Way, ...],
    directory: Path,
    patience: Patience = PATIENCE,
) -> None:
    """Brings one data set into `directory/<name>/`, in the first form that can be had.

    Args:
        ways: the forms of the set, best first.
        directory: the data directory; made if missing.

    Raises:
        BadInput: no mirror gave it, the disk is too small or refuses, or another download of the
            same set runs.
    """
    place = directory / name
    for way in ways:  # before the lock: a complete set may lie where we may not write
        if all(_complete(file, directory) for file in way.files):
            print(f"{name}: already complete in {place}{_without(way)}")
            return
    reasons = []
    with _locked(place):
        for way in ways:
            if reasons:
                print(f"{name}: no mirror gave it; now another form{_without(way)}", flush=True)
            failed = _get_way(name, way, directory, patience)
            if not failed:
                print(f"{name}: complete in {place}{_without(way)}")
                for part in place.glob("*.part*"):  # of a form that is not needed any more
                    part.unlink()
                return
            reasons += failed
    kept = sum(part.stat().st_size for part in place.glob("*.part"))
    more = f"; {tqdm.format_sizeof(kept, 'B')} are kept, the same command continues"
    raise BadInput(f"{name}: no mirror gave it: {'; '.join(reasons)}{more if kept else ''}")


def keep_rows(part: Path, shape: tuple[int, int]) -> str:
    """Makes the beginning of a larger f32 fbin file a file of its own, by its header.

    Args:
        part: header, then the first rows.
        shape: (rows, columns) of the result.

    Returns:
        "", or what is wrong with the header.
    """
    with part.open("r+b") as f:
        rows, columns = shape
        n, d = np.frombuffer(f.read(8), "<u4").tolist()
        if d != columns or n < rows:
            return f"the fbin header says {n} x {d}, expected {columns} columns and {rows} rows"
        f.seek(0)
        f.write(np.array(shape, "<u4").tobytes())
    return ""


@command("what has come is kept, the same command continues")
def run(
    argv: list[str] | None = None,
    sources: dict[str, tuple[Way, ...]] = SOURCES,
    patience: Patience = PATIENCE,
) -> None:
    """The command. Exit code: 0, 2 for whatever went wrong, 130 interrupted."""
    names, directory = _arguments(argv, sources)
    try:
        for name in names:
            get_set(name, sources[name], directory, patience)
    except OSError as e:  # a disk that fails between the writes that are watched
        if of_path(e):
            raise
        raise BadInput(f"{e}; the same command continues") from e


def _arguments(argv: list[str] | None, sources) -> tuple[list[str], Path]:
    parser = Parser(
        description="Downloads data sets. A broken download is continued by the same command, "
        "and what is there already is not fetched again.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "names",
        nargs="+",
        metavar="SET",
        choices=sources,
        help=f"one or more of: {', '.join(sources)}",
    )
    parser.add_argument(
        "--dir", default="", help="data directory; default $SIGAH_DATA, else ~/.cache/sigah_jax"
    )
    arguments = parser.parse_args(argv)
    return list(dict.fromkeys(arguments.names)), data_directory(arguments.dir)


def _get_way(name: str, way: Way, directory: Path, patience: Patience) -> list[str]:
    """[] when all files of a way are there, else why the first missing one could not be had."""
    todo = [file for file in way.files if not _complete(file, directory)]
    for file in todo:
        for path in (file.path, *dict(finals(file))):
            if (directory / path).is_dir():
                where = directory / path
                raise BadInput(f"{where}: is a directory where a file is expected; move it away")
    needed = sum(_needed_bytes(file, directory) for file in todo)
    whole.check_room(directory / name, needed, _ELSEWHERE)
    for file in todo:
        path = directory / file.path
        if not has_size(path, file.size_bytes):
            size = tqdm.format_sizeof(file.size_bytes, "B")
            print(f"{name}: {path.name}, {size} from {file.urls[0]}", flush=True)
            rows = file.first_rows
            with progress.showing(path.name, _fetched(path), file.size_bytes, "B") as show:
                failed = transfer.fetch(
                    file.urls,
                    path,
                    file.size_bytes,
                    file.digest,
                    prefix=bool(rows),
                    finish=functools.partial(keep_rows, shape=rows) if rows else None,
                    show=show,
                    patience=patience,
                )
            if failed:
                return failed
        if file.members:
            print(f"{name}: unpacking {path.name}", flush=True)
            extract(path, file.members, directory)
    return []


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Makes the directory of a set and keeps other downloads of the same set out."""
    busy = f"{directory}: another download of this set is running; wait for it to end"
    with contextlib.ExitStack() as stack:
        with whole.telling(directory, _ELSEWHERE, "cannot be used"):
            directory.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locks.held(directory / "download.lock", busy))
        yield


def _needed_bytes(file: File, directory: Path) -> int:
    """Disk that a file still needs while it is fetched and unpacked."""
    fetched = _fetched(directory / file.path)
    unpacked = sum(
        member.size_bytes
        for member in file.members
        if not has_size(directory / member.path, member.size_bytes)
    )
    return max(file.size_bytes - fetched, 0) + unpacked


def _fetched(path: Path) -> int:
    """Bytes of a file, or of what a broken transfer left of it."""
    part = path.with_name(f"{path.name}.part")
    return next((p.stat().st_size for p in (path, part) if p.exists()), 0)


def _complete(file: File, directory: Path) -> bool:
    return all(has_size(directory / path, size) for path, size in finals(file))


def _without(way: Way) -> str:
    return f", without {way.lacks}" if way.lacks else ""


if __name__ == "__main__":
    sys.exit(run())
