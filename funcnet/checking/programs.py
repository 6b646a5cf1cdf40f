"""The programs of a check: how they are compiled, and whether two of them are the same."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from funcnet.compiler import quick_options
from funcnet.dtypes import is_key
from funcnet.trees import total_size

__all__ = ["compiled", "quickly", "same_program"]

FEW = 1000  #: variables; with more of them, numeric derivatives need so many runs that compiling well pays off


def quickly(function: Callable[..., Any]) -> Callable[..., Any]:
    """`jax.jit` of a function that runs once or a few times."""
    return jax.jit(function, compiler_options=quick_options())


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function(point, …)`, compiled: quickly if the point has few variables, else well."""
    quick, well = quickly(function), jax.jit(function)

    def run(point, *rest):
        return (quick if total_size(point.variables) <= FEW else well)(point, *rest)

    return run


def same_program(a: ClosedJaxpr, b: ClosedJaxpr) -> bool:
    """Whether two traced programs are the same, including the arrays that they hold.

    >>> one, again, other = (jax.make_jaxpr(lambda x, n=n: x * np.full(3, n))(1.0) for n in (2.0, 2.0, 3.0))
    >>> same_program(one, again), same_program(one, other)
    (True, False)
    """
    return str(a) == str(b) and all(map(_same_array, _arrays(a), _arrays(b)))


def _same_array(a, b):
    if is_key(a):
        a, b = jax.random.key_data(a), jax.random.key_data(b)
    return np.array_equal(a, b)


def _arrays(program: ClosedJaxpr) -> Iterator[Any]:
    """The arrays that a program holds, in order. The program's text shows only their shapes."""
    yield from program.consts
    for equation in program.jaxpr.eqns:
        yield from (read.val for read in equation.invars if isinstance(read, Literal))
        for value in jax.tree.leaves(list(equation.params.values())):
            if isinstance(value, ClosedJaxpr | Jaxpr):
                yield from _arrays(value if isinstance(value, ClosedJaxpr) else ClosedJaxpr(value, ()))
