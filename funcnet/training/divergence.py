"""Stop a training whose numbers became infinite or NaN, with an error that says where."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from funcnet.errors import DivergenceError
from funcnet.optimizers import guards
from funcnet.trees import flatten_with_paths
from funcnet.types import Report

__all__ = ["GuardAlarm", "check_finite", "guard_counts", "skipped"]


def check_finite(report: Report | None, counted: Any) -> None:
    """Raise for a report whose loss is not finite, unless nothing counted in it because all steps were skipped."""
    if report is not None and not np.isfinite(float(report.metrics["loss"])) and float(counted):
        raise DivergenceError(
            f"fit: the loss is {float(report.metrics['loss'])} at step {report.step} (epoch {report.epoch}); "
            "try a smaller learning rate, optimizers.clipped, or a loss on logits."
        )


def skipped(before: Any, after: Any) -> jax.Array | None:
    """Whether a `guarded` in an optimizer's state skipped the update; `None` for an optimizer without `guarded`."""
    changes = [new.skipped > old.skipped for old, new in zip(guards(before), guards(after), strict=True)]
    return jnp.any(jnp.array(changes)) if changes else None


def guard_counts(state: Any) -> list[jax.Array]:
    """The numbers of each `guarded` that an alarm reads, in new buffers, because the state's own may be donated."""
    return [
        jnp.stack([g.in_a_row, g.most, g.step, g.bad_step, g.bad_leaf, g.bad_update.astype(jnp.int32)])
        for g in guards(state)
    ]


class GuardAlarm:
    """Ends a run in which too many steps in a row were not finite."""

    def __init__(self, state: Any, rows_of: Any):
        self.paths = [(_paths(guard.params), _paths(guard.inner)) for guard in guards(state)]
        self.rows_of = rows_of  #: step -> the numbers of the rows of its batch, or None

    @property
    def armed(self) -> bool:
        """Whether there is a guard at all."""
        return bool(self.paths)

    def __call__(self, step: jax.Array, counts: list[jax.Array]) -> None:
        for paths, count in zip(self.paths, counts, strict=True):
            in_a_row, most, seen, bad_step, leaf, of_update = (int(number) for number in np.asarray(count))
            if in_a_row >= most and of_update:
                raise DivergenceError(
                    f"fit: {in_a_row} steps in a row were skipped, from step {bad_step} on, because {paths[1][leaf]} "
                    "would not have been finite after the update, although the gradient was. The parameters are those "
                    "from before that step. Try a smaller learning rate or optimizers.clipped."
                )
            if in_a_row >= most:
                # A guard inside another wrapper may count other steps than the loop.
                rows = self.rows_of(bad_step) if seen == int(step) else None
                batch = "" if rows is None else f", whose batch has the rows {_some(rows)}"
                raise DivergenceError(
                    f"fit: {in_a_row} gradients in a row were not finite and were skipped, from step {bad_step} on"
                    f"{batch}; the first bad leaf is {paths[0][leaf]}. The parameters are those from before that step. "
                    "Look for NaN or inf in these rows, try a smaller learning rate or optimizers.clipped; "
                    "checking.find_nonfinite names the layer."
                )


def _paths(tree: Any) -> list[str]:
    return [path for path, _ in flatten_with_paths(tree)]


def _some(rows: Any) -> str:
    shown = ", ".join(str(row) for row in rows[:8])
    return f"{shown}, …" if len(rows) > 8 else shown
