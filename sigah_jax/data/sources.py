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
_MNIST = (
    "https://storage.googleapis.com/cvdf-datasets/mnist",
    "https://ossci-datasets.s3.amazonaws.com/mnist",
)
_KRIZ = "https://www.cs.toronto.edu/~kriz"
_S4TF = "https://storage.googleapis.com/s4tf-hosted-binaries/datasets/CIFAR10"


def _fvecs_bytes(rows: int, columns: int) -> int:
    return rows * (4 + 4 * columns)


def _fbin_bytes(rows: int, columns: int) -> int:
    return 8 + 4 * rows * columns


# md5: the file MD5SUM of the corpus, so a mirror is as good as the publisher. It is asked first
# because many networks let no FTP data through, which shows only as minutes of silence.
_GIST_ARCHIVE = File(
    "gist1m/gist.tar.gz",
    (
        "https://huggingface.co/datasets/fzliu/gist1m/resolve/main/gist.tar.gz",
        f"{_TEXMEX}/gist.tar.gz",
    ),
    2_740_172_684,
    "md5:31185e0f00854f74d27e8ad8d52628a9",
    members=(
        Member("gist/gist_base.fvecs", "gist1m/gist_base.fvecs", _fvecs_bytes(1_000_000, 960)),
        Member("gist/gist_learn.fvecs", "gist1m/gist_learn.fvecs", _fvecs_bytes(500_000, 960)),
        Member("gist/gist_query.fvecs", "gist1m/gist_query.fvecs", _fvecs_bytes(1_000, 960)),
    ),
)
_SIFT_ARCHIVE = File(
    "sift1m/sift.tar.gz",
    (
        "https://huggingface.co/datasets/fzliu/sift1m/resolve/main/sift.tar.gz",
        f"{_TEXMEX}/sift.tar.gz",
    ),
    168_280_445,
    "md5:b23d1b3b2ee8469d819b61ca900ef0ed",
    members=(
        Member("sift/sift_base.fvecs", "sift1m/sift_base.fvecs", _fvecs_bytes(1_000_000, 128)),
        Member("sift/sift_learn.fvecs", "sift1m/sift_learn.fvecs", _fvecs_bytes(100_000, 128)),
        Member("sift/sift_query.fvecs", "sift1m/sift_query.fvecs", _fvecs_bytes(10_000, 128)),
    ),
)

# sha256: no official one; several public benchmarks of vector indexes pin these same values
_GIST_HDF5 = File(
    "gist1m/gist-960-euclidean.hdf5",
    tuple(f"{site}/gist-960-euclidean.hdf5" for site in _ANN),
    3_844_648_288,
    "sha256:8e95831936bfdbfa0a56086942e2cf98cd703517c67f985914183eb4cdbf026a",
)
_SIFT_HDF5 = File(
    "sift1m/sift-128-euclidean.hdf5",
    tuple(f"{site}/sift-128-euclidean.hdf5" for site in _ANN),
    525_128_288,
    "sha256:dd6f0a6ed6b7ebb8934680f861a33ed01ff33991eaee4fd60914d854a0ca5984",
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


def _mnist(name: str, size_bytes: int, md5: str) -> File:
    urls = tuple(f"{site}/{name}" for site in _MNIST)
    return File(f"mnist/{name}", urls, size_bytes, f"md5:{md5}")


# md5: those that torchvision checks, of the files as yann.lecun.com gave them
_MNIST_FILES = (
    _mnist("train-images-idx3-ubyte.gz", 9_912_422, "f68b3c2dcbeaaa9fbdd348bbdeb94873"),
    _mnist("train-labels-idx1-ubyte.gz", 28_881, "d53e105ee54ea40749a09fcbcd1e9432"),
    _mnist("t10k-images-idx3-ubyte.gz", 1_648_877, "9fb629c4189551a2d022fa330f9573f3"),
    _mnist("t10k-labels-idx1-ubyte.gz", 4_542, "ec29112dd5afa0611ce80d1b7f02629c"),
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
    "mnist": (Way(_MNIST_FILES),),
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
