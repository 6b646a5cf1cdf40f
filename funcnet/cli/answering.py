"""Words for Ctrl-C at once, also while XLA compiles: handlers of Python wait until that is done."""

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator

__all__ = ["answering"]

_ANSWERED = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def answering() -> Iterator[None]:
    """Say at once that a signal came which `stop_on_signals` will act on. A second one ends the process.

    Enter it before `stop_on_signals`. Python writes the numbers of signals to a socket when they come, and a thread
    reads them there. Where a second signal would not end the process by itself, as in a notebook, nor does it here.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    deadly = [number for number in _ANSWERED if signal.getsignal(number) is signal.SIG_DFL]
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    before = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    thread = threading.Thread(target=_answer, args=(ours, deadly), daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        theirs.close()
        thread.join()
        ours.close()


def _answer(signals: socket.socket, deadly: list[signal.Signals]) -> None:
    """Answer the signals until the other end is closed."""
    heard = set()
    while told := signals.recv(1):
        number = told[0]
        if number in heard and number in deadly:
            os._exit(128 + number)
        if number in _ANSWERED and number not in heard:
            heard.add(number)
            words = f"funcnet: {signal.Signals(number).name}: stopping after the work under way"
            with contextlib.suppress(OSError, ValueError):  # nobody may read it any more
                print(f"{words}{'; a second one ends it at once' * (number in deadly)}", file=sys.stderr, flush=True)
