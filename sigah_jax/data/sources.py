"""What to download for each data set, from where, and what it must look like.

Checksums and sizes are facts of the publishers; where one comes from is said beside it.

Not responsible for the transfer (`transfer`) nor for what is then done (`download`, `archives`).
"""

import shlex
from typing import NamedTuple


class Member(NamedTuple):
    """A file taken out of an archive."""

    name: str  # in the archive
    path: str  # below the data directory
    size_bytes: int


class File(NamedTuple):
    """A file to download."""

    path: str  # below the data directory
    urls: tuple[str, ...]  # mirrors of the same bytes, best first
    size_bytes: int  # what is downloaded, exact
    digest: str = ""  # "md5:<hex>" or "sha256:<hex>"; empty: none is published
    members: tuple[Member, ...] = ()  # the file is an archive: take these out, then remove it
    first_rows: tuple[int, int] = ()  # (rows, columns): only these rows of a larger f32 fbin file


class Way(NamedTuple):
    """One complete form of a data set."""

    files: tuple[File, ...]
    lacks: str = ""  # what this form has not


_TEXMEX = "ftp://ftp.irisa.fr/local/texmex/corpus"  # the http address of the same host is dead
_ANN = ("https://ann-benchmarks.com", "http://ann-benchmarks.com")
_DEEP = "https://storage.yandexcloud.net/yandex-research/ann-datasets/DEEP"
_KRIZ = "https://www.cs.toronto.edu/~kriz"
_S4TF = "https://storage.googleapis.com/s4tf-hosted-binaries/datasets/CIFAR10"


def _fbin_bytes(rows: int, columns: int) -> int:
    return 8 + 4 * rows * columns


def _texmex(name: str, d: int, rows: dict[str, int], size_bytes: int, md5: str) -> File:
    """The archive of a set, of fvecs files with so many rows.

    md5: the file MD5SUM of the corpus, so a mirror is as good as the publisher. It is asked first
    because many networks let no FTP data through, which shows only as minutes of silence.
    """
    mirror = f"https://huggingface.co/datasets/fzliu/{name}1m/resolve/main/{name}.tar.gz"
    urls = (mirror, f"{_TEXMEX}/{name}.tar.gz")
    files = {f"{name}_{part}.fvecs": n * (4 + 4 * d) for part, n in rows.items()}
    members = tuple(Member(f"{name}/{f}", f"{name}1m/{f}", size) for f, size in files.items())
    return File(f"{name}1m/{name}.tar.gz", urls, size_bytes, f"md5:{md5}", members)


def _ann(name: str, file: str, size_bytes: int, sha256: str) -> File:
    """sha256: no official one; several public benchmarks of vector indexes pin the same."""
    urls = tuple(f"{site}/{file}" for site in _ANN)
    return File(f"{name}/{file}", urls, size_bytes, f"sha256:{sha256}")


_GIST_ARCHIVE = _texmex(
    "gist",
    960,
    {"base": 1_000_000, "learn": 500_000, "query": 1_000},
    2_740_172_684,
    "31185e0f00854f74d27e8ad8d52628a9",
)
_SIFT_ARCHIVE = _texmex(
    "sift",
    128,
    {"base": 1_000_000, "learn": 100_000, "query": 10_000},
    168_280_445,
    "b23d1b3b2ee8469d819b61ca900ef0ed",
)
_GIST_HDF5 = _ann(
    "gist1m",
    "gist-960-euclidean.hdf5",
    3_844_648_288,
    "8e95831936bfdbfa0a56086942e2cf98cd703517c67f985914183eb4cdbf026a",
)
_SIFT_HDF5 = _ann(
    "sift1m",
    "sift-128-euclidean.hdf5",
    525_128_288,
    "dd6f0a6ed6b7ebb8934680f861a33ed01ff33991eaee4fd60914d854a0ca5984",
)

# The whole files are 384 GB and 138 GB. Nobody publishes a checksum of their beginnings: the
# header and the length are what can be checked. That of the queries is pinned by several public
# benchmarks.
_DEEP_FILES = (
    File(
        "deep1m/base.1M.fbin",
        (f"{_DEEP}/base.1B.fbin",),
        _fbin_bytes(1_000_000, 96),
        first_rows=(1_000_000, 96),
    ),
    File(
        "deep1m/learn.500K.fbin",
        (f"{_DEEP}/learn.350M.fbin",),
        _fbin_bytes(500_000, 96),
        first_rows=(500_000, 96),
    ),
    File(
        "deep1m/query.public.10K.fbin",
        (f"{_DEEP}/query.public.10K.fbin",),
        _fbin_bytes(10_000, 96),
        "sha256:8438fc763f14e0f9741fda15b3e11215aef089ce17d1ad47d53b52a7c9fda5bb",
    ),
)


# A record is one label byte (CIFAR-100: two) and 3,072 bytes of colour; sizes follow from that.
_CIFAR10_MEMBERS = tuple(
    Member(f"cifar-10-batches-bin/{name}", f"cifar/cifar-10-batches-bin/{name}", 10_000 * 3073)
    for name in (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin")
)
_CIFAR100_MEMBERS = tuple(
    Member(f"cifar-100-binary/{name}", f"cifar/cifar-100-binary/{name}", rows * 3074)
    for name, rows in (("train.bin", 50_000), ("test.bin", 10_000))
)
# md5: the tables of www.cs.toronto.edu/~kriz/cifar.html
_CIFAR_FILES = (
    File(
        "cifar/cifar-10-binary.tar.gz",
        (f"{_KRIZ}/cifar-10-binary.tar.gz", f"{_S4TF}/cifar-10-binary.tar.gz"),
        170_052_171,
        "md5:c32a1d4ab5d03f1284b67883e8d87530",
        members=_CIFAR10_MEMBERS,
    ),
    File(
        "cifar/cifar-100-binary.tar.gz",
        (f"{_KRIZ}/cifar-100-binary.tar.gz",),
        168_513_733,
        "md5:03b5dce01913d631647c71ecec9e9cb8",
        members=_CIFAR100_MEMBERS,
    ),
)

# The forms of each set, best first: the next is tried when no mirror gives one.
SOURCES: dict[str, tuple[Way, ...]] = {
    "deep1m": (Way(_DEEP_FILES),),
    "gist1m": (Way((_GIST_ARCHIVE,)), Way((_GIST_HDF5,), lacks="learn split")),
    "sift1m": (Way((_SIFT_ARCHIVE,)), Way((_SIFT_HDF5,), lacks="learn split")),
    "cifar": (Way(_CIFAR_FILES),),
}


def finals(file: File) -> tuple[tuple[str, int], ...]:
    """`(path below the data directory, bytes)` of what is there at the end."""
    kept = tuple((member.path, member.size_bytes) for member in file.members)
    return kept or ((file.path, file.size_bytes),)


def command_for(name: str, given: str = "") -> str:
    """The command line that gets a set and how much it is, for the messages of loaders.

    Args:
        name: a key of `SOURCES`.
        given: the data directory the user chose, as for `data_directory`.
    """
    files = SOURCES[name][0].files
    transfer = sum(file.size_bytes for file in files)
    unpacked = sum(member.size_bytes for file in files for member in file.members)
    directory = f" --dir={shlex.quote(given)}" if given else ""
    return (
        f"python -m sigah_jax.data.download {name}{directory} "
        f"({transfer / 1e9:.2g} GB to download, needs {(transfer + unpacked) / 1e9:.2g} GB of disk)"
    )
