"""What a compiled program does, read from XLA: its operations, the bytes that it moves, and what its devices exchange.

XLA's own counts take the body of a loop once. Here it counts as often as it runs, by the text of the program.
"""

import math
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

__all__ = ["Collective", "Costs", "costs_of"]


class Collective(NamedTuple):
    """One kind of exchange between the devices of a step."""

    kind: str  #: "all-reduce", "all-gather", "reduce-scatter", "all-to-all" or "collective-permute"
    times: int  #: how many run in a step
    bytes: float  #: that each device sends in a step, around a ring


class Costs(NamedTuple):
    """What one device does when the program runs once."""

    flops: float
    bytes: float  #: read from and written to its memory
    collectives: tuple[Collective, ...]
    cycles: int  #: that the compiler for TPUs expects; 0 where a compiler says none


def costs_of(compiled: Any, devices: int) -> Costs:
    """The costs of a program of `jax.jit(…).lower(…).compile()` on so many devices."""
    analysis, program = compiled.cost_analysis() or {}, _Program(compiled.as_text())
    flops, moved = analysis.get("flops", 0.0), analysis.get("bytes accessed", 0.0)
    sent: dict[tuple[str, str], float] = {}  # by kind and channel: a TPU spreads one exchange over several fusions
    counts: dict[tuple[str, str], int] = {}
    cycles = 0
    for body, times in program.times.items():
        cycles += times * program.cycles(body)
        for kind, channel, group, given in program.exchanges(body, devices):
            sent[kind, channel] = _SENT[kind](group) * given * times
            counts[kind, channel] = times
        if times > 1 and body in program.loops:
            flops += (times - 1) * program.flops(body)
            moved += (times - 1) * program.moved(body)
    collectives = []
    for kind in sorted({kind for kind, _ in sent}):
        own = [key for key in sent if key[0] == kind]
        collectives.append(Collective(kind, sum(counts[key] for key in own), sum(sent[key] for key in own)))
    return Costs(flops, moved, tuple(collectives), cycles)


#: What each of n devices sends around a ring, as a multiple of what it gives.
_SENT = {
    "all-reduce": lambda n: 2 * (n - 1) / n,
    "all-gather": lambda n: n - 1,
    "reduce-scatter": lambda n: (n - 1) / n,
    "all-to-all": lambda n: (n - 1) / n,
    "collective-permute": lambda n: 1,
}


def _group(attributes, devices):
    """How many devices take part in one exchange."""
    if listed := re.search(r"replica_groups=\{\{([\d,]*)\}", attributes):
        return listed[1].count(",") + 1
    if counted := re.search(r"replica_groups=\[(?:\d+,)*(\d+)\]<=", attributes):
        return int(counted[1])
    if named := re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", attributes):
        sizes = dict(re.findall(r"'([^']+)'=(\d+)", named[1]))
        return math.prod(int(sizes[axis]) for axis in re.findall(r"'([^']+)'", named[2]))
    return devices


class _Line(NamedTuple):
    """One line of a program, `name = type operation(operands), attributes`."""

    name: str
    type: str
    operation: str
    operands: tuple[str, ...]
    attributes: str
    root: bool


class _Program:
    """The text of a program, by its bodies, with how often each one runs."""

    def __init__(self, text: str):
        self.bodies = dict(_bodies(text))
        self.types = {body: {line.name: line.type for line in lines} for body, lines in self.bodies.items()}
        self.times: dict[str, int] = {}
        self.loops: set[str] = set()
        self._run(next((body for body in self.bodies if body.startswith("ENTRY ")), ""), 1, False)

    def _run(self, body: str, times: int, looped: bool) -> None:
        self.times[body] = self.times.get(body, 0) + times
        if looped:
            self.loops.add(body)
        for line in self.bodies.get(body, ()):
            inner = times * self._trips(line) if line.operation == "while" else times
            if line.operation in _CALLS:
                for called in re.findall(_CALLED, line.attributes):
                    self._run(called, inner, looped or line.operation == "while")

    def _trips(self, loop: _Line) -> int:
        """How often a loop runs: as the compiler says, or up to the only number in its condition; 1 if not known."""
        if known := re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.attributes):
            return int(known[1])
        condition = re.search(r"condition=%?([\w.\-]+)", loop.attributes)
        lines = self.bodies.get(condition[1], []) if condition else []
        bounds = [line for line in lines if line.operation == "constant" and line.type.startswith("s32[]")]
        return int(bounds[0].operands[0]) if len(bounds) == 1 else 1

    def cycles(self, body: str) -> int:
        """What the compiler expects of the lines of a body. It says nothing of windowed sums and maxima."""
        said = (re.search(r'"estimated_cycles":"(\d+)"', line.attributes) for line in self.bodies[body])
        return sum(int(one[1]) for one in said if one)

    def exchanges(self, body: str, devices: int, whole: str | None = None) -> Iterator[tuple[str, str, int, int]]:
        """`(kind, channel, devices that take part, bytes that each gives)` of a body and of its fusions.

        `whole` is the kind of a fusion that is one exchange.
        """
        for line in self.bodies[body]:
            kind = line.operation.removesuffix("-start")
            if kind in _SENT:
                channel = re.search(r"channel_id=(\d+)", line.attributes)
                given = self.bytes_of(body, line.operands)
                yield whole or kind, channel[1] if channel else line.name, _group(line.attributes, devices), given
            elif line.operation == "fusion" and (inside := self._inside(line)):
                scattered = "reduce-scatter" if inside.startswith("all-reduce-scatter") else None
                yield from self.exchanges(inside, devices, scattered)

    def bytes_of(self, body: str, operands: tuple[str, ...]) -> int:
        return sum(_bytes(self.types[body].get(name, "")) for name in operands)

    def flops(self, body: str) -> float:
        """Of the products in a body and in its fusions: two for each multiplication."""
        total = 0.0
        for line in self.bodies[body]:
            types = [self.types[body].get(name, "") for name in line.operands]
            if line.operation == "dot":
                axes = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", line.attributes)
                sizes = _shape(types[0])
                total += 2 * _size(line.type) * math.prod(sizes[int(i)] for i in axes[1].split(",")) if axes else 0
            elif line.operation == "convolution":
                labels = re.search(r"dim_labels=\w+_(\w+)->", line.attributes)
                kernel = _shape(types[1])
                total += 2 * _size(line.type) * math.prod(kernel) / kernel[labels[1].index("o")] if labels else 0
            elif line.operation == "fusion":
                total += sum(self.flops(called) for called in re.findall(_CALLED, line.attributes))
        return total

    def moved(self, body: str) -> float:
        """Bytes that the lines of a body read and write. Of an array that is cut, only the cut is read."""
        return sum(
            self._written(body, line) + sum(self._read(body, line, i) for i in range(len(line.operands)))
            for line in self.bodies[body]
            if line.operation not in _FREE and not line.operation.endswith("-done")
        )

    def _written(self, body, line):
        if line.operation == "dynamic-update-slice":
            return self.bytes_of(body, line.operands[1:2])
        if line.operation == "fusion" and (inside := self._inside(line)):
            roots = [one for one in self.bodies[inside] if one.root]
            by_name = {one.name: one for one in self.bodies[inside]}
            if roots and roots[0].operation == "tuple":
                roots = [by_name[name] for name in roots[0].operands if name in by_name]
            return sum(
                self._written(inside, one) if one.operation == "dynamic-update-slice" else _bytes(one.type)
                for one in roots
            )
        return _bytes(line.type)

    def _read(self, body, line, i):
        """Bytes that a line reads of its operand i."""
        if line.operation in _CUTS and i == 0:
            return _bytes(line.type)
        if line.operation == "dynamic-update-slice" and i == 0:
            return 0
        whole = self.bytes_of(body, line.operands[i : i + 1])
        if line.operation == "fusion" and (inside := self._inside(line)):
            parameters = (one for one in self.bodies[inside] if one.operation == "parameter")
            name = next((one.name for one in parameters if one.operands == (str(i),)), None)
            return min(whole, self._read_of(inside, name))
        return whole

    def _read_of(self, body, name):
        """Bytes that the lines of a fusion read of one of its arrays, by all their ways."""
        total = 0
        for line in self.bodies[body]:
            for i, operand in enumerate(line.operands):
                if operand == name:
                    again = line.operation in ("bitcast", "reshape", "copy", "tuple")
                    total += self._read_of(body, line.name) if again and not line.root else self._read(body, line, i)
        return total

    def _inside(self, line):
        called = re.search(_CALLED, line.attributes)
        return called[1] if called and called[1] in self.bodies else None


#: What calls other bodies, which run as often as it does.
_CALLS = ("while", "call", "conditional", "async-start")
_CALLED = r"(?:calls|body|to_apply|true_computation|false_computation)=%?([\w.\-]+)"
_CUTS = ("dynamic-slice", "slice", "gather")
#: What moves no bytes of its own.
_FREE = ("parameter", "get-tuple-element", "tuple", "bitcast", "constant", "after-all", *_CALLS)


def _bodies(text: str) -> Iterator[tuple[str, list[_Line]]]:
    """`(name, lines)` of each body. That of the whole program begins with "ENTRY "."""
    name, lines = None, []
    for row in text.splitlines():
        if (head := re.match(r"(ENTRY )?%?([\w.\-]+)(?: \(.*)? \{$", row)) and not row.startswith(" "):
            name, lines = (head[1] or "") + head[2], []
        elif row.startswith("}") and name is not None:
            yield name, lines
            name = None
        elif name is not None and (line := _line(row)):
            lines.append(line)


def _line(row: str) -> _Line | None:
    found = re.match(r"\s+(ROOT )?%?([\w.\-]+) = (.+?) ([a-z][\w\-]*)\(", row)
    if not found:
        return None
    rest = row[found.end() :]
    close = _closing(rest)
    operands = tuple(name.split(" ")[-1].lstrip("%") for name in _entries(rest[:close]))
    return _Line(found[2], found[3], found[4], operands, rest[close + 1 :], bool(found[1]))


def _closing(text: str) -> int:
    """The place of the bracket that closes one before the text."""
    depth = 1
    for i, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return i
    return len(text)


def _entries(text: str) -> list[str]:
    """What stands between commas outside of brackets, without comments."""
    return [part.strip() for part in re.split(r",(?![^(\[{]*[)\]}])", re.sub(r"/\*.*?\*/", "", text)) if part.strip()]


def _arrays(kind: str) -> list[tuple[str, list[int]]]:
    return [
        (dtype, [int(n) for n in sizes.split(",") if n])
        for dtype, sizes in re.findall(r"\b([a-z]+\w*)\[([\d,]*)\]", kind)
    ]


def _shape(kind: str) -> list[int]:
    return _arrays(kind)[0][1]


def _size(kind: str) -> int:
    return sum(math.prod(sizes) for _, sizes in _arrays(kind))


def _bytes(kind: str) -> int:
    return sum(math.ceil(math.prod(sizes) * _bits(dtype) / 8) for dtype, sizes in _arrays(kind))


def _bits(dtype: str) -> int:
    if dtype == "pred":
        return 8
    number = re.search(r"\d+", dtype)
    return int(number[0]) if number else 0
