from benchmarks.network import Attention, Dense, Embedding, Gelu, LayerNorm, Positions, Residual
from benchmarks.workload import Training

BLOCK = (
    Residual((LayerNorm(), Attention(4))),
    Residual((LayerNorm(), Dense(512), Gelu(), Dense(128))),
)
WORKLOAD = Training(
    "GPT, 4 blocks × 128, 128 tokens, batch 16, Adam",
    network=(Embedding(96, 128), Positions(128), *4 * BLOCK, LayerNorm(), Dense(96)),
    shape=(128,),
    batch=16,
    optimizer="adam",
    steps=5,
    tolerance=2e-7,  # jax.nn.dot_product_attention, which flax uses too, has scores in float32 whatever it is given
)
