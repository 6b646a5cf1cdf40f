"""What a constructor makes remembers the call that made it, prints as this call, and names it in errors.

`@constructor` decorates every function that makes a layer, an optimizer, an initializer, a schedule or a metric. It
binds the arguments. So no constructor has to write out its own call, and no check has to take a name. Code asks
`made.constructor is softmax` and reads `made.arguments`. It never parses the text of a call.
"""

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, replace
from types import MappingProxyType
from typing import Any, ParamSpec, TypeVar, cast
from weakref import WeakValueDictionary

from funcnet.errors import FuncnetError

__all__ = [
    "Made", "Part", "constructor", "folded", "kind_of", "leading", "own_call", "owned", "spelled", "within",
    "within_layer",
]  # fmt: skip

P = ParamSpec("P")
T = TypeVar("T")


class Made:
    """A call: the constructor and its arguments, by name. It prints as the call, `dense(16)`.

    Equal calls of one constructor share one object. So two calls are equal if and only if they are the same object.
    What a user makes without `@constructor` has a call of its own, which is equal to no other call. Its constructor is
    `None`.

    >>> import funcnet as fn
    >>> made = fn.layers.dropout(0.1).made
    >>> made, made.constructor is fn.layers.dropout, made.arguments["rate"]
    (dropout(0.1), True, 0.1)
    >>> made is fn.layers.dropout(0.1).made
    True
    """

    __slots__ = ("__weakref__", "_name", "arguments", "constructor", "word")

    def __init__(self, constructor: Callable[..., Any] | None, arguments: Mapping[str, Any], name: str | None = None):
        self.constructor = constructor
        self.arguments = arguments  #: every parameter by its name, lists as tuples
        self._name = name
        self.word = name or "" if constructor is None else _word(constructor)  #: `dense`, without the arguments

    @property
    def name(self) -> str:
        """The call as a user would write it. Arguments that equal their default are left out."""
        if self._name is None:
            self._name = _spelled_call(self.constructor, self.arguments)
        return self._name

    def __repr__(self) -> str:
        return self.name


class Part:
    """A function of something that a call made. Its errors begin with the call.

    The parts of equal calls are equal if they have the same role.
    """

    def __init__(self, made: Made, role: str, function: Callable[..., Any]):
        functools.update_wrapper(self, function, updated=())
        self.made, self.role, self.function = made, role, function
        # jax names programs, and the files that it keeps them in, by this. The whole call would be too long there.
        self.__name__ = self.__qualname__ = made.word

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with leading(self.made.name, self.made.word):
            return self.function(*args, **kwargs)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Part) and (self.made, self.role) == (other.made, other.role)

    def __hash__(self) -> int:
        return hash((self.made, self.role))

    def __repr__(self) -> str:
        return self.made.name


def constructor(function: Callable[P, T]) -> Callable[P, T]:
    """Make what `function` returns know the call.

    If it returns a named tuple or dataclass with a field `made`, the field is set, and each function in it becomes a
    `Part` of the call. If it returns a function, the function becomes a `Part`. What another constructor made is
    returned as it is, and so is anything else.

    The result must depend on the arguments alone, because equal calls stand for each other. Lists and dictionaries
    among the arguments are compared by what they hold. Other values that cannot be hashed, such as arrays, are compared
    by identity.

    >>> import funcnet as fn
    >>> @fn.constructor
    ... def doubled(times=1):
    ...     return fn.layers.elementwise(lambda x: 2**times * x, lambda x, y: 2**times + 0 * x)
    >>> doubled(times=3), doubled(3) == doubled(times=3), doubled() == doubled(2)
    (doubled(times=3), True, False)
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError:
            return function(*args, **kwargs)  # raises Python's own error
        bound.apply_defaults()
        arguments = {name: _frozen(value) for name, value in bound.arguments.items()}
        made = _shared(call, arguments)
        with leading(made.name, made.word):
            return _known(made, _called(function, signature, arguments))

    return cast(Callable[P, T], call)


def _called(function, signature, arguments):
    return function(*(bound := inspect.BoundArguments(signature, dict(arguments))).args, **bound.kwargs)


def own_call(name: str) -> Made:
    """The call of something that is made without `@constructor`.

    >>> own_call("scale"), own_call("scale") == own_call("scale")
    (scale, False)
    """
    return Made(None, MappingProxyType({}), name)


def _part_of(made: Made, role: str, function: Callable[..., Any]) -> Part:
    """The function as a part of this call, even if it is a part of another call already."""
    return Part(made, role, function.function if isinstance(function, Part) else function)


def _known(made: Made, result: Any) -> Any:
    """`result`, marked as made by this call. What another constructor made stays as it is."""
    known = getattr(result, "made", None)
    if not isinstance(known, Made):
        return _part_of(made, "call", result) if inspect.isfunction(result) else result
    if known.constructor is not None:
        return result
    return _part_of(made, "call", result) if isinstance(result, Part) else owned(made, result)


def owned(made: Made, whole: Any, role: str = "") -> Any:
    """A tuple or dataclass whose functions become parts of the call, with those of a layer's rules and cell.

    >>> import funcnet as fn
    >>> optimizer = owned(own_call("mine"), fn.Optimizer(lambda params: params, lambda state, grads: state))
    >>> optimizer, optimizer.init
    (mine, mine)
    """
    values = _fields(whole)
    parts: dict[str, Any] = {"made": made} if "made" in values else {}
    for name, value in values.items():
        if inspect.isroutine(value) or isinstance(value, Part):
            parts[name] = _part_of(made, role + name, value)
    if values.get("inside") is not None and made.constructor is not None:
        parts["inside"] = whole.inside._replace(rebuild=_rebuild(made, whole))
    if values.get("rules") is not None:
        parts["rules"] = owned(made, whole.rules, f"{role}rules.")
    if values.get("cell") is not None:
        parts["cell"] = owned(made, whole.cell, f"{role}cell.")
    change: Any = getattr(whole, "_replace", None) or functools.partial(replace, whole)
    return change(**parts)


def _fields(whole: Any) -> dict[str, Any]:
    if isinstance(whole, tuple):
        return whole._asdict()  # pyright: ignore[reportAttributeAccessIssue]
    return {field.name: getattr(whole, field.name) for field in fields(whole)}


def _rebuild(made: Made, whole: Any) -> Callable[..., Any] | None:
    """The function that makes the same around other layers: the call itself, if its arguments are these layers."""
    inside, given = whole.inside, list(_given(made.arguments.values(), type(whole)))
    if given == list(inside.layers):
        return functools.partial(_around, made, type(whole))
    # The constructor makes the layers of its container itself, or changes those that it is given.
    return inside.rebuild and (lambda *layers: inside.rebuild(*layers)._replace(made=made))


def _given(values: Iterable[Any], kind: type) -> Iterator[Any]:
    for value in values:
        if isinstance(value, kind):
            yield value
        elif type(value) is tuple:
            yield from _given(value, kind)
        elif type(value) is dict:
            yield from _given(value.values(), kind)


def _around(made: Made, kind: type, *layers: Any) -> Any:
    """Make the call again, with other layers in place of its own, in the same order."""
    others = iter(layers)

    def replaced(value: Any) -> Any:
        if isinstance(value, kind):
            return next(others)
        if type(value) is tuple:
            return tuple(map(replaced, value))
        return {name: replaced(one) for name, one in value.items()} if type(value) is dict else value

    call: Any = made.constructor
    arguments = {name: replaced(value) for name, value in made.arguments.items()}
    return _called(call, inspect.signature(call), arguments)


# Errors.


@contextmanager
def within(place: str) -> Iterator[None]:
    """Put the place before an error that is raised inside: `serial[2] dense(16): …`.

    Errors of other libraries get a note instead.

    >>> import funcnet as fn
    >>> with within("ensemble[1]"):
    ...     fn.layers.dense(0)
    Traceback (most recent call last):
    funcnet.errors.ConfigError: ensemble[1] dense(0): expected features to be a positive integer, got 0.
    """
    try:
        yield
    except Exception as error:
        _put_place(error, place)
        raise


def _put_place(error: Exception, place: str) -> None:
    if isinstance(error, FuncnetError):
        error.args = (f"{place} {error.args[0]}", *error.args[1:])
    else:
        error.add_note(f"funcnet: raised in {place}")


@contextmanager
def leading(call: str, word: str | None = None) -> Iterator[None]:
    """Put the call before an error that is raised inside, once: `dense(0): expected …`.

    If `within_layer` noted which layer of a container it was, `word` and this place come before the call.

    >>> from funcnet.errors import ConfigError
    >>> with leading("train"):
    ...     raise ConfigError("expected epochs, got none.")
    Traceback (most recent call last):
    funcnet.errors.ConfigError: train: expected epochs, got none.
    """
    try:
        yield
    except Exception as error:
        suffix = vars(error).pop("_suffix", None)
        if isinstance(error, FuncnetError) and not error.led:
            error.args = (f"{call}: {error.args[0]}", *error.args[1:])
            error.led = True
        if suffix is not None:
            _put_place(error, f"{word}{suffix}")
        raise


@contextmanager
def within_layer(suffix: str) -> Iterator[None]:
    """Like `within`, for a layer of a container. `leading` puts the container's word before `suffix`.

    >>> from funcnet.errors import ShapeError
    >>> with leading("pair(dense(3))", "pair"), within_layer("[0]"), leading("dense(3)"):
    ...     raise ShapeError("expected x of two axes.")
    Traceback (most recent call last):
    funcnet.errors.ShapeError: pair[0] dense(3): expected x of two axes.
    """
    try:
        yield
    except Exception as error:
        vars(error)["_suffix"] = suffix
        raise


# Equal calls are one object. Otherwise the time of equality and hash of nested calls would grow exponentially with
# their depth. The objects are held weakly, because arrays given as arguments would otherwise live forever.

_calls: WeakValueDictionary[Any, Made] = WeakValueDictionary()


def _shared(call: Callable[..., Any], arguments: dict[str, Any]) -> Made:
    key = (call, tuple((name, _key(value)) for name, value in arguments.items()))
    made = _calls.get(key)
    if made is None:
        made = _calls.setdefault(key, Made(call, MappingProxyType(arguments)))
    return made


def _frozen(value: Any) -> Any:
    """`value` in a form that nobody can change later: lists as tuples, dictionaries copied."""
    if type(value) in (list, tuple):
        return tuple(map(_frozen, value))
    return {name: _frozen(one) for name, one in value.items()} if type(value) is dict else value


class _Identity:
    """Stands for a value without a hash. It is equal only to a stand-in for the same object."""

    def __init__(self, value: Any):
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Identity) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)


def _key(value: Any) -> Any:
    """A key that tells arguments apart. 1, 1.0 and True are equal in Python, but make different programs."""
    if type(value) is tuple:
        return tuple, tuple(map(_key, value))
    if type(value) is dict:
        return dict, tuple((name, _key(one)) for name, one in value.items())
    if type(value) is float:
        return float, value.hex()  # −0.0 is not 0.0, and NaN is NaN
    try:
        hash(value)
    except TypeError:
        return _Identity(value)
    return type(value), value


# The call as text.


def _word(function: Any) -> str:
    return getattr(function, "__name__", type(function).__name__)


def _spelled_call(constructor: Any, arguments: Mapping[str, Any]) -> str:
    return f"{_word(constructor)}({', '.join(_spelled_arguments(constructor, arguments))})"


def _spelled_arguments(constructor: Any, arguments: Mapping[str, Any]) -> Iterator[str]:
    for name, parameter in inspect.signature(constructor).parameters.items():
        value = arguments[name]
        if parameter.kind is parameter.VAR_POSITIONAL:
            yield from map(spelled, value)
        elif parameter.kind is parameter.VAR_KEYWORD:
            yield from (f"{key}={spelled(one)}" for key, one in value.items())
        elif parameter.default is parameter.empty:
            yield spelled(value)
        elif spelled(value) != spelled(parameter.default):
            yield f"{name}={spelled(value)}"


def folded(made: Made, width: int = 88, most: int = 12) -> str:
    """The call as people read it: if it is wider than `width`, with a line for each argument, at most `most` of them.

    >>> import funcnet as fn
    >>> print(folded(fn.layers.serial(*[fn.layers.dense(512), fn.layers.relu()] * 20).made, most=4))
    serial(
        dense(512),
        relu(),
        … 37 more …
        relu(),
    )
    """
    if len(made.name) <= width or made.constructor is None:
        return made.name
    words = [f"{_cut(word, width)}," for word in _spelled_arguments(made.constructor, made.arguments)]
    if len(words) > most:
        words[most - 2 : -1] = [f"… {len(words) - most + 1} more …"]
    return "\n".join([f"{made.word}(", *(f"    {word}" for word in words), ")"])


def _cut(word: str, width: int) -> str:
    return word if len(word) <= width else word[: width - 1] + "…"


def spelled(value: Any) -> str:
    """A value as it is written in a call: functions by name, and what a constructor made as the call that made it.

    >>> import funcnet as fn
    >>> spelled((fn.layers.dense(3), fn.losses.huber, len, 0.5))
    '(dense(3), huber, len, 0.5)'
    """
    if type(value) is tuple:
        words = ", ".join(map(spelled, value))
        return f"({words},)" if len(value) == 1 else f"({words})"
    if type(value) is dict:
        return f"{{{', '.join(f'{name!r}: {spelled(one)}' for name, one in value.items())}}}"
    if isinstance(getattr(value, "made", None), Made):
        return repr(value)
    if isinstance(size := getattr(value, "size", None), int) and size > _FEW and hasattr(value, "dtype"):
        return kind_of(value)
    return getattr(value, "__name__", None) or repr(value)


_FEW = 16  # numbers of an array that are written out


def kind_of(array: Any) -> str:
    """The dtype and shape of an array, whose numbers are not read.

    >>> import jax, jax.numpy as jnp
    >>> kind_of(jax.ShapeDtypeStruct((3, 4), jnp.float32))
    'float32[3, 4]'
    """
    return f"{array.dtype}{list(array.shape)}"
