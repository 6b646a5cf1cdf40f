"""A U-Net tells discs, squares and triangles apart, pixel by pixel, in noisy images that are generated here.

A level of the net is a function of the level below it, so the whole net is one nested call. `python
examples/segmentation.py masks.png` draws its answers.
"""

import sys
import time

import numpy as np

import funcnet as fn
from funcnet.layers import batch_norm, conv, identity, max_pool, parallel, relu, serial, softmax, upsample

SIZE, CLASSES = 24, ("background", "disc", "square", "triangle")


def scenes(n, rng):
    """(n, 24, 24, 1) images and (n, 24, 24) labels: two shapes of any class, place, size and brightness, in noise."""
    y, x = np.mgrid[:SIZE, :SIZE]
    images, labels = rng.normal(0, 0.2, (n, SIZE, SIZE, 1)), np.zeros((n, SIZE, SIZE), np.int32)
    for image, label in zip(images, labels, strict=True):
        for _ in range(2):
            kind, radius, (row, column) = rng.integers(1, 4), rng.uniform(4, 7), rng.uniform(5, 19, 2)
            up, across = row - y, abs(x - column)
            inside = {
                1: up**2 + across**2 <= radius**2,
                2: (abs(up) <= 0.9 * radius) & (across <= 0.9 * radius),
                3: (up >= -radius) & (up <= radius) & (across <= (radius - up) / 2),
            }[kind]
            image[inside], label[inside] = rng.uniform(0.5, 1) + rng.normal(0, 0.2, (inside.sum(), 1)), kind
    return images.astype(np.float32), labels


def block(width):
    """Two convolutions, each normalised."""
    return serial(*(layer for _ in range(2) for layer in (conv(width, 3, use_bias=False), batch_norm(), relu())))


def level(width, below):
    """What is seen at this size, beside what `below` sees at half of it: the skip connection of the U-Net."""
    skip = parallel(identity(), serial(max_pool(2), below, upsample(2)), combine="concatenate")
    return serial(block(width), skip, block(width))


unet = serial(level(8, level(16, block(32))), conv(len(CLASSES), 1), softmax())
loss, metrics = fn.losses.dice, {"iou": fn.metrics.mean_iou(len(CLASSES)), "accuracy": fn.metrics.accuracy()}


def run(engine, train, held_out, epochs=8):
    """The last report of a training, and its seconds."""
    start, batch_size = time.perf_counter(), 10
    rate = fn.schedules.cosine_decay(0.01, epochs * fn.data.steps_per_epoch(len(train[0]), batch_size))
    *_, last = fn.training.fit(
        unet, loss, fn.optimizers.adam(rate), train, engine=engine, epochs=epochs, batch_size=batch_size,
        validation=held_out, metrics=metrics,
    )  # fmt: skip
    return last, time.perf_counter() - start


if __name__ == "__main__":
    rng = np.random.default_rng(0)
    train, held_out = scenes(300, rng), scenes(100, rng)
    for engine in ("autodiff", "backprop"):
        last, seconds = run(engine, train, held_out)
        accuracy, iou = last.metrics["validation_accuracy"], last.metrics["validation_iou"]
        print(f"{engine:8}  {seconds:.0f} s  right pixels {accuracy:.1%}  intersection over union {iou:.3f}")
    if sys.argv[1:]:
        from funcnet.plotting.figures import new_figure, saved

        probabilities, _ = unet.apply(last.state.optimizer.params, last.state.model, held_out[0][:8])
        figure = new_figure("segmentation", 8, 3.2)
        for row, drawn in zip(figure.subplots(3, 8), (held_out[0], held_out[1], probabilities.argmax(-1)), strict=True):
            for axes, image in zip(row, drawn, strict=False):
                axes.imshow(image, **({"cmap": "gray"} if image.ndim == 3 else {"vmax": 3, "interpolation": "nearest"}))
                axes.set_axis_off()
        saved(figure, sys.argv[1])
    print(f"held-out images: mean intersection over union {iou:.3f}")
