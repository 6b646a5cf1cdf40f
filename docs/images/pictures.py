"""The pictures of docs/pictures.md, docs/report.md and docs/notebook.md, with those of four examples.

`python docs/images/pictures.py` writes them beside itself, in a minute. The pictures of the report and of a notebook,
screenshots, need playwright, nbconvert and a Chromium on the path.
"""

import contextlib
import runpy
import shutil
import sys
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

import funcnet as fn

HERE = Path(__file__).parent
EXAMPLES = {
    "optimizer_paths.py": ("saddle.png", "ravine.png"),
    "decision_boundary.py": ("boundary.gif",),
    "initialisation.py": ("initialisation_relu.png", "initialisation_tanh.png"),
    "word_vectors.py": ("words.png",),
}


def run_examples():
    for name, pictures in EXAMPLES.items():
        sys.argv = [name, *(str(HERE / picture) for picture in pictures)]
        runpy.run_path(str(HERE.parent.parent / "examples" / name), run_name="__main__")


def draw_functions():
    from funcnet.layers import elu, gelu, leaky_relu, relu, sigmoid, silu, softplus, tanh

    layers = [sigmoid(), tanh(), relu(), leaky_relu(), elu(), gelu(), silu(), softplus()]
    fn.plotting.activations(layers, HERE / "activations.png")
    constant, cosine = fn.schedules.constant(0.1), fn.schedules.cosine_decay(0.1, 900)
    kinds = {
        "constant": constant,
        "step_decay": fn.schedules.step_decay(0.1, 250, gamma=0.5),
        "multi_step": fn.schedules.multi_step(0.1, (600, 850), gamma=0.3),
        "exponential_decay": fn.schedules.exponential_decay(0.1, 1000, 0.05),
        "cosine, warmed up": fn.schedules.warmup(cosine, 100),
    }
    fn.plotting.schedules(kinds, 1000, HERE / "schedules.png")


def draw_training():
    """Learning curves, and histograms of what moved."""
    train, held_out = fn.data.split(*fn.data.digits())
    model, rate = fn.models.mlp((64, 10), dropout=0.2), fn.schedules.warmup(fn.schedules.cosine_decay(0.01, 1000), 50)
    reports = list(fn.training.fit(
        model, fn.losses.softmax_cross_entropy, fn.optimizers.adam(rate), train, engine="backprop", epochs=24,
        batch_size=32, validation=held_out, metrics={"accuracy": fn.metrics.accuracy()},
    ))  # fmt: skip
    search = fn.training.find_learning_rate(
        fn.models.mlp((32, 10)), fn.losses.softmax_cross_entropy, fn.optimizers.adam(0.001), train, batch_size=64
    )
    fn.plotting.rate_search(search, HERE / "rates.png")
    rows = [fn.logs.scalars(report, rate) for report in reports]
    fn.plotting.learning_curves(rows, HERE / "learning_rate.png")
    params = {f"epoch {r.epoch}": r.state.optimizer.params for r in (reports[0], reports[5], reports[-1])}
    fn.plotting.histograms(params, HERE / "weights.png")
    pairs = {"epoch 2": reports[:2], "epoch 6": reports[4:6], "epoch 16": reports[14:16]}
    moved = {
        name: jax.tree.map(np.subtract, after.state.optimizer.params, before.state.optimizer.params)
        for name, (before, after) in pairs.items()
    }
    fn.plotting.histograms(moved, HERE / "updates.png")


def draw_confusion():
    """The mistakes of a small network."""
    train, held_out = fn.data.split(*fn.data.digits())
    model, loss = fn.models.mlp((32, 10)), fn.losses.softmax_cross_entropy
    *_, last = fn.training.fit(
        model, loss, fn.optimizers.adam(0.003), train, epochs=6, batch_size=32, validation=held_out,
        metrics={"confusion": fn.metrics.confusion_matrix(10), "scores": fn.metrics.precision_recall_f1(10)},
    )  # fmt: skip
    fn.plotting.confusion_matrix(last.metrics["validation_confusion"], path=HERE / "confusion.png")
    fn.plotting.class_scores(last.metrics["validation_scores"], HERE / "scores.png")


def draw_boundary():
    """A disc and what lies around it."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 2)).astype(np.float32)
    labels = (np.hypot(*x.T) > 1).astype(np.int32)
    model, loss = fn.models.mlp((16, 2), activation=fn.layers.tanh), fn.losses.softmax_cross_entropy
    *_, last = fn.training.fit(model, loss, fn.optimizers.adam(0.03), (x, labels), epochs=40, batch_size=50)
    params, state = last.state.optimizer.params, last.state.model
    fn.plotting.decision_boundary(model, params, state, x, labels, HERE / "boundary.png")


def draw_values():
    """Two targets of a regression on noisy numbers."""
    random = np.random.default_rng(0)
    x = random.normal(size=(400, 3)).astype(np.float32)
    y = np.stack([x[:, 0] * x[:, 1] + x[:, 2], np.abs(x[:, 0])], 1) + 0.2 * random.normal(size=(400, 2))
    train, held_out = fn.data.split(x, y.astype(np.float32))
    model, loss = fn.models.mlp((32, 32, 2)), fn.losses.mean_squared_error
    *_, last = fn.training.fit(model, loss, fn.optimizers.adam(0.01), train, epochs=60, batch_size=32)
    predicted, _ = model.apply(last.state.optimizer.params, last.state.model, held_out[0])
    fn.plotting.predicted_values(held_out[1], predicted, HERE / "predicted.png", names=["price", "size"])


def draw_graph():
    from funcnet.layers import batch_norm, conv, dense, global_avg_pool, relu, repeat, residual, serial

    block = serial(conv(16, 3), batch_norm(), relu(), conv(16, 3))
    model = serial(conv(16, 3), residual(block), repeat(serial(conv(16, 3), relu()), 4), global_avg_pool(), dense(10))
    fn.plotting.graph(model, jax.ShapeDtypeStruct((32, 8, 8, 1), jnp.float32), HERE / "graph.png")


def draw_report():
    """The head of the page of a short run, light and dark side by side."""
    from playwright.sync_api import sync_playwright

    from funcnet.cli import main

    halves = []
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder), sync_playwright() as started:
        main(["train", "--epochs", "12", "--learning-rate", "0.001"])
        main(["report", "runs/001"])
        browser = started.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for scheme in ("light", "dark"):
            page = browser.new_context(color_scheme=scheme, viewport={"width": 1000, "height": 1000}).new_page()
            page.goto(Path("runs/001/report.html").absolute().as_uri())
            page.screenshot(path=Path(f"{scheme}.png"))
            halves.append(Image.open(Path(f"{scheme}.png")).convert("RGB"))
        browser.close()
    light, dark = halves
    middle = light.width // 2
    light.paste(dark.crop((middle, 0, *dark.size)), (middle, 0))
    light.save(HERE / "report.png")


def draw_notebook():
    """The middle of the notebook of the digits."""
    import nbformat
    from nbconvert import HTMLExporter
    from playwright.sync_api import sync_playwright

    notebook = nbformat.read(HERE.parent.parent / "examples" / "digits.ipynb", as_version=4)
    notebook.cells = notebook.cells[3:6] + notebook.cells[10:12]
    page, _ = HTMLExporter(exclude_input_prompt=False).from_notebook_node(notebook)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as started:
        path = Path(folder, "digits.html")
        path.write_text(page, encoding="utf-8")
        browser = started.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        shown = browser.new_page(viewport={"width": 1080, "height": 400})
        shown.goto(path.as_uri(), wait_until="domcontentloaded")
        shown.screenshot(path=HERE / "notebook.png", full_page=True)
        browser.close()


def shrink(paths):
    """Fewer colours: these pictures have few."""
    for path in paths:
        image = Image.open(path).convert("RGB")
        image.quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)


if __name__ == "__main__":
    run_examples()
    draw_functions()
    draw_training()
    draw_confusion()
    draw_boundary()
    draw_values()
    draw_graph()
    draw_report()
    draw_notebook()
    names = [
        "activations",
        "schedules",
        "learning_rate",
        "weights",
        "updates",
        "confusion",
        "scores",
        "boundary",
        "predicted",
        "graph",
        "saddle",
        "ravine",
    ]
    names += ["initialisation_relu", "initialisation_tanh", "words", "report", "notebook"]
    shrink(HERE / f"{name}.png" for name in names)
