"""The bytes of an encoder's file: a `.npz` of its arrays and, as JSON, what else it needs.

Each parameter has its path in the tree as its name, pairs of `encoder.calibration` are in the group
`pairs`, and the array `about` holds the JSON.

Not responsible for what an encoder does with them (`hasher`) nor for paths of files.
"""

import io
import json
import zipfile
import zlib

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import config_dict

from sigah_jax.encoder.calibration import Pairs
from sigah_jax.files.cache import content_hash
from sigah_jax.model import networks

# what numpy raises of damaged bytes, and `unpack` of what is not an encoder
DAMAGE = (ValueError, KeyError, AttributeError, TypeError, RuntimeError, EOFError)
DAMAGE += (zipfile.BadZipFile, zlib.error)


def pack(params: dict, about: dict, pairs: Pairs | None) -> bytes:
    """The archive of parameters, with their hash as `about["encoder"]`, and of pairs."""
    groups = params if pairs is None else params | {"pairs": pairs._asdict()}
    arrays = {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(a)
        for path, a in jax.tree_util.tree_leaves_with_path(groups)
    }
    data = io.BytesIO()
    np.savez(data, about=json.dumps(about | {"encoder": params_hash(params)}), **arrays)
    return data.getvalue()


def unpack(data: bytes) -> tuple[dict, dict, Pairs | None]:
    """What `pack` was given; one of `DAMAGE` if it is damaged."""
    if not data.startswith(b"PK"):
        raise ValueError("it is not an .npz file")
    with zipfile.ZipFile(io.BytesIO(data)) as members:
        if bad := members.testzip():  # numpy reads only what a header asks for, and no checksum
            raise ValueError(f"{bad} does not fit its checksum")
    with np.load(io.BytesIO(data), allow_pickle=False) as held:
        arrays = {name: held[name] for name in held.files}
    if "about" not in arrays:
        raise ValueError("it holds no array `about`")
    about, params = json.loads(str(arrays.pop("about"))), {}
    for name, array in arrays.items():
        node = params
        *groups, last = name.split("/")
        for group in groups:
            node = node.setdefault(group, {})
        node[last] = array
    pairs = Pairs(**params.pop("pairs")) if "pairs" in params else None
    if params_hash(params) != about["encoder"]:
        raise ValueError("its arrays do not fit their hash")
    check_shapes(config_dict.FrozenConfigDict(about["model"]), params)
    return params, about, pairs


def params_hash(params: dict) -> str:
    """16 hex digits over all parameters of an encoder."""
    return content_hash([np.asarray(a) for a in jax.tree.leaves(params)])


def check_shapes(model: config_dict.FrozenConfigDict, params: dict) -> None:
    """ValueError unless `params` are those of the modules that `model` describes."""
    features = params["standardiser"]["projection"].shape[1]
    nets, rank = networks.make_generator(model, features), min(model.bits, features)

    def initial() -> dict:
        variances, rotation = jnp.zeros(features), jnp.zeros((rank, model.bits))
        return networks.init_gen(jax.random.key(0), nets, variances, rotation)

    wanted = jax.eval_shape(initial)
    there, wanted = (
        {jax.tree_util.keystr(path): a.shape for path, a in jax.tree_util.tree_leaves_with_path(t)}
        for t in (params["gen"], wanted)
    )
    for name in sorted(there | wanted):
        if there.get(name) != wanted.get(name):
            raise ValueError(f"gen{name} is {there.get(name)}, expected {wanted.get(name)}")
