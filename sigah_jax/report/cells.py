"""The cells of a comparison, read from a directory of results.

Not responsible for running them: `experiments.cell` writes them.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from sigah_jax.errors import BadInput
from sigah_jax.files import whole

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
RECALL_AT = (1, 10, 100, 1000, 10000)
REMEDY = "remove it, then the same command runs it again"
_MAX_BITS = 1 << 20


class Cell(NamedTuple):
    """A method on a data set at a code length and a seed."""

    dataset: str
    method: str
    bits: int
    seed: int
    metrics: dict[str, float] | None  # None: the method cannot have that many bits
    pr_curve: list[list]  # precision and recall at each radius
    data: str  # where the vectors came from


def make_cell(
    dataset: Any, method: Any, bits: Any, seed: Any, metrics: Any, pr_curve: Any, data: Any
) -> Cell:
    """A cell of what a JSON file holds; ValueError for what no table or plot could show."""
    if not all(isinstance(text, str) for text in (dataset, method, data)) or not dataset:
        raise ValueError(f"names {dataset!r}, {method!r}, {data!r}")
    if type(bits) is not int or not 0 < bits <= _MAX_BITS or type(seed) is not int:
        raise ValueError(f"bits={bits!r}, seed={seed!r}")
    if metrics not in (None, {}):  # else the method cannot have that many bits
        for name in (*METRICS, *(f"recall@{r}" for r in RECALL_AT)):
            if not _is_share(metrics.get(name)):
                raise ValueError(f"{name}={metrics.get(name)!r}")
        precision, recall = pr_curve
        if len(precision) != len(recall) or not all(map(_is_share, recall)):
            raise ValueError("its curve")
        if not all(x is None or _is_share(x) for x in precision):
            raise ValueError("its curve")
    return Cell(dataset, method, bits, seed, metrics or None, pr_curve, data)


def read_cells(root: Path) -> list[Cell]:
    """All cells below `root/<data set>/<method>/bits<K>/seed<k>.json`, in the order of names.

    Raises:
        BadInput: a file there that is not a cell.
    """
    cells = []
    for path in sorted(root.glob("*/*/bits*/seed*.json")):
        with reading(path) as c:
            metrics = None if "not_applicable" in c else c["metrics"]
            names = (c["dataset"], c["method"], c["bits"], c["seed"])
            cells.append(make_cell(*names, metrics, c.get("pr_curve", []), c.get("data", "")))
    return cells


@contextlib.contextmanager
def reading(path: Path, remedy: str = REMEDY) -> Iterator[dict]:
    """Gives the object of a JSON file, and turns what is wrong with its parts into BadInput.

    Args:
        remedy: what to do about a damaged file, for the message.
    """
    held = whole.read_json(path, remedy)
    try:
        yield held
    except BadInput:
        raise
    except (ValueError, LookupError, TypeError, AttributeError) as e:
        raise BadInput(f"{path}: damaged, or of something else ({e!r}); {remedy}") from e


def _is_share(x: Any) -> bool:
    """Whether it is a number from 0 to 1, but for rounding."""
    return type(x) in (int, float) and -0.001 < x < 1.001
