"""`funcnet new FOLDER`: a small project that trains at once."""

from pathlib import Path

from funcnet.checkpoints.files import write_whole
from funcnet.cli import options
from funcnet.errors import ConfigError
from funcnet.reading import shown

__all__ = ["FILES", "new"]

_MODEL = '''"""The network. `funcnet train --config train.toml` calls `net` with the number of outputs."""

import jax.numpy as jnp

import funcnet as fn


@fn.constructor
def gain():
    """A layer of your own: y = eᵃ ⊙ x, with a number a for each feature.

    Its backward, derived by hand from g = ∂L/∂y: da = Σ_batch g ⊙ y and dx = eᵃ ⊙ g. Kept for it: y.
    """

    def leaves(x):
        return {"log_gain": (fn.initializers.zeros, x.shape[-1:])}

    def forward(params, state, x, *, key=None, train=False):
        y = jnp.exp(params["log_gain"]) * x
        return y, state, y

    def backward(params, y, dy):
        return {"log_gain": jnp.sum(dy * y, axis=0)}, jnp.exp(params["log_gain"]) * dy

    return fn.layers.layer(forward, backward, leaves=leaves)


def net(outputs):
    """Two dense layers, with the gain and a ReLU between them."""
    return fn.layers.serial(fn.layers.dense(64), gain(), fn.layers.relu(), fn.layers.dense(outputs))
'''

_TEST = '''"""The gradients by hand agree with autodiff and with numeric derivatives."""

import jax
import jax.numpy as jnp
from my_model import gain, net

import funcnet as fn

x = jax.ShapeDtypeStruct((8, 5), jnp.float32)
test_gain = fn.checking.gradient_test(gain(), x)
test_net = fn.checking.gradient_test(net(3), x)
'''

_CONFIG = """# The options of funcnet train. Options on the command line win.
data = "digits"  # or your own: a .csv file with target = ["NAME"], a folder of pictures, an .npz file
model = "my_model.py:net"
epochs = 20
"""

_README = """# {name}

    funcnet train --config train.toml        # trains, and writes runs/001
    funcnet report runs/001                  # a page about the run
    funcnet check my_model.py:gain --shape 8,5
    pip install pytest && pytest             # checks the gradients

- `my_model.py` holds the network, and a layer of its own.
- `train.toml` holds the options of the training.
- `test_my_model.py` checks the gradients that were derived by hand.
"""

FILES = {"my_model.py": _MODEL, "test_my_model.py": _TEST, "train.toml": _CONFIG, "README.md": _README}


def new(chosen: options.New) -> int:
    """Write the files of a project into a folder that is new or empty."""
    folder: Path = chosen.folder
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder}: expected a folder that is new or empty, got one with files; nothing is written.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in FILES.items():
            write_whole(folder / name, text.replace("{name}", folder.resolve().name).encode())
    except OSError as error:
        raise ConfigError(f"{folder}: the project cannot be written: {error.strerror}.") from error
    print(*(shown(folder / name) for name in FILES), sep="\n")
    print(f"\ncd {shown(folder)} && funcnet train --config train.toml")
    return 0
