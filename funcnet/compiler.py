"""Settings of XLA's compiler that make programs for a CPU run faster.

- XLA gives convolutions of floats to YNNPACK if they have more than 16 features, and otherwise to Eigen. Eigen is
  faster for most of them, but YNNPACK is faster for matrix products. The setting cannot say "all but convolutions", so
  it names everything else.
- XLA uses vectors of 256 bits even if the processor has vectors of 512 bits.

`docs/speed.md` has the measurements.
"""

import os
from functools import lru_cache

import jax

__all__ = ["options"]

_YNNPACK = ("DOT", "INDIVIDUAL_DOT", "REDUCE")
_CPU = {
    "xla_cpu_experimental_ynn_fusion_type": ",".join(f"LIBRARY_FUSION_TYPE_{what}" for what in _YNNPACK),
    "xla_cpu_prefer_vector_width": "512",
}


def options() -> dict[str, str]:
    """Settings for `jax.jit(function, compiler_options=…)` that `training.fit` compiles its steps with.

    They change how fast a program runs, and the rounding of its sums, but not what it computes. On a CPU they are the
    settings at the head of this module. Those that `XLA_FLAGS` in the environment already sets, and those that the
    installed jaxlib does not know, are left out. On other platforms there are none. Only the outermost `jax.jit` may
    have settings.

    >>> import jax, funcnet as fn
    >>> jax.jit(lambda x: x + 1, compiler_options=fn.compiler.options())(1)
    Array(2, dtype=int32, weak_type=True)
    """
    if jax.default_backend() != "cpu":
        return {}
    said = os.environ.get("XLA_FLAGS", "")
    return {name: value for name, value in _CPU.items() if name not in said and _is_known(name, value)}


@lru_cache
def _is_known(name: str, value: str) -> bool:
    """Whether the installed jaxlib accepts the setting. It refuses a wrong one when it compiles."""
    try:
        jax.jit(lambda: 0, compiler_options={name: value}).lower().compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True
