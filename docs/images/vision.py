"""The pictures of docs/vision.md: a small VGG, trained on a fifth of the bundled digits so that it makes mistakes.

`python docs/images/vision.py` writes them beside itself.
"""

from pathlib import Path

import jax

import funcnet as fn

HERE = Path(__file__).parent


def trained(train):
    model = fn.models.vgg(10, blocks=((32, 32), (64, 64)), hidden=(128,), dropout=0.2)
    optimizer = fn.optimizers.adam(fn.schedules.cosine_decay(2e-3, 300))
    loss = fn.losses.softmax_cross_entropy
    for report in fn.training.fit(model, loss, optimizer, train, engine="backprop", epochs=25, batch_size=32, key=0):
        print(f"epoch {report.epoch}  loss {report.metrics['loss']:.4f}")
    return model, report.state.optimizer.params, report.state.model


def draw(model, params, state, images, labels, folder):
    fn.plotting.filters(params[0]["kernel"], folder / "filters.png")

    first = fn.layers.serial(*model.inside.layers[:3])  # convolution, normalisation, ReLU
    y, _ = first.apply(params[:3], state[:3], images[:1])
    fn.plotting.activation_maps(y[0], folder / "activation_maps.png")

    logits, _ = jax.jit(model.apply)(params, state, images)
    fn.plotting.misclassified(images, labels, jax.nn.softmax(logits), folder / "misclassified.png")

    maps = fn.gradients.saliency(model, params, state, images[:8])
    titles = [str(digit) for digit in logits[:8].argmax(-1)]
    fn.plotting.saliency(images[:8], maps, folder / "saliency.png", titles=titles)


if __name__ == "__main__":
    rows, labels = fn.data.digits()
    held_out, train = fn.data.split(rows.reshape(-1, 8, 8, 1), labels)
    draw(*trained(train), *held_out, HERE)
