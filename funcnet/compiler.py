"""Settings of XLA's compiler: those that make programs for a CPU run faster, and those that compile quickly.

To run faster:

- XLA gives convolutions of floats to YNNPACK if they have more than 16 features, and otherwise to Eigen. Eigen is
  faster for most of them, but YNNPACK is faster for matrix products. The setting cannot say "all but convolutions", so
  it names everything else.
- XLA uses vectors of 256 bits even if the processor has vectors of 512 bits.

`docs/speed.md` has the measurements.

To compile quickly: machine code is not optimized, a program is not compiled in parts, and of XLA's two generators of
code the older one is taken, where jaxlib still has it. A program of many small operations compiles in a third of the
time.
"""

import os
from functools import lru_cache

import jax

__all__ = ["options", "quick_options"]

_YNNPACK = ("DOT", "INDIVIDUAL_DOT", "REDUCE")
_CPU = {
    "xla_cpu_experimental_ynn_fusion_type": ",".join(f"LIBRARY_FUSION_TYPE_{what}" for what in _YNNPACK),
    "xla_cpu_prefer_vector_width": "512",
}
_QUICKLY = {"xla_backend_optimization_level": "0"}
_QUICKLY_ON_CPU = {"xla_cpu_parallel_codegen_split_count": "1", "xla_cpu_use_fusion_emitters": "False"}


def options(platform: str | None = None) -> dict[str, str]:
    """Settings for `jax.jit(function, compiler_options=…)` that `training.fit` compiles its steps with.

    Args:
        platform: that of the devices that the program is compiled for, such as `"cpu"`, `"gpu"` or `"tpu"`; without
            one, that of `jax.default_backend()`.

    They change how fast a program runs, and the rounding of its sums, but not what it computes. On a CPU they are the
    settings at the head of this module. Those that `XLA_FLAGS` in the environment already sets, and those that the
    installed jaxlib does not know, are left out. On other platforms there are none. Only the outermost `jax.jit` may
    have settings.

    >>> import jax, funcnet as fn
    >>> jax.jit(lambda x: x + 1, compiler_options=fn.compiler.options())(1)
    Array(2, dtype=int32, weak_type=True)
    """
    return _on_cpu(_CPU, platform)


def quick_options() -> dict[str, str]:
    """Settings for programs that run once or a few times, where compiling them well would cost more than it saves.

    What a program computes stays the same, but for rounding. `checking` compiles with them.

    >>> import jax, funcnet as fn
    >>> jax.jit(lambda x: x + 1, compiler_options=fn.compiler.quick_options())(1)
    Array(2, dtype=int32, weak_type=True)
    """
    return _QUICKLY | _on_cpu(_QUICKLY_ON_CPU, None)


def _on_cpu(settings, platform):
    if (platform or jax.default_backend()) != "cpu":
        return {}
    said = os.environ.get("XLA_FLAGS", "")
    return {name: value for name, value in settings.items() if name not in said and _is_known(name, value)}


@lru_cache
def _is_known(name: str, value: str) -> bool:
    """Whether the installed jaxlib accepts the setting. It refuses a wrong one when it compiles."""
    try:
        with jax.default_device(jax.local_devices(backend="cpu")[0]):
            jax.jit(lambda: 0, compiler_options={name: value}).lower().compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True
