"""A layer of your own: its backward derived by hand, a mistake found and located, a test of the check itself, and then
training.

The gated linear unit is y = a ⊙ s with a = x W, s = σ(x V) (Dauphin, Fan, Auli, Grangier, "Language Modeling with Gated
Convolutional Networks", 2017). Write g = ∂L/∂y and b = x V, for which s′ = s (1 − s):
    ∂L/∂a = g ⊙ s,    ∂L/∂b = g ⊙ a ⊙ s (1 − s),
    dW = xᵀ ∂L/∂a,    dV = xᵀ ∂L/∂b,    dx = ∂L/∂a Wᵀ + ∂L/∂b Vᵀ.
Kept: x, a and s.
"""

import jax
import jax.numpy as jnp

import funcnet as fn


def slope_of_sigmoid(s):
    return s * (1 - s)


@fn.constructor
def gated(features, slope=slope_of_sigmoid):
    def leaves(x):
        entry = fn.initializers.lecun_normal(), (x.shape[-1], features)
        return {"value": entry, "gate": entry}

    def forward(params, state, x, *, key=None, train=False):
        a, s = x @ params["value"], jax.nn.sigmoid(x @ params["gate"])
        return a * s, state, (x, a, s)

    def backward(params, residuals, dy):
        x, a, s = residuals
        da, db = dy * s, dy * a * slope(s)
        return {"value": x.T @ da, "gate": x.T @ db}, da @ params["value"].T + db @ params["gate"].T

    return fn.layers.layer(forward, backward, leaves=leaves)


x = jax.ShapeDtypeStruct((5, 3), jnp.float32)

print("With s for s (1 − s) in the slope of the gate, somewhere in a model:\n")
wrong = fn.layers.serial(fn.layers.dense(3), gated(4, slope=jnp.abs), fn.layers.tanh())  # s > 0, so |s| is s
report = fn.checking.check_gradients(wrong, x, modes=("training",))
print(report)  # value is right, gate and the layer below are wrong, and the wrong layer is named
assert report.located == ("serial[1] gated(4, slope=abs)",)

print("\nWith the derivation above:\n")
report = fn.checking.check_gradients(gated(4), x, modes=("training",))
print(report)
report.raise_if_failed()

print("\nWould the check have seen other mistakes?", fn.checking.mutation_score(gated(4), x, modes=("training",)))

train, held_out = fn.data.split(*fn.data.digits())
model, loss = fn.layers.serial(gated(64), fn.layers.dense(10)), fn.losses.softmax_cross_entropy
*_, last = fn.training.fit(
    model, loss, fn.optimizers.adam(3e-3), train, engine="backprop", epochs=20, batch_size=32,
    validation=held_out, metrics={"accuracy": fn.metrics.accuracy()},
)  # fmt: skip
print(f"{model}: held-out accuracy {last.metrics['validation_accuracy']:.2%}")
