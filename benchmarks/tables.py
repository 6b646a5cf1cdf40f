"""The bundled tables of scikit-learn: `funcnet train` beside scikit-learn's models, on the same rows.

    python -m benchmarks.tables

Each table is written as CSV, trained by one command with its default options, and tested on the rows that it held out.
The models of scikit-learn get the same prepared training rows and are tested on the same held-out ones.
"""

import contextlib
import io
import json
import tempfile
import time
from pathlib import Path

import numpy as np
from sklearn import datasets
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import accuracy_score, r2_score
from sklearn.multioutput import MultiOutputRegressor

from funcnet.cli import main as funcnet
from funcnet.cli import options
from funcnet.cli.rows import prepared, read_parts

TABLES = {
    "iris": datasets.load_iris, "wine": datasets.load_wine, "breast cancer": datasets.load_breast_cancer,
    "digits": datasets.load_digits, "diabetes": datasets.load_diabetes, "linnerud": datasets.load_linnerud,
}  # fmt: skip
SEEDS = range(5)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        print(f"means and standard deviations over {len(SEEDS)} splits")
        for name, load in TABLES.items():
            path, targets = written(load(), Path(folder, f"{name}.csv"))
            start = time.perf_counter()
            scores = np.array([compare(path, targets, seed, Path(folder, f"{name}-{seed}")) for seed in SEEDS])
            rows = ", ".join(f"{mean:.3f} ± {sd:.3f}" for mean, sd in zip(scores.mean(0), scores.std(0), strict=True))
            print(f"{name:14} {rows}  ({(time.perf_counter() - start) / len(SEEDS):.0f} s)", flush=True)


def written(bunch, path: Path) -> tuple[Path, list[str]]:
    """The table as CSV, with class names as texts."""
    target = np.asarray(bunch.target)
    classes = "target_names" in bunch and target.dtype.kind == "i"
    targets = list(bunch.target_names) if target.ndim == 2 else ["target"]
    target = np.asarray(bunch.target_names)[target][:, None] if classes else target.reshape(len(target), -1)
    names = [*bunch.feature_names, *targets]
    lines = [",".join(f'"{name}"' for name in names)]
    for x, t in zip(bunch.data, target, strict=True):
        lines.append(
            ",".join([*(repr(float(value)) for value in x), *(f'"{v}"' if classes else repr(v) for v in t.tolist())])
        )
    path.write_text("\n".join(lines))
    return path, targets


def compare(path: Path, targets: list[str], seed: int, run: Path) -> list[float]:
    """Scores of one answer for all rows, a linear model, boosted trees, and funcnet."""
    command = ["--data", str(path), "--target", *targets, "--seed", str(seed)]
    with contextlib.redirect_stdout(io.StringIO()):
        assert funcnet(["train", *command, "--output", str(run)]) == 0
    told = io.StringIO()
    with contextlib.redirect_stdout(told):
        assert funcnet(["evaluate", str(run), "--json"]) == 0
    found = json.loads(told.getvalue())
    parts = read_parts(options.Train(data=str(path), target=tuple(targets), seed=seed))
    preparation = parts.preparation()
    rows = prepared(parts, preparation)
    classes = preparation.task == "classes"
    dummy, linear = (DummyClassifier(), LogisticRegression(max_iter=1000)) if classes else (DummyRegressor(), Ridge())
    trees = HistGradientBoostingClassifier() if classes else MultiOutputRegressor(HistGradientBoostingRegressor())
    (x, t), (held_x, held_t) = rows.training, rows.test
    score = accuracy_score if classes else r2_score
    peers = [float(score(held_t, model.fit(x, t).predict(held_x))) for model in (dummy, linear, trees)]
    return [*peers, found["accuracy" if classes else "r_squared"]]


if __name__ == "__main__":
    main()
