"""Many devices: a mesh, rules for where parameters lie, batches divided by rows, and gradients over all devices.

    mesh = fn.parallel.mesh(data=-1)
    layout = fn.parallel.layout(mesh, [(".*", fn.parallel.fsdp("data"))])
    gradient = layout.gradient(fn.gradients.backprop(model, loss))

The pure functions of a model do not change. A layout says where their arrays lie. `docs/parallel.md` has the details.
"""

from funcnet.parallel.chips import Chip, topology
from funcnet.parallel.forecasts import Forecast, forecast
from funcnet.parallel.layout import layout
from funcnet.parallel.means import mean_over_rows
from funcnet.parallel.mesh import mesh
from funcnet.parallel.placement import global_batch, init_state, shardings
from funcnet.parallel.processes import start
from funcnet.parallel.programs import Collective
from funcnet.parallel.rules import fsdp, replicate, specs, tensor_parallel
from funcnet.parallel.show import Place, Placement, show
from funcnet.parallel.step import compile_step

__all__ = [
    "Chip", "Collective", "Forecast", "Place", "Placement", "compile_step", "forecast", "fsdp", "global_batch",
    "init_state", "layout", "mean_over_rows", "mesh", "replicate", "shardings", "show", "specs", "start",
    "tensor_parallel", "topology",
]  # fmt: skip
