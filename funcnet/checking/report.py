"""The report of a gradient check: one row for each leaf, engine pair and mode."""

from typing import Any, NamedTuple

import numpy as np

from funcnet.checking import page
from funcnet.checking.judging import NOT_DECIDED, RIGHT, VERDICTS, WRONG
from funcnet.errors import GradientError
from funcnet.rendering import headed, pages, text_table

__all__ = ["GradientReport", "Row"]

MARKS = {RIGHT: "ok", NOT_DECIDED: "NOT DECIDED", WRONG: "WRONG"}  #: verdicts as a table shows them


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
    verdict: str  #: "right", "wrong" or "not decided"
    reason: str = ""  #: why it is not right

    @property
    def ok(self) -> bool:
        """Whether the verdict is "right"."""
        return self.verdict == RIGHT

    def badness(self) -> tuple[int, float]:
        """Orders rows: the verdict first, then the error."""
        return VERDICTS.index(self.verdict), self.error

    def cells(self) -> dict[str, str]:
        """The row in words, heading -> text."""
        return {
            "": MARKS[self.verdict],
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
    def verdict(self) -> str:
        """`"right"` if every row is and no layer is located, `"wrong"` if a row is wrong, else `"not decided"`."""
        rows = max((VERDICTS.index(row.verdict) for row in self.rows), default=VERDICTS.index(NOT_DECIDED))
        return WRONG if self.located else VERDICTS[rows]

    @property
    def ok(self) -> bool:
        """Whether the verdict is `"right"`."""
        return self.verdict == RIGHT

    @property
    def mark(self) -> str:
        """The verdict as a table shows it."""
        return MARKS[self.verdict]

    @property
    def reasons(self) -> list[str]:
        """Why the verdict is not "right", a line for each row that has it."""
        return [
            f"{row.leaf}, {' / '.join(row.engines)}{f' in {row.mode}' if row.mode else ''}: {row.reason}"
            for row in self.rows
            if row.reason
        ]

    @property
    def worst(self) -> Row:
        """The row with the largest error, failing rows first."""
        return max(self.rows, key=Row.badness)

    def raise_if_failed(self) -> None:
        """Raise `GradientError` with the table if the gradient is wrong, or if that is not decided."""
        __tracebackhide__ = True  # pytest's traceback then ends at the caller's line, with the table below it
        if self.verdict == WRONG:
            raise GradientError(f"{self.rows[0].target}: the hand-derived gradient is wrong.\n{self}")
        if self.verdict == NOT_DECIDED:
            raise GradientError(
                f"{self.rows[0].target}: it is not decided whether the hand-derived gradient is right; give inputs at "
                f"which rounding and kinks hide less.\n{self}"
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain Python values, ready for JSON."""
        return {
            "ok": self.ok,
            "verdict": self.verdict,
            "located": list(self.located),
            "sampling": self.sampling,
            "rows": [row._asdict() | {"ok": row.ok} for row in self.rows],
        }

    def __repr__(self) -> str:
        targets = dict.fromkeys(row.target for row in self.rows)
        return f"GradientReport({self.verdict}: {', '.join(targets)}, leaf by leaf in {len(self.rows)} rows)"

    def __str__(self) -> str:
        headings, rows = headed(self.rows)
        words = {RIGHT: "all agree", WRONG: "FAILED", NOT_DECIDED: "NOT DECIDED"}
        verdict = f"{self.rows[0].target}: {self.sampling}; {words[self.verdict]}"
        return "\n".join([text_table([headings, *rows]), *self.reasons, *self.place(), verdict])

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
        return pages.fragment(page.details(page.Outcome(self.rows[0].target, self)))
