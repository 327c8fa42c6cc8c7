"""Lines that look different, and the names beside them."""

import numpy as np
from matplotlib.figure import Figure

from sigah_jax.report import drawing


def test_sixteen_methods_look_different():
    looks = [str(drawing.look(i, "x")) for i in range(16)]
    assert len(set(looks)) == 16


def test_names_are_moved_apart_in_their_order_and_stay_in_the_panel():
    # from below: .10 stays, .11 gives way upwards; the three at the top give way downwards
    placed = drawing.spread_out([0.99, 0.1, 1.0, 0.11, 0.5, 0.99], 0.1)
    np.testing.assert_allclose(placed, [0.8, 0.1, 1.0, 0.2, 0.5, 0.9])
    np.testing.assert_allclose(drawing.spread_out([0.7, 0.2], 0.1), [0.7, 0.2])
    assert len(drawing.spread_out([], 0.1)) == 0


def test_each_line_is_named_beside_the_panel():
    ax = Figure().subplots()
    ax.plot([1, 2], [0, 1], label="one")
    ax.errorbar([1, 2], [1, 0], [0.1, 0.1], label="other", color="red")
    drawing.name_ends(ax)
    one, other = ax.texts
    assert (one.get_text(), other.get_text(), other.get_color()) == ("one", "other", "red")
    assert one.xy == (2, 1) and one.get_position()[0] > 1
    assert one.get_position()[1] > other.get_position()[1]
