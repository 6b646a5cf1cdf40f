"""The report of a gradient check: one row for each leaf, engine pair and mode."""

from typing import Any, NamedTuple

import numpy as np

from funcnet.checking import page
from funcnet.errors import GradientError
from funcnet.rendering import headed, text_table

__all__ = ["GradientReport", "Row"]


class Row(NamedTuple):
    """How two engines agree on one leaf."""

    target: str  #: what was checked, as its author would write it
    mode: str  #: "training", "evaluation", or "both" if they are one program; "" for a loss or function
    dtype: str  #: of the gradient under test
    leaf: str  #: path of a parameter, or "x"
    engines: tuple[str, str]  #: the engine under test, and the reference
    size: int  #: elements of the leaf
    checked: int  #: elements compared
    kinks: int  #: compared elements at a kink or jump, where finite differences prove nothing
    error: float  #: norm-relative, ‖a − b‖ / ‖b‖
    worst: tuple[int, ...] | None  #: index of the worst element
    values: tuple[float, float] | None  #: of the two engines at the worst element
    ulps: float  #: the distance of these values, in units of the spacing of `dtype` at the second one
    ok: bool

    def cells(self) -> dict[str, str]:
        """The row in words, heading -> text."""
        return {
            "": "ok" if self.ok else "WRONG",
            "mode": self.mode,
            "dtype": self.dtype,
            "leaf": self.leaf,
            "engines": " / ".join(self.engines),
            "checked": f"{self.checked} of {self.size}",
            "kinks": str(self.kinks or ""),
            "error": f"{self.error:.1e}",
            "worst element": "" if self.worst is None else "[" + ", ".join(map(str, self.worst)) + "]",
            "values": "" if self.values is None else f"{self.values[0]:.9g} / {self.values[1]:.9g}",
            "ulps": f"{self.ulps:.3g}" if np.isfinite(self.ulps) else "∞",
        }


class GradientReport(NamedTuple):
    """What `check_gradients` found. It prints as a table, and a notebook shows it as one."""

    rows: tuple[Row, ...]
    located: tuple[str, ...]  #: layers whose own backward differs from autodiff, in the order of the backward pass
    sampling: str  #: which elements finite differences looked at

    @property
    def ok(self) -> bool:
        """Whether every row is ok and no layer is located."""
        return all(row.ok for row in self.rows) and not self.located

    @property
    def worst(self) -> Row:
        """The row with the largest error, failing rows first."""
        return max(self.rows, key=lambda row: (not row.ok, row.error))

    def raise_if_failed(self) -> None:
        """Raise `GradientError` with the table if a gradient is wrong."""
        __tracebackhide__ = True  # pytest's traceback then ends at the caller's line, with the table below it
        if not self.ok:
            raise GradientError(f"{self.rows[0].target}: the hand-derived gradient is wrong.\n{self}")

    def to_dict(self) -> dict[str, Any]:
        """Plain Python values, ready for JSON."""
        return {
            "ok": self.ok,
            "located": list(self.located),
            "sampling": self.sampling,
            "rows": [row._asdict() for row in self.rows],
        }

    def __str__(self) -> str:
        headings, rows = headed(self.rows)
        verdict = f"{self.rows[0].target}: {self.sampling}; {'all agree' if self.ok else 'FAILED'}"
        return "\n".join([text_table([headings, *rows]), *self.place(), verdict])

    def place(self) -> list[str]:
        """Where the mistake is, as a list of one line. It is empty if nothing is located."""
        first, rest = self.located[:1], self.located[1:]
        return [f"wrong formula: {first[0]}" + (f" (then {', '.join(rest)})" if rest else "")] if first else []

    def to_html(self, figure: Any = None) -> str:
        """A page that needs no other file: the verdict, where the mistake is, the table with failing rows first.

        Args:
            figure: a picture to show, such as `plotting.gradient_errors(report)`: anything with matplotlib's `savefig`.
        """
        return page.page([page.Outcome(self.rows[0].target, self)], figure)

    def _repr_html_(self) -> str:
        return page.fragment(page.Outcome(self.rows[0].target, self))
