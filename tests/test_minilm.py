"""The encoder of sentences against loops in float64 on tiny weights, and its tokens by hand."""

import json
import math

import numpy as np

from experiments import minilm

VOCABULARY = {
    token: number
    for number, token in enumerate(
        ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "a", "bell", "##s", "##ton", "but", ":", "-", "be"]
    )
}


def tokens(text):
    names = list(VOCABULARY)
    return [names[number] for number in minilm.tokens_of(text, VOCABULARY)]


def test_tokens_by_hand():
    # "bell" before "be"; "buttons" is "but", "##ton", "##s"; no piece of "zoo" is known
    assert tokens("A bells-buttons: zoo") == (
        ["[CLS]", "a", "bell", "##s", "-", "but", "##ton", "##s", ":", "[UNK]", "[SEP]"]
    )
    # "bellx" begins with a piece, but no piece goes on
    assert tokens("bellx") == ["[CLS]", "[UNK]", "[SEP]"]


def test_a_long_text_is_cut_and_keeps_its_last_token():
    # 128 tokens: [CLS], the first 126 words, [SEP]
    found = tokens("a " * 126 + "bell")
    assert len(found) == 128 and found[-2:] == ["a", "[SEP]"] and "bell" not in found
    assert tokens("a " * 125 + "bell")[-2:] == ["bell", "[SEP]"]


def tiny_weights(layers=2, dims=24, inner=36, words=12, seed=0):
    """Random weights of a BERT with 12 heads of 2 columns, by the names of its file."""
    rng = np.random.default_rng(seed)
    shapes = {
        "embeddings.word_embeddings.weight": (words, dims),
        "embeddings.position_embeddings.weight": (16, dims),
        "embeddings.token_type_embeddings.weight": (2, dims),
        "embeddings.LayerNorm.weight": (dims,),
        "embeddings.LayerNorm.bias": (dims,),
    }
    for layer in range(layers):
        name = f"encoder.layer.{layer}"
        dense = {f"attention.self.{part}": (dims, dims) for part in ("query", "key", "value")}
        dense |= {"attention.output.dense": (dims, dims), "intermediate.dense": (inner, dims)}
        dense |= {"output.dense": (dims, inner)}
        for part, shape in dense.items():
            shapes |= {f"{name}.{part}.weight": shape, f"{name}.{part}.bias": shape[:1]}
        for part in ("attention.output", "output"):
            for kind in ("weight", "bias"):
                shapes[f"{name}.{part}.LayerNorm.{kind}"] = (dims,)
    # small biases, for what all sentences have in common would hide their difference
    size = {name: 0.1 if name.endswith("bias") else 1 for name in shapes}
    return {
        name: (size[name] * rng.normal(size=shape)).astype(np.float32)
        for name, shape in shapes.items()
    }


def reference(weights, row):
    """The embedding of one sentence without filling, in float64, head by head."""
    w = {name: a.astype(np.float64) for name, a in weights.items()}

    def dense(name, x):
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def normalised(name, x):
        x = (x - x.mean(1)[:, None]) / np.sqrt(x.var(1)[:, None] + 1e-12)
        return x * w[f"{name}.weight"] + w[f"{name}.bias"]

    x = (
        w["embeddings.word_embeddings.weight"][row]
        + w["embeddings.token_type_embeddings.weight"][0]
    )
    x = normalised(
        "embeddings.LayerNorm", x + w["embeddings.position_embeddings.weight"][: len(row)]
    )
    for layer in range(2):
        name = f"encoder.layer.{layer}"
        q, k, v = (dense(f"{name}.attention.self.{part}", x) for part in ("query", "key", "value"))
        heads = []
        for head in range(12):
            at = slice(2 * head, 2 * head + 2)
            e = np.exp(q[:, at] @ k[:, at].T / math.sqrt(2))
            heads.append(e / e.sum(1)[:, None] @ v[:, at])
        y = dense(f"{name}.attention.output.dense", np.concatenate(heads, 1))
        x = normalised(f"{name}.attention.output.LayerNorm", x + y)
        y = dense(f"{name}.intermediate.dense", x)
        y = y / 2 * (1 + np.vectorize(math.erf)(y / math.sqrt(2)))
        x = normalised(f"{name}.output.LayerNorm", x + dense(f"{name}.output.dense", y))
    mean = x.mean(0)
    return mean / np.linalg.norm(mean)


def test_embeddings_equal_the_definition_whatever_fills_the_rows():
    weights = tiny_weights()
    rows = [[1, 4, 2], [1, 5, 6, 7, 8, 2]]
    want = [reference(weights, row) for row in rows]
    assert want[0] @ want[1] < 0.99  # so that a mixed-up row is seen
    for length in (6, 8, 16):
        filled = np.array([row + [0] * (length - len(row)) for row in rows], np.int32)
        np.testing.assert_allclose(minilm.embed(weights, filled), want, atol=1e-5)


def test_safetensors_are_read_by_their_header():
    a, b = np.arange(6, dtype="<f4").reshape(2, 3), np.ones(2, "<i8")
    header = {
        "__metadata__": {"format": "pt"},
        "b": {"dtype": "I64", "shape": [2], "data_offsets": [0, 16]},
        "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [16, 40]},
    }
    text = json.dumps(header).encode()
    data = len(text).to_bytes(8, "little") + text + b.tobytes() + a.tobytes()
    found = minilm.read_safetensors(data)
    assert list(found) == ["a"]
    np.testing.assert_array_equal(found["a"], a)
