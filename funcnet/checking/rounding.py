"""How far rounding can move each result of a program: the program is run again with every operation off by a little.

This is Monte Carlo arithmetic (Parker, "Monte Carlo Arithmetic: exploiting randomness in floating-point arithmetic",
1997). After each arithmetic operation the result is moved by a few units in the last place, up or down at random. The
numbers that are added within one operation, such as a matrix product, are moved as well, because they may cancel. What
the results then differ by is what rounding does to them here, element by element, whatever their size.

An operation that only moves or chooses numbers does not round. And an operation that is done again with the same
numbers gives the same result. So its error is drawn from the operation and the number, and ties stay ties.
"""

import zlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, jaxpr_as_fun

__all__ = ["rounded", "rounding"]

SAMPLES = 6
ULPS = 4  # each result is off by up to so many: library functions are exact to about two
SAFETY = 4  # times the largest difference of the samples

#: Operations whose results are numbers that they read, or exact.
EXACT = frozenset({
    "abs", "and", "argmax", "argmin", "broadcast_in_dim", "ceil", "clamp", "concatenate", "convert_element_type",
    "copy", "copysign", "cummax", "cummin", "device_put", "dynamic_slice", "dynamic_update_slice", "eq",
    "expand_dims", "floor", "gather", "ge", "gt", "imag", "iota", "is_finite", "le", "lt", "max", "min", "ne",
    "neg", "not", "optimization_barrier", "or", "pad", "real", "reduce_and", "reduce_max", "reduce_min",
    "reduce_or", "reduce_precision", "reduce_window_max", "reduce_window_min", "reshape", "rev", "round", "scatter",
    "select_and_gather_add", "select_n", "sign", "slice", "sort", "split", "squeeze", "stop_gradient", "transpose",
    "xor",
})  # fmt: skip
#: Operations that add many numbers, which may cancel.
SUMS = frozenset({
    "conv_general_dilated", "cumsum", "dot_general", "reduce_sum", "reduce_window_sum", "scatter-add",
    "select_and_scatter_add",
})  # fmt: skip
#: Operations that run another program once, and where that program is.
CALLS = {
    "jit": "jaxpr", "pjit": "jaxpr", "closed_call": "call_jaxpr", "core_call": "call_jaxpr", "checkpoint": "jaxpr",
    "custom_jvp_call": "call_jaxpr", "custom_vjp_call": "call_jaxpr", "custom_vjp_call_jaxpr": "fun_jaxpr",
    "remat2": "jaxpr",
}  # fmt: skip


def rounding(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function like `function` that returns how far rounding may move each of its results.

    >>> import jax, jax.numpy as jnp
    >>> with jax.enable_x64(True):
    ...     small, large = rounding(lambda x: (x + 1) - x)(jnp.asarray([1.0, 1e8])).tolist()
    >>> 1e-16 < small < 1e-13, 1e-8 < large < 1e-5
    (True, True)
    """

    def bound(*args):
        def sample(salt):
            return rounded(function, salt)(*args)

        exact = function(*args)
        moved = lax.map(sample, jnp.arange(1, SAMPLES + 1, dtype=jnp.uint32))
        return jax.tree.map(lambda a, b: SAFETY * jnp.max(jnp.abs(b - a), axis=0), exact, moved)

    return bound


def rounded(function: Callable[..., Any], salt: Any) -> Callable[..., Any]:
    """`function` with each operation off by a few units in the last place.

    Args:
        function: of arrays, traced like for `jit`.
        salt: uint32; another salt gives other errors.
    """

    def run(*args):
        closed, shapes = jax.make_jaxpr(function, return_shape=True)(*args)
        results = _run(closed, jax.tree.leaves(args), salt)
        return jax.tree.unflatten(jax.tree.structure(shapes), results)

    return run


def _run(closed, args, salt):
    """The results of a traced program, operation by operation."""
    jaxpr = closed.jaxpr
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*closed.consts, *args], strict=True))
    for equation in jaxpr.eqns:
        read = [v.val if isinstance(v, Literal) else values[v] for v in equation.invars]
        results = _operation(equation, read, salt)
        values.update(zip(equation.outvars, results, strict=True))
    return [v.val if isinstance(v, Literal) else values[v] for v in jaxpr.outvars]


def _operation(equation, read, salt):
    name, params = equation.primitive.name, equation.params
    if name in CALLS:
        return _run(_closed(params[CALLS[name]]), read, salt)
    if name in LOOPS:
        return LOOPS[name](params, read, salt)
    salt = salt * np.uint32(0x9E3779B1) + np.uint32(zlib.crc32(name.encode()))
    if name in SUMS:
        read = [_moved(number, salt + np.uint32(i + 1)) for i, number in enumerate(read)]
    results = equation.primitive.bind(*read, **equation.primitive.get_bind_params(params))
    results = results if equation.primitive.multiple_results else [results]
    if name in EXACT and not (name == "convert_element_type" and _narrows(read[0], results[0])):
        return results
    return [_moved(number, salt) for number in results]


def _narrows(wide, narrow):
    return jnp.issubdtype(wide.dtype, jnp.floating) and jnp.result_type(narrow).itemsize < wide.dtype.itemsize


def _closed(program):
    return ClosedJaxpr(program, ()) if isinstance(program, Jaxpr) else program


@jax.jit  # traced and lowered once for each shape and dtype, not for each operation
def _moved(number, salt):
    """Floating numbers, each off by up to `ULPS` units in the last place; by how much depends on the number."""
    dtype = jnp.result_type(number)
    if not jnp.issubdtype(dtype, jnp.floating):
        return number
    number = jnp.asarray(number)
    bits = lax.bitcast_convert_type(number, f"uint{8 * dtype.itemsize}")
    if dtype.itemsize == 8:
        bits = bits ^ (bits >> 32)
    mixed = (bits.astype(jnp.uint32) ^ salt) * np.uint32(0x85EBCA6B)  # the mixing of MurmurHash3
    mixed = (mixed ^ (mixed >> 13)) * np.uint32(0xC2B2AE35)
    share = (mixed >> 8).astype(jnp.float32) * np.float32(2**-23) - 1  # from -1 to 1
    wide = dtype if dtype.itemsize > 2 else jnp.float32
    off = ULPS * float(jnp.finfo(dtype).eps) * share.astype(wide)
    return (number.astype(wide) * (1 + off)).astype(dtype)


def _scan(params, read, salt):
    constants, start, rest = _scanned(params, read)
    program = _closed(params["jaxpr"])

    def body(carry, rest):
        results = _run(program, [*constants, *carry, *rest], salt)
        return results[: len(start)], results[len(start) :]

    carry, stacked = lax.scan(body, start, rest, params["length"], reverse=params["reverse"])
    return [*carry, *stacked]


def _scanned(params, read):
    """The constants of a scan, where its carry starts, and what it goes through."""
    if "ft_in" in params:  # since jax 0.12
        return [list(part) for part in params["ft_in"].update(read).unpack()]
    constants, carried = params["num_consts"], params["num_consts"] + params["num_carry"]
    return list(read[:constants]), list(read[constants:carried]), list(read[carried:])


def _while(params, read, salt):
    tests, bodies = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]

    def test(carry):  # as it is: how often a loop runs is not a matter of rounding
        return jaxpr_as_fun(_closed(params["cond_jaxpr"]))(*read[:tests], *carry)[0]

    def body(carry):
        return _run(_closed(params["body_jaxpr"]), [*read[tests:bodies], *carry], salt)

    return lax.while_loop(test, body, list(read[bodies:]))


def _cond(params, read, salt):
    branches = [lambda *args, branch=branch: _run(_closed(branch), args, salt) for branch in params["branches"]]
    return lax.switch(read[0], branches, *read[1:])


LOOPS = {"scan": _scan, "while": _while, "cond": _cond}
