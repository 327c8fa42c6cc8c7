"""What a configuration may hold: `validate` and what it refuses."""

import subprocess
import sys

import pytest
from test_config import named

from sigah_jax import config, config_checks
from sigah_jax.config_checks import validate
from sigah_jax.errors import BadInput
from sigah_jax.training import objective


@pytest.mark.parametrize("preset", config.PRESETS)
@pytest.mark.parametrize("bits", [1, 16, 96, 513])
@pytest.mark.parametrize("devices", [1, 2, 8])
def test_presets_are_valid(preset, bits, devices):
    validate(named(f"preset={preset},bits={bits}"), devices)


@pytest.mark.parametrize(
    "field, value",
    [
        ("seed", -1),
        ("engine", "gpu"),
        ("distributed", "yes"),
        ("sinks", ("tensorboard", "csv")),
        ("profile.steps", "20"),
        ("profile.steps", "20:10"),
        ("profile.steps", "0:10"),
        ("data.name", "cifar"),
        ("data.base", "my.npy"),
        ("data.train_rows", -1),
        ("data.metric", "dot"),
        ("data.queries_train", "my.npy"),
        ("model.bits", 0),
        ("model.atoms", 64),
        ("refit.atoms", 64),
        ("refit.share", -0.1),
        ("refit.reconstruction", -1.0),
        ("model.dis_widths", ()),
        ("model.decoder", "transformer"),
        ("eval.baselines", ("itq", "magic")),
        ("model.hash_widths", (0,)),
        ("model.dis_widths", (16, 2.5)),
        ("model.lam", float("nan")),
        ("loss.ordinal", -1.0),
        ("loss.temperature_bits", 0.0),
        ("optim.gen_lr", 0.0),
        ("optim.gen_lr", float("inf")),
        ("optim.decoder_lr_factor", 0.0),
        ("optim.adam_b1", 1.0),
        ("train.steps", 4001),
        ("train.anchors", 100),
        ("train.anchors", 4),  # fewer than devices
        ("train.graph_neighbours", 0),
        ("train.matmul_precision", "bf16"),
        ("eval.every_steps", 30),
    ],
)
def test_a_value_that_no_run_could_use_is_named(field, value):
    c = named()
    node, _, name = field.rpartition(".")
    with c.ignore_type():
        setattr(c[node] if node else c, name, value)
    with pytest.raises(BadInput, match=f"config.{field}") as e:
        validate(c, 8)  # 100 anchors do not divide over 8 devices
    assert "\n" not in str(e.value)


def test_a_missing_package_is_named_with_its_remedy(monkeypatch):
    c = named()
    c.sinks = ("tensorboard",)
    monkeypatch.setattr(config_checks, "SINKS", {"tensorboard": "no_such_package"})
    remedy = r"no_such_package; run pip install 'sigah_jax\[watch\]'"
    with pytest.raises(BadInput, match=remedy):
        validate(c, 1)


def test_without_a_hidden_layer_the_hash_network_needs_its_linear_path():
    c = named()
    c.model.hash_widths = ()
    validate(c, 1)
    c.model.linear_path = False
    with pytest.raises(BadInput, match="linear_path"):
        validate(c, 1)


def test_a_training_or_refit_that_has_nothing_to_learn_is_refused():
    assert objective.Weights._fields == config.WEIGHTS
    c = named()
    c.loss.update(dict.fromkeys(config.WEIGHTS, 0.0))
    with pytest.raises(BadInput, match=r"config.loss: the weights .* are all 0; raise one"):
        validate(c, 1)
    c.loss.ordinal, c.refit.reconstruction = 1.0, 0.0
    with pytest.raises(BadInput, match=r"no loss of the decoder has a weight; set refit.share=0"):
        validate(c, 1)
    c.refit.share = c.refine.share = 0.0
    validate(c, 1)


def test_a_price_of_flips_is_auto_or_a_number_above_0():
    c = named("")
    for mu in ("auto", "0.01", 0.01, 1):
        config.change(c, "refine.mu", mu)
        validate(c, 1)
    for mu in ("0", "-1", "nan", "inf", "much"):
        config.change(c, "refine.mu", mu)
        with pytest.raises(BadInput, match=r"refine.mu=.*: expected auto, or a number above 0"):
            validate(c, 1)


def test_checking_a_config_loads_neither_jax_nor_a_baseline():
    code = "import sys; from sigah_jax import config, config_checks; c = config.get_config();"
    code += "c.data.name = 'mnist'; config_checks.validate(c, 1); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert {"numpy", "sigah_jax.baselines.methods"} <= loaded
    assert not {"jax", "flax", "optax", "orbax", "faiss", "scipy", "h5py", "pyarrow"} & loaded
    ours = {name for name in loaded if name.startswith("sigah_jax.baselines.")}
    assert ours == {"sigah_jax.baselines.methods"}


@pytest.mark.parametrize("field, value", [("metric", "ip"), ("queries_train", "asked.npy")])
def test_where_queries_differ_from_rows_the_graph_is_exact(field, value):
    c = config.vectors_config()
    c.data.base, c.data[field] = "mine.npy", value
    validate(c, 1)
    c.train.graph = "approximate"
    with pytest.raises(BadInput, match=r"config\.train\.graph=approximate: .* leave it exact"):
        validate(c, 1)
