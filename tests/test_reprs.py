"""How values print in a prompt and in a notebook: short, without reading large arrays, and without ever failing."""

import copy
import pickle
import sys
from html.parser import HTMLParser
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure

import funcnet as fn
from funcnet.checking import GradientReport, Row
from funcnet.layers import dense, dropout, relu, residual, serial
from funcnet.plotting import learning_curves
from funcnet.types import Gradient, Report, TrainState, brief

MODEL, X = serial(dense(3), relu(), dense(2)), jnp.ones((4, 5))
SIZES = "<26 numbers in 4 arrays>"  # 5 · 3 + 3 + 3 · 2 + 2
SGD = f"SGDState(step=0, params={SIZES}, scale=1)"


def state_of(optimizer):
    return optimizer.init(MODEL.init(jax.random.key(0), X)[0])


class Unreadable:
    """An array whose numbers must not be asked for."""

    shape, dtype, size = (1000, 1000), "float32", 1_000_000

    def __repr__(self):
        raise AssertionError("read")


class Mine(NamedTuple):
    params: object
    rate: float = 0.1

    def __repr__(self):
        return brief(self)


# States


@pytest.mark.parametrize(
    "optimizer, text",
    [
        (fn.optimizers.sgd(0.1), SGD),
        (
            fn.optimizers.adam(0.1),
            f"AdamState(step=0, params={SIZES}, mu={SIZES}, nu={SIZES}, scale=1)",
        ),
        (
            fn.optimizers.averaged(fn.optimizers.sgd(0.1)),
            "AveragedState(inner=SGDState(step=0, params=<26 numbers in 4 arrays>, scale=1), mean=" + SIZES + ")",
        ),
        (
            fn.optimizers.frozen(fn.optimizers.sgd(0.1), "0/.*"),
            "FrozenState(inner=SGDState(step=0, params=<8 numbers in 2 arrays>, scale=1), "
            "fixed=<18 numbers in 2 arrays>)",
        ),
        (
            fn.optimizers.partitioned([(".*", fn.optimizers.sgd(0.1))]),
            "PartitionedState(inner=<28 numbers in 6 arrays>)",
        ),
    ],
    ids=["sgd", "adam", "averaged", "frozen", "partitioned"],
)
def test_states_of_optimizers(optimizer, text):
    assert repr(state_of(optimizer)) == text


def test_every_state_of_an_optimizer_prints_so():
    modules = [module for name, module in sys.modules.items() if name.startswith(fn.optimizers.__name__)]
    states = {value for module in modules for name, value in vars(module).items() if name.endswith("State")}
    fields = {state: [Unreadable() for _ in state._fields] for state in states}
    assert len(fields) >= 9
    for state, values in fields.items():
        assert repr(state(*values)).startswith(f"{state.__name__}({state._fields[0]}=float32[1000, 1000]")


def test_a_report_has_its_metrics_as_numbers():
    state = fn.training.create_state(MODEL, fn.optimizers.sgd(0.1), 0, X)
    assert repr(state) == f"TrainState(optimizer={SGD}, key=key<fry>[])"
    metrics = {"loss": jnp.array(0.123456), "right": jnp.array(3), "confusion": jnp.ones((10, 10)), "name": "a"}
    report = Report(2, 90, metrics, state)
    assert repr(report) == (
        "Report(epoch=2, step=90, metrics={'loss': 0.1235, 'right': 3, 'confusion': float32[10, 10], 'name': 'a'}, "
        "state=TrainState(optimizer=<28 numbers in 6 arrays>, key=key<fry>[]))"
    )
    many = Report(1, 1, {f"part {i}": jnp.array(i) for i in range(20)}, None, partial=True)
    assert repr(many).endswith("'part 7': 7, …}, partial=True)")


def test_a_gradient():
    params, state = MODEL.init(jax.random.key(0), X)
    gradient = fn.gradients.backprop(MODEL, fn.losses.mean_squared_error)(params, state, (X, jnp.zeros((4, 2))))
    assert repr(gradient).startswith("Gradient(loss=")
    assert repr(gradient).endswith(f"grads={SIZES}, prediction=float32[4, 2], counted=8)")


def test_what_cannot_be_read_is_shown_by_its_kind():
    state, seen = fn.training.create_state(MODEL, fn.optimizers.sgd(0.1), 0, X), []
    hidden = f"TrainState(optimizer=SGDState(step=int32[], params={SIZES}, scale=float32[]), key=key<fry>[])"
    assert repr(jax.eval_shape(lambda: state)) == hidden
    jax.jit(lambda state: seen.append(repr(state)))(state)
    donated = jax.jit(lambda state: state, donate_argnums=0)
    donated(state)
    assert [*seen, repr(state)] == [hidden, hidden]


def test_trees_of_other_things_print_too():
    assert repr(TrainState("a", None, 0.25)) == "TrainState(optimizer='a', key=0.25)"
    assert repr(Report(1, 2, {"loss": 0.5}, None)) == "Report(epoch=1, step=2, metrics={'loss': 0.5})"
    assert repr(Gradient(np.float32(0.5), [Unreadable()] * 2, (), None)) == (
        "Gradient(loss=0.5, grads=<2,000,000 numbers in 2 arrays>)"
    )
    assert repr(Mine({"kernel": np.ones((2, 3))})) == "Mine(params=<6 numbers in 1 array>)"
    assert repr(Mine((), 0.2)) == "Mine(rate=0.2)"


# Calls


def shown(value):
    """The text that IPython shows."""
    from IPython.lib.pretty import pretty

    return pretty(value)


def test_a_long_call_is_shown_in_lines():
    model = serial(*[residual(serial(dense(512), relu(), dropout(0.1), dense(512)))] * 9)
    assert shown(model).splitlines() == [
        "serial(",
        *["    residual(serial(dense(512), relu(), dropout(0.1), dense(512))),"] * 9,
        ")",
    ]
    many = shown(serial(*[dense(512)] * 200, relu())).splitlines()
    assert many[10:] == ["    dense(512),", "    … 190 more …", "    relu(),", ")"]
    assert len(many) == 14
    deep = shown(serial(serial(*[dense(512)] * 200), relu())).splitlines()
    assert len(deep) == 4
    assert max(map(len, deep)) < 100
    assert deep[1].endswith("…,")
    assert shown(MODEL) == repr(MODEL) == "serial(dense(3), relu(), dense(2))"
    rate = fn.schedules.warmup(fn.schedules.cosine_decay(0.001, 100_000), 5_000)
    optimizer = fn.optimizers.clipped(fn.optimizers.adamw(rate, weight_decay=0.25, epsilon=0.001), norm=1.0)
    assert shown(optimizer).splitlines() == [
        "clipped(",
        "    adamw(warmup(cosine_decay(0.001, 100000), 5000), epsilon=0.001, weight_decay=0.25),",
        "    norm=1.0,",
        ")",
    ]
    own = fn.layers.layer(dense(3).forward, dense(3).backward, init=dense(3).init)
    assert shown(own) == repr(own)


def test_a_large_array_in_a_call_is_shown_by_its_kind():
    made = fn.losses.partial(fn.losses.mean_squared_error, weights=jnp.ones((20, 5)))
    assert repr(made) == "partial(mean_squared_error, weights=float32[20, 5])"
    made = fn.losses.partial(fn.losses.mean_squared_error, weights=np.ones(2))
    assert repr(made) == "partial(mean_squared_error, weights=array([1., 1.]))"


def test_reports_say_that_they_have_to_be_read():
    data = X, jnp.zeros((4, 2))
    run = fn.training.fit(MODEL, fn.losses.mean_squared_error, fn.optimizers.sgd(0.1), data, epochs=3)
    start = "; the training runs while its reports are read: for report in fit(…)"
    assert repr(run) == f"<fit: 0 of 3 steps done{start}>"
    list(run)
    assert repr(run) == "<fit: 3 of 3 steps done>"
    run = fn.training.fit(MODEL, fn.losses.mean_squared_error, fn.optimizers.sgd(0.1), iter([data]), epochs=1)
    assert repr(run) == "<fit: 1 epochs>"
    run.close()


# Tables


class Cells(HTMLParser):
    """The cells of the rows of a page, and the names of its elements."""

    def __init__(self, text):
        super().__init__()
        self.rows, self.names = [], set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.names.add(tag)
        if tag == "tr":
            self.rows.append([])

    def handle_data(self, data):
        if self.rows and data.strip():
            self.rows[-1].append(data)


def test_a_summary():
    model = serial(residual(dense(5)), fn.constructor(lambda: relu())(), dense(2))
    found = fn.summaries.summary(model, X)
    assert repr(found) == "Summary(4 rows, 42 parameters, 240 residual bytes)"  # 30 + 12, 3 · 4 · 20
    page = Cells(found._repr_html_())
    assert page.rows[0] == ["path", "layer", "output", "dtype", "parameters", "bytes", "residual bytes"]
    assert page.rows[2] == ["0/0", "\N{EM SPACE}dense(5)", "(4, 5)", "float32", "30", "120", "80"]
    assert page.rows[-1][:2] == ["total", "42"]
    biased = fn.summaries.summary(serial(dense(3), fn.layers.batch_norm()), X)
    assert "<p>note: the bias of 0 dense(3) changes nothing" in biased._repr_html_()
    odd = fn.summaries.Summary((found.rows[0]._replace(name="<b>"),), ("<i>",))
    assert not Cells(odd._repr_html_()).names & {"b", "i"}


def test_a_gradient_report():
    row = Row("<b>", "both", "float64", "x", ("backprop", "autodiff"), 1, 1, 0, 0.0, None, None, 0.0, "right")
    assert repr(GradientReport((row, row), (), "")) == "GradientReport(right: <b>, leaf by leaf in 2 rows)"
    assert repr(GradientReport((row, row._replace(leaf="y", verdict="wrong")), (), "")) == (
        "GradientReport(wrong: <b>, leaf by leaf in 2 rows)"
    )
    assert repr(GradientReport((), (), "")) == "GradientReport(not decided: , leaf by leaf in 0 rows)"


def test_a_preparation():
    columns = {f"c{i}": np.array([1.0, np.nan, 3.0]) for i in range(40)}
    columns = {"town": np.array(["<b>", None, "Bern"], object), **columns}
    found = fn.data.prepare(columns, {"y": np.array(["no", "yes", "no"], object)})
    page = Cells(found._repr_html_())
    assert page.rows[0][0] == "task"
    at = page.rows.index(["column", "kind", "in the training rows", "missing"])
    assert page.rows[at + 1] == ["town", "texts", "<b> (1), Bern (1)", "1"]
    assert page.rows[at + 2] == ["c0", "numbers", "2 ± 1, from 1 to 3", "1"]
    assert page.rows[-1][:3] == ["y", "texts", "no (2), yes (1)"]
    assert "and 11 more columns" in found._repr_html_()
    assert "b" not in page.names


# Figures


def test_a_figure_shows_itself_without_pyplot(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    figure = learning_curves([{"loss": 2.0}, {"loss": 1.0}])
    assert isinstance(figure, Figure)
    png = figure._repr_png_()
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    assert b"Software" not in png
    for twin in (pickle.loads(pickle.dumps(figure)), copy.deepcopy(figure)):
        assert len(twin.axes) == 1
        assert twin._repr_png_()[:4] == b"\x89PNG"
