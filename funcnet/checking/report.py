"""The report of a gradient check: one row for each leaf, engine pair and mode."""

import html
from typing import Any, NamedTuple

import numpy as np

from funcnet.errors import GradientError

__all__ = ["GradientReport", "Row"]


class Row(NamedTuple):
    """How two engines agree on one leaf."""

    target: str  #: what was checked, as its author would write it
    mode: str  #: "training" or "evaluation"
    leaf: str  #: path of a parameter, or "x"
    engines: tuple[str, str]  #: the one under suspicion, and the one it is held against
    size: int  #: elements of the leaf
    checked: int  #: elements compared
    kinks: int  #: elements of these at a kink or jump, which finite differences cannot judge
    error: float  #: norm-relative, ‖a − b‖ / ‖b‖
    worst: tuple[int, ...] | None  #: index of the worst element
    values: tuple[float, float] | None  #: what the two engines say there
    ulps: float  #: their distance there in units of the float64 spacing of the second
    ok: bool


class GradientReport(NamedTuple):
    """What `check_gradients` found. It prints as a table; in a notebook it is one."""

    rows: tuple[Row, ...]
    located: tuple[str, ...]  #: layers whose own backward departs from autodiff, the first one walking backward first
    sampling: str  #: which elements finite differences looked at

    @property
    def ok(self) -> bool:
        """Whether every row is."""
        return all(row.ok for row in self.rows) and not self.located

    @property
    def worst(self) -> Row:
        """The row with the largest error, failing rows first."""
        return max(self.rows, key=lambda row: (not row.ok, row.error))

    def raise_if_failed(self) -> None:
        """Raise `GradientError` with the table unless all is well."""
        if not self.ok:
            raise GradientError(f"the hand-derived gradient is wrong.\n{self}")

    def to_dict(self) -> dict[str, Any]:
        """Plain Python values, ready for JSON."""
        return {
            "ok": self.ok,
            "located": list(self.located),
            "sampling": self.sampling,
            "rows": [row._asdict() for row in self.rows],
        }

    def __str__(self) -> str:
        cells = [_HEAD, *(_cells(row) for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = [
            "  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip() for row in cells
        ]
        lines.insert(1, "-" * max(map(len, lines)))
        return "\n".join([*lines, *self._remarks()])

    def _remarks(self):
        if self.located:
            yield f"wrong formula: {self.located[0]}" + (
                f" (then {', '.join(self.located[1:])})" if self.located[1:] else ""
            )
        yield f"{self.rows[0].target}: {self.sampling}; {'all agree' if self.ok else 'FAILED'}"

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{html.escape(word)}</th>" for word in _HEAD)
        body = "".join(
            f'<tr style="background:{"#fff" if row.ok else "#fbd5d0"};color:#000">'
            + "".join(f"<td>{html.escape(word)}</td>" for word in _cells(row))
            + "</tr>"
            for row in self.rows
        )
        remarks = "".join(f"<p>{html.escape(remark)}</p>" for remark in self._remarks())
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{remarks}"


_HEAD = ("", "mode", "leaf", "engines", "checked", "kinks", "error", "worst element", "values", "ulps")


def _cells(row: Row) -> tuple[str, ...]:
    place = "" if row.worst is None else "[" + ", ".join(map(str, row.worst)) + "]"
    values = "" if row.values is None else f"{row.values[0]:.9g} / {row.values[1]:.9g}"
    return (
        "ok" if row.ok else "WRONG", row.mode, row.leaf, " / ".join(row.engines),
        f"{row.checked} of {row.size}", str(row.kinks or ""), f"{row.error:.1e}", place, values,
        f"{row.ulps:.3g}" if np.isfinite(row.ulps) else "∞",
    )  # fmt: skip
