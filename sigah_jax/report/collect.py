"""The cells of a comparison, read from a directory of results.

Not responsible for running them: `experiments.cell` writes them.
"""

import json
from pathlib import Path
from typing import NamedTuple

from sigah_jax.errors import BadInput


class Cell(NamedTuple):
    """A method on a data set at a code length and a seed."""

    dataset: str
    method: str
    bits: int
    seed: int
    metrics: dict[str, float] | None  # None: the method cannot have that many bits
    pr_curve: list[list]  # precision and recall at each radius
    data: str  # where the vectors came from


def read_cells(root: Path) -> list[Cell]:
    """All cells below `root/<data set>/<method>/bits<K>/seed<k>.json`, in the order of names.

    Raises:
        BadInput: a file there that is no cell.
    """
    cells = []
    for path in sorted(root.glob("*/*/bits*/seed*.json")):
        try:
            c = json.loads(path.read_text())
            metrics = None if "not_applicable" in c else c["metrics"]
            cells.append(
                Cell(
                    c["dataset"],
                    c["method"],
                    c["bits"],
                    c["seed"],
                    metrics,
                    c.get("pr_curve", []),
                    c.get("data", ""),
                )
            )
        except (ValueError, KeyError, TypeError) as e:
            raise BadInput(f"{path}: not a cell ({e!r}); remove it, it will be run again") from e
    return cells
