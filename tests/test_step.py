"""The training step on one and on many devices, with small nets."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sigah_jax import config as base
from sigah_jax.devices import parallel
from sigah_jax.model import networks
from sigah_jax.training import batches, objective, step

ROWS, FEATURES = 400, 12
POPULATION = objective.Population(ROWS, 1.0, True)


def small(preset="best"):
    c = base.get_config(f"preset={preset},bits=20")
    c.model.atoms, c.model.hash_widths, c.model.dis_widths = 40, (32,), (16, 4, 16)
    c.train.anchors, c.train.steps = 16, 100
    return c


def setup(c, parts=("hash", "decoder")):
    variances = jnp.arange(1, FEATURES + 1.0)[::-1] ** 3
    variances = variances / variances.sum()
    z = np.random.default_rng(0).standard_normal((ROWS, FEATURES)) * np.sqrt(variances)
    z = z.astype(np.float32)
    standardiser = {"mean": jnp.zeros(FEATURES), "projection": jnp.eye(FEATURES)}
    nets = networks.make_networks(c.model, FEATURES)
    made = step.Training(nets, parts, objective.Weights.of(c), c.train.steps)
    tx = step.make_optimisers(c, made)
    rotation = jax.random.orthogonal(jax.random.key(1), c.model.bits)[:FEATURES]
    state = step.init_state(jax.random.key(0), made, tx, standardiser, variances, rotation)
    graph = np.argsort(((z[:, None] - z[None]) ** 2).sum(-1), 1)[:, 1:9].astype(np.int32)
    return z, made, tx, state, graph if c.train.graph_neighbours else None


def call(c, graph, first, steps):
    draws = c.loss.batch_positives + c.loss.batch_positives_synthetic
    rows = batches.batches(
        3,
        first,
        steps,
        n=ROWS,
        anchors=c.train.anchors,
        others=2,
        neighbours=c.loss.neighbours,
        draws=draws,
        graph=graph,
    )
    return rows


def run(c, devices, calls=3, steps=4, descent=None):
    """`descent`: the rate of plain gradient descent in place of Adam, blind to a loss's scale."""
    z, made, tx, state, graph = setup(c)
    if descent:
        tx = step.Optimisers(optax.sgd(descent), optax.sgd(descent))
        state = state.replace(
            gen_opt=tx.gen.init(step.moving(made, state.gen)), dis_opt=tx.dis.init(state.dis)
        )
    traces = []
    fn = step.make_train_steps(c, made, tx, POPULATION, parallel.AXIS, False)

    def counted(*args):
        traces.append(1)
        return fn(*args)

    mapped = parallel.pmap(counted, (None, None, 0), (None, None), (0,), devices)
    state = parallel.replicate(state, devices)
    rows = parallel.replicate(step.Rows(z, None), devices)
    infos = []
    for i in range(calls):
        batch = parallel.split(call(c, graph, i * steps, steps), 1, devices)
        state, info = mapped(state, rows, batch)
        infos.append(parallel.fetch(info))
    return parallel.fetch(state), infos, len(traces)


@pytest.mark.parametrize(("preset", "neighbours"), [("best", 1), ("best", 3), ("paper", 1)])
def test_number_of_devices_does_not_change_the_run(preset, neighbours):
    c = small(preset)
    c.loss.neighbours = neighbours
    one, infos, traces = run(c, jax.devices()[:1], descent=0.01)
    assert int(one.step) == 12 and traces == 1
    for n in (2, 4, 8):
        many, infos_many, traces = run(c, jax.devices()[:n], descent=0.01)
        assert traces == 1
        for first, others in zip(infos, infos_many, strict=True):
            for name, values in first.items():
                assert np.isfinite(values).all()
                np.testing.assert_allclose(others[name], values, rtol=2e-3, atol=1e-4)
        before, after = ((s.gen, s.dis, s.kappa) for s in (one, many))
        for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
            np.testing.assert_allclose(a, b, atol=2e-4)


def test_each_update_leaves_the_other_net_bit_identical():
    c = small()
    z, made, tx, state, graph = setup(c)
    batch = jax.tree.map(lambda a: a[None], jax.tree.map(lambda a: a[0], call(c, graph, 0, 1)))

    def both(state, z, batch):
        rows = step.Rows(z[batch.rows.reshape(-1)], None)
        after_gen, _, z_hat = step.gen_update(
            c, made, tx, state, rows, batch, POPULATION, parallel.AXIS
        )
        anchors = rows.z[:: batch.rows.shape[1]]
        after_dis, _ = step.dis_update(c, made.nets.dis, tx, state, anchors, z_hat, parallel.AXIS)
        return after_gen, after_dis

    mapped = parallel.pmap(both, (None, None, 0), (None, None), devices=jax.devices()[:1])
    after_gen, after_dis = parallel.fetch(mapped(state, z, batch))

    def equal(a, b):
        return all(
            np.array_equal(x, y)
            for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
        )

    assert equal(after_gen.dis, state.dis) and equal(after_gen.dis_opt, state.dis_opt)
    assert equal(after_dis.gen, state.gen) and equal(after_dis.gen_opt, state.gen_opt)
    assert not equal(after_gen.gen, state.gen) and not equal(after_dis.dis, state.dis)


def test_only_the_decoder_steps_faster_by_its_factor():
    c = small()
    _, made, _, state, _ = setup(c)
    gen = state.gen
    gradient = jax.tree.map(jnp.ones_like, gen)

    def change(factor):
        c.optim.decoder_lr_factor = factor
        tx = step.make_optimisers(c, made).gen
        return tx.update(gradient, tx.init(gen), gen)[0]

    once, thrice = change(1.0), change(3.0)
    for part, factor in (("hash", 1), ("decoder", 3)):
        for a, b in zip(jax.tree.leaves(once[part]), jax.tree.leaves(thrice[part]), strict=True):
            np.testing.assert_allclose(b, factor * a, rtol=1e-6)
            np.testing.assert_allclose(a, -c.optim.gen_lr, rtol=1e-4)  # Adam's first step


def one_call(c, parts=("hash", "decoder"), weights=None):
    """A mapped call of two steps on one device, its arguments there, and the state before."""
    z, made, tx, state, graph = setup(c, parts)
    if weights:
        made = made._replace(weights=made.weights._replace(**weights))
    fn = step.make_train_steps(c, made, tx, POPULATION, parallel.AXIS, False)
    device = jax.devices()[:1]
    mapped = parallel.pmap(fn, (None, None, 0), (None, None), devices=device)
    batch = parallel.split(call(c, graph, 0, 2), 1, device)
    packed = np.random.default_rng(1).integers(0, 2, (ROWS, c.model.bits)).astype(bool)
    rows = step.Rows(z, None if "hash" in parts else np.packbits(packed, axis=1))
    return (
        mapped,
        (parallel.replicate(state, device), parallel.replicate(rows, device), batch),
        state,
    )


def test_a_training_of_the_decoder_keeps_the_hash_network_and_no_moments_of_it():
    c = small()
    mapped, arguments, before = one_call(c, ("decoder",), {"ordinal": 0.0, "quantisation": 0.0})
    state, infos = parallel.fetch(mapped(*arguments))
    for a, b in zip(
        jax.tree.leaves(before.gen["hash"]), jax.tree.leaves(state.gen["hash"]), strict=True
    ):
        np.testing.assert_array_equal(a, b)
    dictionaries = (s.gen["decoder"]["dictionary"] for s in (before, state))
    assert not np.array_equal(*dictionaries)
    shapes = {a.shape for a in jax.tree.leaves(state.gen_opt)}
    of_hash = {a.shape for a in jax.tree.leaves(before.gen["hash"])}
    assert not (of_hash - {a.shape for a in jax.tree.leaves(before.gen["decoder"])}) & shapes
    assert "train/loss_ordinal" not in infos
    # the codes are those that were given, which no hash network makes
    rows, picked = parallel.fetch(arguments[1]), np.asarray(arguments[2].rows)[0, 0].reshape(-1)
    b = 2.0 * np.unpackbits(rows.codes[picked], axis=1, count=c.model.bits) - 1
    nets = networks.make_networks(c.model, FEATURES)
    z_hat, _ = networks.decode(nets.gen, before.gen, b.astype(np.float32))
    wanted = ((rows.z[picked] - z_hat) ** 2).sum(1).mean()
    np.testing.assert_allclose(infos["train/loss_reconstruction"][0], wanted, rtol=1e-4)


@pytest.mark.parametrize("name", objective.Weights._fields)
def test_a_term_without_weight_is_not_computed(name):
    c = small()
    counts = []
    for weights in ({}, {name: 0.0}):
        mapped, arguments, _ = one_call(c, weights=weights)
        counts.append(mapped.__wrapped__.__wrapped__.lower(*arguments).as_text().count("\n"))
        _, infos = parallel.fetch(mapped(*arguments))
    assert f"train/loss_{name}" not in infos
    assert counts[1] < counts[0]
    assert ("train/kappa" in infos) == (name != "adversary")  # nor is its discriminator


def test_a_call_moves_nothing_between_host_and_device():
    mapped, arguments, _ = one_call(small())
    mapped(*arguments)  # compiles
    inner = mapped.__wrapped__.__wrapped__
    with jax.transfer_guard("disallow"):
        state, infos = inner(*arguments)
        jax.block_until_ready((state, infos))
        with pytest.raises(Exception, match=r"[Dd]isallowed"):
            inner(arguments[0], parallel.fetch(arguments[1]), arguments[2])


def test_training_lowers_the_ordinal_loss():
    _, infos, _ = run(small(), jax.devices()[:1], calls=10, steps=10)
    loss = np.concatenate([info["train/loss_ordinal"] for info in infos])
    assert loss[-20:].mean() < 0.93 * loss[:20].mean()


def test_the_query_head_starts_as_the_base_head_and_parts_from_it():
    with_head, c = small(), small()
    c.model.query_head = False
    state, infos, _ = run(with_head, jax.devices()[:1], calls=1)
    _, alone, _ = run(c, jax.devices()[:1], calls=1)
    losses = [info[0]["train/loss_ordinal"] for info in (infos, alone)]
    assert losses[0][0] == losses[1][0] and losses[0][1] != losses[1][1]
    assert np.abs(state.gen["hash"]["query_out"]["kernel"]).mean() > 1e-3


def test_batches_cover_every_row_once_an_epoch_and_depend_on_nothing_else():
    c = {"n": 50, "anchors": 2, "others": 2, "neighbours": 1, "draws": 3, "graph": None}
    # 6 rows a step, 50 rows: 25 steps are 3 epochs
    rows = np.concatenate([batches.batch(7, s, **c).rows.ravel() for s in range(25)])
    np.testing.assert_array_equal(np.bincount(rows), np.full(50, 3))
    for a, b in zip(batches.batch(7, 9, **c), batches.batches(7, 8, 2, **c), strict=True):
        np.testing.assert_array_equal(a, b[1])
    assert not np.array_equal(batches.batch(7, 9, **c).rows, batches.batch(8, 9, **c).rows)


def test_a_batch_ends_with_the_neighbours_at_their_ranks():
    graph = np.arange(100 * 5, dtype=np.int32).reshape(100, 5)
    c = {"n": 100, "anchors": 20, "others": 1, "draws": 1}
    got = batches.batch(0, 3, **c, neighbours=2, graph=graph)
    assert got.rows.shape == (20, 4) and got.neighbour_ranks.shape == (20, 2)
    assert got.neighbour_ranks.min() >= 1 and got.neighbour_ranks.max() <= 5
    want = np.take_along_axis(graph[got.rows[:, 0]], got.neighbour_ranks - 1, 1)
    np.testing.assert_array_equal(got.rows[:, 2:], want)
    assert batches.batch(0, 3, **c, neighbours=2, graph=None).neighbour_ranks.shape == (20, 0)


def test_anchors_of_training_queries_are_drawn_from_all_of_them_with_their_neighbours():
    graph = np.arange(7 * 5, dtype=np.int32).reshape(7, 5)
    c = {"n": 100, "anchors": 20, "others": 1, "neighbours": 1, "draws": 1}
    got = batches.batch(0, 3, **c, graph=graph, queries=7)
    assert set(got.anchors) == set(range(7)) and got.anchors.dtype == np.int32
    want = graph[got.anchors, got.neighbour_ranks[:, 0] - 1]
    np.testing.assert_array_equal(got.rows[:, -1], want)
    without = batches.batch(0, 3, **c, graph=np.zeros((100, 5), np.int32))
    np.testing.assert_array_equal(got.rows[:, :-1], without.rows[:, :-1])  # the same columns
    np.testing.assert_array_equal(without.anchors, without.rows[:, 0])


def updated(c, queries, holds_anchors=True, gathered=False):
    """The generator after a step, with z as `queries` makes it as the queries' features."""
    z, made, tx, state, graph = setup(c)
    population = POPULATION._replace(holds_anchors=holds_anchors)
    fn = step.make_train_steps(c, made, tx, population, parallel.AXIS, gathered)
    axes = None, 0 if gathered else None, 0
    mapped = parallel.pmap(fn, axes, (None, None), devices=jax.devices()[:1])
    rows, batch = step.Rows(z, None, queries(z)), call(c, graph, 0, 1)
    if gathered:
        rows = parallel.split(step.gather(rows, batch), 1, jax.devices()[:1])
    batch = parallel.split(batch, 1, jax.devices()[:1])
    state, infos = parallel.fetch(mapped(state, rows, batch))
    return np.concatenate([a.ravel() for a in jax.tree.leaves(state.gen)]), infos


@pytest.mark.optimised
def test_queries_that_the_host_gathered_train_as_those_that_the_devices_gather():
    by_device, by_host = (
        updated(small(), lambda z: np.array(np.flip(z)), gathered=on)[0] for on in (False, True)
    )
    np.testing.assert_array_equal(by_host, by_device)


def test_queries_that_are_the_rows_train_as_the_rows_do_and_others_do_not():
    c = small()
    rows, same, other = (updated(c, q) for q in (lambda z: None, lambda z: z, np.flip))
    np.testing.assert_allclose(same[0], rows[0], atol=1e-5)
    np.testing.assert_allclose(
        same[1]["train/loss_ordinal"], rows[1]["train/loss_ordinal"], rtol=1e-5
    )
    assert np.abs(other[0] - rows[0]).max() > 1e-3
    assert np.abs(updated(c, lambda z: z, False)[0] - rows[0]).max() > 1e-4
