"""Writes the result tables of a Markdown file out of results files, or checks them.

    python -m sigah_jax.report.readme README.md [--check]

A table stands between `<!-- table: best.json paper.json -->` and `<!-- end -->`: all methods of
the first file, then SiGAH of the second one, which is optional. Paths are relative to the
Markdown file. Nobody edits what is between the two lines.

Not responsible for running anything: a results file is what a run left.
"""

import argparse
import json
import re
import sys
from pathlib import Path

from sigah_jax.errors import BadInput
from sigah_jax.report.tables import COLUMNS, markdown_table

_TABLE = re.compile(r"(<!-- table: ([^>]*?) -->\n).*?(<!-- end -->)", re.DOTALL)


def fill(text: str, directory: Path) -> str:
    """`text` with each table written anew.

    Raises:
        BadInput: a results file that is missing or not one.
    """
    return _TABLE.sub(
        lambda m: m[1] + table([directory / name for name in m[2].split()]) + "\n" + m[3], text
    )


def table(paths: list[Path]) -> str:
    """One table and a line on how it was made, from one or two results files."""
    first, *others = (read(path) for path in paths)
    metrics = dict(first["metrics"])
    for other in others:
        metrics["sigah_paper"] = other["metrics"]["sigah"]
    return f"{markdown_table(metrics, COLUMNS, first['bits'])}\n\n{made_by(first)}"


def made_by(results: dict) -> str:
    """Seed, time, memory, device and commit of a results file, in one line."""
    seconds = results["seconds"]
    return (
        f"Seed {results['seed']}; set-up {seconds['setup']:.0f} s, training "
        f"{seconds['train']:.0f} s, evaluation {seconds['evaluate']:.0f} s, peak memory "
        f"{results['peak_rss_bytes'] / 1e9:.1f} GB on {results['device']}; "
        f"commit {results['commit'][:7]}."
    )


def read(path: Path) -> dict:
    """A results file.

    Raises:
        BadInput: missing, or without the fields of one.
    """
    try:
        results = json.loads(path.read_text())
        results["metrics"]["sigah"], results["seconds"]["train"]
    except (OSError, ValueError, KeyError) as e:
        raise BadInput(f"{path}: not the results.json of a finished run ({e})") from e
    return results


def main() -> int:
    """Writes the file, or with --check compares: 0 equal, 1 different, 2 bad input."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if it differs")
    args = parser.parse_args()
    try:
        text = args.file.read_text()
        wanted = fill(text, args.file.parent)
    except (BadInput, OSError) as e:
        print(f"error: {e}", file=sys.stderr)
        return 2
    if args.check:
        if text != wanted:
            print(f"{args.file}: differs from its results files; run without --check")
        return int(text != wanted)
    args.file.write_text(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main())
