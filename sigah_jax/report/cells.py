"""The cells of a comparison: each is a line of JSON in `<results>/<data set>.jsonl`.

A line holds the measurements of one cell and where they came from. The lines are in the order of
method, bits and seed. A line without a precision-recall curve is of real-valued queries, whose
ranking has no Hamming radii.

Not responsible for running cells: `experiments.cell`.
"""

import contextlib
import functools
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from sigah_jax.errors import BadInput
from sigah_jax.files import locks, whole
from sigah_jax.retrieval.metrics import RECALL_AT

METRICS = (
    "map",
    "map@1000",
    "area_rp",
    "precision@100",
    "recall@10",
    "recall@100",
    "1-recall@1",
    "1-recall@10",
    "1-recall@100",
)
# of real-valued queries: the costs, of which less is better, and what a table shows
COSTS = ("ms_per_query", "encode_secs")
REAL_METRICS = ("recall@10", "recall@100", "map@1000", "reranked", *COSTS)
REMEDY = "remove the line, then the same command runs its cell again"
_MAX_BITS = 1 << 20


class Line(NamedTuple):
    """Where the line of a cell is, or will be."""

    path: Path
    method: str
    bits: int
    seed: int

    def __str__(self) -> str:
        return f"{self.path}: {self.method}, {self.bits} bits, seed {self.seed}"

    def read(self) -> dict | None:
        """What it holds, not to be changed; None if it is not there. BadInput: see `read_lines`."""
        try:
            now = self.path.stat()
        except FileNotFoundError:
            return None
        lines = _lines_as_of(self.path, now.st_ino, now.st_mtime_ns, now.st_size)
        return lines.get(self[1:])

    def exists(self) -> bool:
        """Whether it is there."""
        return self.read() is not None


class Cell(NamedTuple):
    """A method on a data set at a code length and a seed."""

    dataset: str
    method: str
    bits: int
    seed: int
    metrics: dict[str, float] | None  # None: the method cannot have that many bits
    pr_curve: list[list]  # precision and recall at each radius; empty of real-valued queries
    data: str  # where the vectors came from


def cell_of(line: dict) -> Cell:
    """The cell of a line.

    Raises:
        ValueError, LookupError, TypeError, AttributeError: what no table or plot could show.
    """
    dataset, method, bits, seed = (line[name] for name in ("dataset", "method", "bits", "seed"))
    data, metrics, curve = line.get("data", ""), None, []
    if not all(isinstance(text, str) for text in (dataset, method, data)) or not dataset:
        raise ValueError(f"names {dataset!r}, {method!r}, {data!r}")
    if type(bits) is not int or not 0 < bits <= _MAX_BITS or type(seed) is not int:
        raise ValueError(f"bits={bits!r}, seed={seed!r}")
    if "not_applicable" not in line:
        Path(line["config"]["data"]["base"])  # which file it is of
        if type(rows := line["rows"]["training"]) is not int:
            raise ValueError(f"{rows!r} training rows")
        metrics, costs = line["metrics"], ()
        shares = {*METRICS, *(f"recall@{r}" for r in RECALL_AT)}
        if "pr_curve" in line:
            precision, recall = curve = line["pr_curve"]
            if len(precision) != len(recall) or not all(map(_is_share, recall)):
                raise ValueError("its curve")
            if not all(x is None or _is_share(x) for x in precision):
                raise ValueError("its curve")
        else:
            shares, costs = shares - {"area_rp"} | {"reranked"}, COSTS
        for name in (*sorted(shares), *costs):
            if not (_is_cost if name in costs else _is_share)(metrics[name]):
                raise ValueError(f"{name}={metrics[name]!r}")
    return Cell(dataset, method, bits, seed, metrics, curve, data)


def read_cells(root: Path) -> list[Cell]:
    """The cells of all data sets in `root`, ordered by data set, method, bits and seed.

    Raises:
        BadInput: see `read_lines`.
    """
    paths = sorted(root.glob("*.jsonl"))
    return [cell_of(line) for path in paths for _, line in sorted(read_lines(path).items())]


def datasets(cells: Iterable[Cell]) -> list[str]:
    """The names of the data sets, in order."""
    return sorted({c.dataset for c in cells})


def read_lines(path: Path) -> dict[tuple[str, int, int], dict]:
    """The lines of a file by method, bits and seed; none if it does not exist.

    Raises:
        BadInput: a line, named by its number, is damaged, is there twice, or is of another set.
    """
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return {}
    lines = {}
    for number, part in enumerate(text.splitlines(), 1):
        where = f"{path}:{number}"
        with checking(where, REMEDY):
            line = whole.loads(part, where, REMEDY)
            cell = cell_of(line)
            key = (cell.method, cell.bits, cell.seed)
            if cell.dataset != path.stem or key in lines:
                raise ValueError(f"{cell.dataset}, {key}: of another set, or there twice")
            lines[key] = line
    return lines


_lines_as_of = functools.lru_cache(maxsize=8)(lambda path, *_: read_lines(path))


def add(line: dict, root: Path) -> None:
    """Puts a line in the file of its data set, in place of an older one of the same cell.

    All processes that share the file, also those of other hosts, take turns, and the file is
    written whole: no line is lost, and a killed process leaves the file as it was. The lock's file
    stays, because removing it is not safe on a network file system.
    """
    cell = cell_of(line)
    path = root / f"{cell.dataset}.jsonl"
    root.mkdir(parents=True, exist_ok=True)
    lock = root / f"{path.name}.lock"
    while True:
        with locks.open_file(lock) as f:
            if not locks.take(f, lock, wait=True):
                continue  # the file was removed meanwhile: the new one is taken
            lines = read_lines(path) | {(cell.method, cell.bits, cell.seed): line}
            texts = [whole.dumps(line) for _, line in sorted(lines.items())]
            whole.write_text(path, "".join(f"{text}\n" for text in texts))
            return


@contextlib.contextmanager
def checking(where: str | Path, remedy: str) -> Iterator[None]:
    """Turns what is wrong with the parts of a JSON object into BadInput.

    Args:
        where: names the object in the message.
        remedy: says what to do about it.
    """
    try:
        yield
    except BadInput:
        raise
    except (ValueError, LookupError, TypeError, AttributeError) as e:
        raise BadInput(f"{where}: damaged, or of something else ({e!r}); {remedy}") from e


def _is_cost(x: Any) -> bool:
    """Whether it is a number from 0 on."""
    return type(x) in (int, float) and 0 <= x < math.inf


def _is_share(x: Any) -> bool:
    """Whether it is a number from 0 to 1, except for rounding."""
    return type(x) in (int, float) and -0.001 < x < 1.001
