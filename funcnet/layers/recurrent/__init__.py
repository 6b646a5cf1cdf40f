"""Recurrences, their cells, and what makes one vector of a sequence.

Each recurrence is the mathematics of one step. The loop over time and its backward are written once, in `recurrence`.
"""

from funcnet.layers.recurrent.gru import gru, gru_cell
from funcnet.layers.recurrent.lstm import lstm, lstm_cell
from funcnet.layers.recurrent.readout import last, max_over, mean_over
from funcnet.layers.recurrent.rnn import rnn, rnn_cell
from funcnet.layers.recurrent.wrappers import bidirectional, over_time

__all__ = [
    "bidirectional", "gru", "gru_cell", "last", "lstm", "lstm_cell", "max_over", "mean_over", "over_time", "rnn",
    "rnn_cell",
]  # fmt: skip
