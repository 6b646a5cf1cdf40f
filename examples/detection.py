"""Where is the object, and what is it? One network finds the box and the class of a shape in a noisy image.

Two heads share one trunk. The box needs to know where a feature is, so its head sees the whole map. The class does not,
so its head sees the largest of each feature. `python examples/detection.py boxes.png` draws the answers.
"""

import sys
import time

import jax.numpy as jnp
import numpy as np

import funcnet as fn
from funcnet.layers import conv, dense, each, flatten, global_max_pool, max_pool, parallel, relu, serial

SIZE, KINDS = 24, ("disc", "square", "triangle")


def scenes(n, rng):
    """(n, 24, 24, 1) images with one shape each, and its class and box (left, top, right, bottom) in 0..1."""
    y, x = np.mgrid[:SIZE, :SIZE]
    images, kinds, boxes = rng.normal(0, 0.2, (n, SIZE, SIZE, 1)), rng.integers(0, 3, n), np.zeros((n, 4), np.float32)
    for image, kind, box in zip(images, kinds, boxes, strict=True):
        radius = rng.uniform(4, 8)
        row, column = rng.uniform(radius, SIZE - 1 - radius, 2)
        up, across = row - y, abs(x - column)
        inside = (
            up**2 + across**2 <= radius**2,
            (abs(up) <= 0.9 * radius) & (across <= 0.9 * radius),
            (up >= -radius) & (up <= radius) & (across <= (radius - up) / 2),
        )[kind]
        image[inside] += rng.uniform(0.5, 1)
        box[:] = np.array([x[inside].min(), y[inside].min(), x[inside].max() + 1, y[inside].max() + 1]) / SIZE
    return images.astype(np.float32), {"kind": kinds, "box": boxes}


def overlap(a, b):
    """Intersection over union of boxes (…, 4)."""
    sides = jnp.minimum(a[..., 2:], b[..., 2:]) - jnp.maximum(a[..., :2], b[..., :2])
    both = jnp.prod(jnp.maximum(sides, 0), -1)
    return both / (jnp.prod(a[..., 2:] - a[..., :2], -1) + jnp.prod(b[..., 2:] - b[..., :2], -1) - both)


trunk = serial(*(layer for width in (8, 16, 32) for layer in (conv(width, 3), relu(), max_pool(2))))
seen = parallel(kind=global_max_pool(), box=flatten())
heads = each(kind=dense(len(KINDS)), box=serial(dense(64), relu(), dense(4)))
model = serial(trunk=trunk, seen=seen, heads=heads)
loss = fn.losses.weighted_sum(kind=(1.0, fn.losses.softmax_cross_entropy), box=(20.0, fn.losses.smooth_l1))


def run(engine, train, held_out, epochs=20, batch_size=25):
    """The predictions for the held-out images after a training, and its seconds."""
    start, steps = time.perf_counter(), epochs * fn.data.steps_per_epoch(len(train[0]), batch_size)
    optimizer = fn.optimizers.adam(fn.schedules.cosine_decay(3e-3, steps))
    *_, last = fn.training.fit(model, loss, optimizer, train, engine=engine, epochs=epochs, batch_size=batch_size)
    prediction, _ = model.apply(last.state.optimizer.params, last.state.model, held_out[0])
    return prediction, time.perf_counter() - start


if __name__ == "__main__":
    rng = np.random.default_rng(0)
    train, (images, target) = scenes(1000, rng), scenes(300, rng)
    for engine in ("autodiff", "backprop"):
        prediction, seconds = run(engine, train, (images, target))
        right = prediction["kind"].argmax(-1) == target["kind"]
        iou = overlap(prediction["box"], target["box"])
        print(f"{engine:8}  {seconds:.0f} s  class {right.mean():.1%}  box {iou.mean():.3f}")
    if sys.argv[1:]:
        from funcnet.plotting.figures import VERMILION, new_figure, saved

        figure = new_figure("detection", 8, 2.3)
        for i, axes in enumerate(figure.subplots(2, 8).flat):
            left, top, far, bottom = SIZE * prediction["box"][i] - 0.5
            axes.imshow(images[i], cmap="gray")
            axes.plot([left, far, far, left, left], [top, top, bottom, bottom, top], color=VERMILION, linewidth=1)
            axes.set_title(KINDS[prediction["kind"][i].argmax()], fontsize="small")
            axes.set_axis_off()
        saved(figure, sys.argv[1])
    print(f"held-out boxes: mean intersection over union {iou.mean():.3f}")
