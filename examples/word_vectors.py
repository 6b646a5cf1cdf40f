"""Word vectors as input: a classifier of short texts learns a vector for each word. Words of one topic come together.

Look at `embedding`, whose gradient is the sum over all places of a word, and at `Padded`, which holds texts of several
lengths. `python examples/word_vectors.py words.png` draws the vectors.
"""

import sys

import numpy as np

import funcnet as fn
from funcnet.plotting.figures import BLUE, GREY, RED, VERMILION, new_figure

TOPICS = {
    "weather": "rain snow wind storm cloud sun fog frost thunder mild stormy freezing blows melts falls",
    "kitchen": "soup bread oven salt butter pan onion cheese flour tasty fresh baked boils fries simmers",
    "football": "goal ball team coach referee stadium match striker penalty offside fast beaten scores kicks wins",
}
SHARED = "the a and is was again very today here it not in over then so we they after before always"
WORDS = " ".join([SHARED, *TOPICS.values()]).split()
NUMBERS = {word: number for number, word in enumerate(WORDS)}
EPOCHS, BATCH_SIZE = 3, 32


def texts(n, seed):
    """Texts of 4 to 12 words, of which 2 or 3 belong to the topic, and one to another one."""
    random, rows = np.random.default_rng(seed), []
    labels = random.integers(0, len(TOPICS), n).astype(np.int32)
    for label in labels:
        own, other = (list(TOPICS.values())[(label + shift) % 3].split() for shift in (0, random.integers(1, 3)))
        topical = [*random.choice(own, random.integers(2, 4), replace=False), random.choice(other)]
        words = [*topical, *random.choice(SHARED.split(), random.integers(1, 9))]
        rows.append([NUMBERS[word] for word in random.permutation(words)])
    return fn.data.padded(rows, length=12), labels


train, held_out = texts(1500, 0), texts(500, 1)
model = fn.layers.serial(fn.layers.embedding(len(WORDS), 8), fn.layers.mean_over(), fn.layers.dense(len(TOPICS)))
loss, optimizer = fn.losses.softmax_cross_entropy, fn.optimizers.adam(0.005)
reports = fn.training.fit(
    model, loss, optimizer, train, engine="backprop", epochs=EPOCHS, batch_size=BATCH_SIZE, validation=held_out,
    metrics={"accuracy": fn.metrics.accuracy()},
)  # fmt: skip
for last in reports:
    print(f"epoch {last.epoch}  loss {last.metrics['loss']:.3f}")
print(f"held-out texts: accuracy {last.metrics['validation_accuracy']:.1%}")

# Neighbours: the words with the smallest angle between their vectors
words, topics = " ".join(TOPICS.values()).split(), np.repeat(np.arange(3), 15)
vectors = np.asarray(last.state.optimizer.params[0]["embedding"])[-len(words) :]
lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
similar = (vectors / lengths) @ (vectors / lengths).T - 2 * np.eye(len(words))
for word in ("rain", "soup", "goal"):
    nearest = np.argsort(-similar[words.index(word)])[:4]
    print(f"{word}: {', '.join(words[i] for i in nearest)}")
print(f"the nearest neighbour is of the same topic for {(topics[similar.argmax(1)] == topics).mean():.1%} of the words")

if sys.argv[1:]:
    vectors = np.asarray(last.state.optimizer.params[0]["embedding"])
    plane = (vectors - vectors.mean(0)) @ np.linalg.svd(vectors - vectors.mean(0))[2][:2].T  # the most different
    figure = new_figure("word_vectors", 7.6, 5.6)
    axes = figure.subplots()
    axes.set(title="word vectors in the plane of their largest differences", xticks=[], yticks=[])
    colours = [GREY] * len(SHARED.split()) + [(BLUE, VERMILION, RED)[topic] for topic in topics]
    for word, colour, place in zip(WORDS, colours, plane, strict=True):
        axes.annotate(word, place, ha="center", va="center", fontsize=8, color=colour)
    axes.set(xlim=1.1 * plane[:, 0][[plane[:, 0].argmin(), plane[:, 0].argmax()]])
    axes.set(ylim=1.1 * plane[:, 1][[plane[:, 1].argmin(), plane[:, 1].argmax()]])
    figure.savefig(sys.argv[1], dpi=110)
