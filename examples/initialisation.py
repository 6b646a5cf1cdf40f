"""The output of 20 layers before any training: too small weights make it vanish, too large ones make it explode.

Xavier's scale keeps its size through tanh, and He's through ReLU. ReLU sets half of the numbers to 0, which He's scale
makes up for and Xavier's does not.
`python examples/initialisation.py relu.png tanh.png` draws it too.
"""

import sys

import jax
import jax.numpy as jnp

import funcnet as fn

WIDTH, DEPTH = 256, 20
kinds = {
    "normal(0.01)": fn.initializers.normal(0.01),
    "normal(0.2)": fn.initializers.normal(0.2),
    "Xavier": fn.initializers.xavier_normal(),
    "He": fn.initializers.he_normal(),
}

for i, activation in enumerate((fn.layers.relu(), fn.layers.tanh())):
    for name, initializer in kinds.items():
        key, *keys = jax.random.split(jax.random.key(0), DEPTH + 1)
        x = jax.random.normal(key, (256, WIDTH))
        for key in keys:
            x, _ = activation.apply((), (), x @ initializer(key, (WIDTH, WIDTH), jnp.float32))
        print(f"{activation}  {name:12}  mean size after {DEPTH} layers {jnp.abs(x).mean():.1e}")
    if len(sys.argv) > 1 + i:
        fn.plotting.initializer_spread(kinds, activation, sys.argv[1 + i], depth=DEPTH, width=WIDTH)
