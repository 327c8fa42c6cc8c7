"""The command that proves an accelerator, whole and small; and that each of its checks can fail."""

import copy
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import accelerator, equality, rates, training_rate
from sigah_jax.devices import parallel
from sigah_jax.errors import BadInput

LONG = "--minutes=600"

# on whatever devices JAX finds; a whole run compiles for half a minute, more on a busy machine
pytestmark = [pytest.mark.accelerator, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """A whole small run, of which some parts are left for another call."""
    out = tmp_path_factory.mktemp("accelerator") / "out"
    assert (
        accelerator.main([f"--out={out}", "--small", "--parts=bounds,equality,training", LONG]) == 0
    )
    return out


def read(out, name):
    return json.loads((out / f"{name}.json").read_text())


def test_devices_give_what_a_cpu_gives(out):
    checks = read(out, "equality")["checks"]
    assert len(checks) == 13 and all(check["passed"] for check in checks)
    assert all(check["compared"] > 0 for check in checks)


def test_the_table_tells_what_is_not_measured_and_the_same_command_resumes(out, capsys):
    table = (out / "accelerator.md").read_text()
    assert "- hamming: not measured" in table and "| codes of base rows |" in table
    before = (out / "equality.json").read_bytes()
    flags = [f"--out={out}", "--small", "--parts=equality,encoding,hamming,graph,ground_truth"]
    capsys.readouterr()
    assert accelerator.main([*flags, "--minutes=0"]) == 0
    assert "encoding: not measured, --minutes=0 are over" in capsys.readouterr().out
    assert accelerator.main([*flags, LONG]) == 0
    assert "equality …" not in capsys.readouterr().out
    assert (out / "equality.json").read_bytes() == before
    table = (out / "accelerator.md").read_text()
    for part in ("Hamming top 100", "neighbour graph, k=64", "ground truth", "refinement"):
        assert f"| {part}" in table
    assert table.count("not measured |") == 7 or jax.default_backend() != "cpu"  # memory
    assert "- quality: not measured" in table and "- hamming:" not in table


def test_a_directory_is_of_one_kind_of_device(out, capsys):
    assert accelerator.main([f"--out={out}"]) == 2
    error = capsys.readouterr().err
    assert "bounds.json: is of" in error and "give another --out" in error
    assert error.count("\n") == 1


def test_a_check_that_failed_is_shown_and_fails_the_command(out, tmp_path, capsys):
    part = read(out, "equality")
    part.pop("blake2b")
    part["checks"][3]["passed"] = False
    (tmp_path / "equality.json").write_text(json.dumps(part))
    assert accelerator.main([f"--out={tmp_path}", "--small", "--parts=equality"]) == 1
    assert "**failed**" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--require=tpu"], "--require=tpu: JAX finds cpu devices; pip install -e '.[tpu]'"),
        (["--parts=speed"], "--parts: 'speed' is none of bounds"),
        (["--parts=encoding", "--small"], "the part training comes first"),
    ],
)
@pytest.mark.skipif(jax.default_backend() != "cpu", reason="the message names a CPU")
def test_bad_input_is_a_line(flags, words, tmp_path, capsys):
    assert accelerator.main([f"--out={tmp_path}/out", *flags]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1


def test_a_device_without_memory_is_a_line_that_names_a_field():
    def too_much():
        return jnp.zeros((1 << 44,), jnp.float32).block_until_ready()  # 64 TiB

    with (
        pytest.raises(BadInput, match=r"out of device memory \(.+\); lower config\.train\.anchors"),
        parallel.enough_memory("lower config.train.anchors"),
    ):
        too_much()
    other = jax.errors.JaxRuntimeError("INTERNAL: something else")
    with pytest.raises(jax.errors.JaxRuntimeError), parallel.enough_memory("no remedy"):
        raise other


class Decoder:
    """Stands for an encoder in comparisons: ẑ is the code itself."""

    def decode(self, packed):
        return np.unpackbits(packed, axis=1).astype(np.float32)


@pytest.fixture(scope="module")
def results():
    """What both sides found, made up but for the searches, and equal."""
    sizes = equality.SMALL
    want = equality.searched(sizes, "cpu")
    generator = np.random.default_rng(0)
    for kind, rows in (("", sizes.rows), ("query_", sizes.queries)):
        u = generator.standard_normal((rows, sizes.bits), np.float32)
        u[:, 0] = 1e-7
        want |= {f"{kind}projections": u, f"{kind}codes": np.packbits(u > 0, axis=1)}
    want |= {"refined": want["codes"].copy(), "trained_codes": want["codes"].copy()}
    want["synthetic"] = Decoder().decode(want["codes"])
    want["features"] = want["synthetic"] / 2
    want["losses"] = np.array([1.5, 1.2, 1.1])
    return want


def verdicts(results, found):
    checks = equality.compare(equality.SMALL, Decoder(), results, found)
    return {check.name: check for check in checks}


def failed(results, found):
    return [name for name, check in verdicts(results, found).items() if not check.passed]


def test_equal_results_pass_every_check(results):
    assert failed(results, copy.deepcopy(results)) == []
    assert not any(check.different for check in verdicts(results, results).values())


@pytest.mark.parametrize(
    ("name", "check"),
    [
        ("truth", "ground truth"),
        ("hamming", "Hamming search, distances and ids"),
        ("total", "histograms of distances"),
        ("relevant", "histograms of relevant distances"),
    ],
)
def test_whole_numbers_must_be_equal(results, name, check):
    found = copy.deepcopy(results)
    found[name].flat[7] += 1
    assert failed(results, found) == [check]


def test_neighbours_may_change_places_among_equals_alone(results):
    found = copy.deepcopy(results)
    # rows 0 and 1 are equal: where both are among the neighbours they stand side by side
    q, at = np.argwhere((results["ids"][:, :-1] % 50 == 0) & (np.diff(results["ids"]) == 1))[0]
    found["ids"][q, [at, at + 1]] = found["ids"][q, [at + 1, at]]
    assert failed(results, found) == []
    assert verdicts(results, found)["nearest neighbours"].different == 2
    found["ids"][q, [0, 99]] = found["ids"][q, [99, 0]]
    assert failed(results, found) == ["nearest neighbours"]
    found = copy.deepcopy(results)
    found["graph"][5, 1] = found["graph"][5, 0]  # twice the same
    assert failed(results, found) == ["neighbour graph"]


def test_distances_as_a_product_of_ten_bits_gives_them_fail(results):
    found = copy.deepcopy(results)
    found["squared"] *= 1 + 2.0**-10 * np.random.default_rng(0).random(found["squared"].shape)
    assert failed(results, found) == ["squared distances"]


@pytest.mark.parametrize("kind", ["", "query_"])
def test_bits_may_differ_where_the_projection_is_nothing(results, kind):
    found = copy.deepcopy(results)
    found[f"{kind}codes"][3, 0] ^= 0x80  # bit 0, u = 1e-7
    assert failed(results, found) == []
    found[f"{kind}codes"][3, 0] ^= 0x40
    name = "codes of queries" if kind else "codes of base rows"
    assert failed(results, found) == [name]
    assert verdicts(results, found)[name].different == 2


def test_synthetic_features_refinement_and_training_are_held_to_their_tolerances(results):
    for name, change, check in (
        ("synthetic", 1e-3, "synthetic features"),
        ("losses", 0.05, "losses of 60 steps"),
        ("losses", np.nan, "losses of 60 steps"),
    ):
        found = copy.deepcopy(results)
        found[name].flat[1] += change
        assert failed(results, found) == [check]
    found = copy.deepcopy(results)
    found["refined"][:20, 0] ^= 1  # 20 of 2,000 rows: 1 %, but they are farther from z
    assert failed(results, found) == ["refined codes, rows"]
    found = copy.deepcopy(results)
    found["trained_codes"][:, 0] ^= 15  # 4 of 32 bits
    assert failed(results, found) == ["codes after 60 steps, bits"]


def test_idle_time_by_hand():
    # from 0 to 20: 2 to 4 within 0 to 5, then nothing until 10, then until 20
    assert training_rate.idle([(10, 20), (0, 5), (2, 4)]) == pytest.approx(5 / 20)
    assert training_rate.idle([(3, 4)]) == 0


def test_operations_of_a_step_by_hand(monkeypatch):
    config = accelerator.cell.make_config("mnist", "sigah", 64, 0)
    config.model.hash_widths, config.model.dis_widths = (10,), (3,)
    config.model.atoms, config.model.ista_steps = 100, 2
    config.train.anchors, config.train.others = 2, 2
    # P = 5, K = 64, C = 8 columns. Hash network 5·10 + 10·64, linear path 5·64, decoder
    # 100 (64·3 + 5); queries 2·10·64; distances 2·8 (2·5 + 64); critic 3·2 (5·3 + 3·5)
    products = 8 * (690 + 320 + 19_700) + 1280 + 1184 + 180
    assert training_rate.step_flops(config, 5) == 6 * products


def test_figures_have_three_digits_and_a_prefix():
    values = (0.01234, 5.0, 999, 12_345, 1.5e12)
    assert [accelerator._figure(v) for v in values] == ["0.0123", "5", "999", "12.3 k", "1.5 T"]
    assert [rates._count(n) for n in (40, 10_000, 10**6, 10**8)] == ["40", "10,000", "1M", "100M"]


def test_quality_is_that_of_the_line_that_the_run_leaves(tmp_path, monkeypatch):
    row = accelerator.cells.Line(accelerator.RESULTS / "mnist.jsonl", "sigah_plain", 64, 0)

    def run_cell(data, method, bits, seed, results, runs, changes):
        assert (data, method, bits, seed, changes) == ("mnist", "sigah", 64, 0, {})
        results.mkdir()
        accelerator.cells.add(row.read(), results)

    monkeypatch.setattr(accelerator.cell, "run_cell", run_cell)
    found = accelerator.quality(accelerator.Job(tmp_path, rates.FULL, False))
    assert found["seconds"] >= 0 and all(check["passed"] for check in found["checks"])
    assert [check["value"] for check in found["checks"]] == [
        row.read()["metrics"][name] for name in accelerator.QUALITY
    ]


def test_a_small_run_of_quality_is_short_and_beside_no_row(tmp_path, monkeypatch):
    row = accelerator.cells.Line(accelerator.RESULTS / "mnist.jsonl", "sigah_plain", 64, 0).read()

    def run_cell(data, method, bits, seed, results, runs, changes):
        config = accelerator.cell.make_config(data, method, bits, seed, changes)
        assert (config.train.steps, config.data.max_rows) == (40, 3_000)
        results.mkdir()
        bad = dict.fromkeys(row["metrics"], 0.0)
        accelerator.cells.add(row | {"metrics": bad}, results)

    monkeypatch.setattr(accelerator.cell, "run_cell", run_cell)
    assert accelerator.main([f"--out={tmp_path}", "--small", "--parts=quality"]) == 0
    assert read(tmp_path, "quality")["checks"] == []


def test_quality_is_held_to_the_spread_of_the_seeds():
    # mean 2, standard deviation 1: 3 deviations are 5
    assert accelerator.check_of_quality("map", 4.9, [1.0, 2.0, 3.0])["passed"]
    assert not accelerator.check_of_quality("map", 5.1, [1.0, 2.0, 3.0])["passed"]
    held = accelerator.rows_of(accelerator.RESULTS / "mnist.jsonl")
    assert set(held) == set(accelerator.QUALITY)
    assert all(len(values) > 2 and 0 < np.std(values) < 0.05 for values in held.values())
