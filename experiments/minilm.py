"""all-MiniLM-L6-v2: sentences to embeddings of length 1, 384-d.

A BERT (Devlin et al., arXiv:1810.04805) of 6 layers, distilled (Wang et al., MiniLM,
arXiv:2002.10957) and trained on pairs of sentences (Reimers & Gurevych, Sentence-BERT,
arXiv:1908.10084). An embedding is the mean of the last layer over the tokens, divided by its
length.

Shapes: B sentences, L tokens, H columns (384), h heads.

Not responsible for files: `sentences`.
"""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np

HEADS = 12
LONGEST = 128  # tokens of a sentence that are read, the first and the last token among them
PAD = 0  # the token that fills a row
_EPSILON = 1e-12  # of `_normalised`


def tokens_of(text: str, vocabulary: dict[str, int]) -> list[int]:
    """The tokens of an English sentence: WordPiece, the longest piece first.

    Args:
        text: ASCII alone, of which every character is a letter, a digit, space or punctuation.
        vocabulary: token -> number.

    Returns:
        1 to `LONGEST` numbers; a word that the pieces do not make up is one unknown token.
    """
    tokens = []
    for word in re.findall(r"[a-z0-9]+|[^a-z0-9\s]", text.lower()):
        tokens += _pieces(word, vocabulary)
    return [vocabulary["[CLS]"], *tokens[: LONGEST - 2], vocabulary["[SEP]"]]


def _pieces(word: str, vocabulary: dict[str, int]) -> list[int]:
    found, start = [], 0
    while start < len(word):
        mark = "##" if start else ""
        stops = range(len(word), start, -1)
        stop = next((stop for stop in stops if mark + word[start:stop] in vocabulary), None)
        if stop is None:
            return [vocabulary["[UNK]"]]
        found.append(vocabulary[mark + word[start:stop]])
        start = stop
    return found


def read_safetensors(data: bytes) -> dict[str, np.ndarray]:
    """The float32 arrays of a safetensors file, not to be written to; others are left out.

    The file is the length of a JSON header in 8 bytes, the header, and the arrays one after the
    other (huggingface.co/docs/safetensors).
    """
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    arrays = {}
    for name, array in header.items():
        if array.get("dtype") == "F32":
            begin, end = array["data_offsets"]
            values = np.frombuffer(data[start + begin : start + end], "<f4")
            arrays[name] = values.reshape(array["shape"])
    return arrays


def embed(weights: dict[str, jax.Array], tokens: jax.Array) -> jax.Array:
    """Embeddings of sentences, in full float32: `[B, L] i32 -> [B, H] f32` of length 1.

    Args:
        weights: of a BERT of any number of layers, by the names of its file.
        tokens: rows that end in `PAD`; an embedding does not depend on how many.
    """
    there = tokens != PAD
    layers = sum(name.endswith("intermediate.dense.weight") for name in weights)
    with jax.default_matmul_precision("highest"):
        x = weights["embeddings.word_embeddings.weight"][tokens]
        x += weights["embeddings.position_embeddings.weight"][: tokens.shape[1]]
        x += weights["embeddings.token_type_embeddings.weight"][0]
        x = _normalised(weights, "embeddings.LayerNorm", x)
        for layer in range(layers):
            x = _layer(weights, f"encoder.layer.{layer}", x, there)
    mean = jnp.sum(jnp.where(there[:, :, None], x, 0), 1) / jnp.sum(there, 1, keepdims=True)
    return mean / jnp.linalg.norm(mean, axis=1, keepdims=True)


def _layer(weights: dict, name: str, x: jax.Array, there: jax.Array) -> jax.Array:
    """One layer: self-attention, then two dense maps, each added to what it is made of."""

    def heads(part: str) -> jax.Array:  # [B, h, L, H / h]
        y = _dense(weights, f"{name}.attention.self.{part}", x)
        return y.reshape(*y.shape[:2], HEADS, -1).swapaxes(1, 2)

    query, key, value = heads("query"), heads("key"), heads("value")
    scores = query @ key.swapaxes(2, 3) / jnp.sqrt(jnp.float32(key.shape[3]))
    attention = jax.nn.softmax(jnp.where(there[:, None, None], scores, -jnp.inf), -1)
    y = (attention @ value).swapaxes(1, 2).reshape(x.shape)
    y = _dense(weights, f"{name}.attention.output.dense", y)
    x = _normalised(weights, f"{name}.attention.output.LayerNorm", x + y)
    y = jax.nn.gelu(_dense(weights, f"{name}.intermediate.dense", x), approximate=False)
    y = _dense(weights, f"{name}.output.dense", y)
    return _normalised(weights, f"{name}.output.LayerNorm", x + y)


def _dense(weights: dict, name: str, x: jax.Array) -> jax.Array:
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def _normalised(weights: dict, name: str, x: jax.Array) -> jax.Array:
    x = x - x.mean(-1, keepdims=True)
    x = x / jnp.sqrt((x**2).mean(-1, keepdims=True) + _EPSILON)
    return x * weights[f"{name}.weight"] + weights[f"{name}.bias"]
