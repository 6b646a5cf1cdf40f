"""Layers made of layers. Each is a walk through its layers and the reverse of that walk. The rest is written once.

You can make a container of your own with `container` and `merged`, without a change in this folder.
"""

from funcnet.layers.containers.composition import each, parallel, residual, serial
from funcnet.layers.containers.container import container, merged
from funcnet.layers.containers.loops import recompute, repeat
from funcnet.layers.containers.mapping import map_layers, plain_layers
from funcnet.layers.containers.modes import held
from funcnet.layers.containers.scanning import scan
from funcnet.layers.containers.tied import tied

__all__ = [
    "container", "each", "held", "map_layers", "merged", "parallel", "plain_layers", "recompute",
    "repeat", "residual", "scan", "serial", "tied",
]  # fmt: skip
