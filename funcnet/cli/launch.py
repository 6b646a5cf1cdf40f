"""`funcnet launch -n 2 -- train …`: several processes on this machine as one run, started again if one fails."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

from funcnet.checkpoints import steps
from funcnet.cli import PEER_LOST, PORT_TAKEN, options
from funcnet.cli.folders import CHECKPOINTS, new_folder
from funcnet.errors import ConfigError
from funcnet.training.interruption import HANG_UP, STOPPING

__all__ = ["be_silent", "launch", "stop_with_launcher"]

NO_USE = (2, 3, 4)  # a wrong command line, diverged training, bad data: a new start would fail in the same way
WAIT = 2.0  # seconds to find the process that failed first, while others may end by themselves
PORTS = 10  # tries to find a port that nobody takes before process 0 does
LAUNCHED = "FUNCNET_LAUNCHED"  # in the environment of a process whose stdin ends when its launcher does


def launch(chosen: options.Launch, arguments: Sequence[str], train: options.Train) -> int:
    """Run `funcnet train` as several processes; the exit status is that of the one that failed first."""
    if chosen.processes < 1 or chosen.max_restarts < 0:
        raise ConfigError(
            "funcnet launch: expected --processes of 1 or more and --max-restarts of 0 or more, got "
            f"{chosen.processes} and {chosen.max_restarts}."
        )
    there = train.resume or train.output
    there = there is not None and there.exists()
    folder = train.resume or new_folder(train)
    try:
        return _launched(chosen, arguments, train, folder)
    finally:
        if not there:
            with contextlib.suppress(OSError):  # it holds something
                folder.rmdir()


def _launched(chosen, arguments, train, folder):
    if train.resume is None and train.output is None:
        arguments = [*arguments, "--output", str(folder)]
    count = chosen.processes
    for restart in range(chosen.max_restarts + 1):
        ended = _run_at_free_port(count, arguments)
        if ended.status == 0 or ended.asked or ended.status in NO_USE or restart == chosen.max_restarts:
            return ended.status
        if chosen.shrink and count > 1:
            count = max(n for n in range(1, count) if (train.batch_size or 32) % n == 0)
        if steps(folder / CHECKPOINTS):
            arguments = ["train", *_options_of_call(train), "--resume", str(folder)]
        print(
            f"funcnet launch: process {ended.first} failed; "
            f"restarting from the last checkpoint with --processes {count}",
            flush=True,
        )
    raise AssertionError("the loop returns")


def _options_of_call(train: options.Train) -> list[str]:
    """The options that belong to a call; the others are in the folder of the run."""
    default, given = options.Train(), []
    for name in options.MAY_CHANGE:
        value = getattr(train, name)
        if value != getattr(default, name) and name != "resume":
            option = "--" + name.replace("_", "-")
            given += [option] if value is True else [option, str(value)]
    return given


class _End(NamedTuple):
    first: int  #: the process that failed first
    status: int  #: its exit status; 0 if none failed
    asked: bool  #: whether a signal asked this process to end


def _run_at_free_port(count: int, arguments: Sequence[str]) -> _End:
    """Run the processes. If another program takes their port before they have it, they start again with another one."""
    ended = _run(count, arguments)
    for _ in range(PORTS - 1):
        if ended.status != PORT_TAKEN or ended.asked:
            break
        ended = _run(count, arguments)
    return ended


def _run(count: int, arguments: Sequence[str]) -> _End:
    """Run the processes to their end; the first failure ends the others."""
    address = f"127.0.0.1:{_free_port()}"
    # A proxy between processes of one machine would only make them hang.
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    environment[LAUNCHED] = "1"
    children = [_start(i, _command(i, count, address, arguments), environment) for i in range(count)]
    tails = [deque[str](maxlen=200) for _ in children]
    readers = [threading.Thread(target=_forward, args=(i, children[i], tails[i])) for i in range(count)]
    for reader in readers:
        reader.start()
    asked: list[int] = []

    def pass_on(number: int, frame: Any) -> None:
        asked.append(number)
        for child in children:
            child.send_signal(number)

    heard = [number for number in STOPPING if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, pass_on) for number in heard}
    try:
        first = _await_failure(children)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _end(children)
        for reader in readers:
            reader.join()
    if HANG_UP in asked:
        be_silent()
    if first is None:
        return _End(0, 0, bool(asked))
    status = children[first].returncode
    said = "".join(tails[first]) if first != 0 else ""
    print(f"funcnet launch: process {first} ended with status {status}\n{said}", end="", file=sys.stderr, flush=True)
    return _End(first, 128 - status if status < 0 else status, bool(asked))


def _command(i: int, count: int, address: str, arguments: Sequence[str]) -> list[str]:
    place = ["--coordinator", address, "--num-processes", str(count), "--process-id", str(i)]
    return [sys.executable, "-m", "funcnet.cli", *arguments, *place]


def _start(i: int, command: Sequence[str], environment: dict[str, str]) -> Any:
    """Start a process in a session of its own. Ctrl-C of the terminal reaches it once then, from here."""
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=None if i == 0 else subprocess.DEVNULL, stderr=subprocess.PIPE,
        env=environment, text=True, errors="replace", start_new_session=True,
    )  # fmt: skip


def be_silent() -> None:
    """Give up what is left to print, where the terminal is closed."""
    for stream in (sys.stdout, sys.stderr):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def stop_with_launcher() -> None:
    """In a process that was launched: stop as for SIGTERM, with a checkpoint, when the launcher is gone."""
    if LAUNCHED in os.environ:
        threading.Thread(target=_await_launcher, daemon=True).start()


def _await_launcher() -> None:
    os.read(0, 1)  # nothing is ever written: it ends with the launcher, whatever ends that
    signal.raise_signal(signal.SIGTERM)


def _forward(i: int, child: Any, tail: deque[str]) -> None:
    """Keep what a process writes to stderr. Process 0 speaks for all, so its lines are also printed at once."""
    with child.stderr as lines:
        for line in lines:
            tail.append(line)
            if i == 0:
                sys.stderr.write(line)
                sys.stderr.flush()


def _await_failure(children: Sequence[Any]) -> int | None:
    """Wait for a failure and return the process that failed first; `None` when all have ended well.

    A process that loses its peer fails too, and may end first. So such an end only counts after `WAIT` seconds.
    """
    lost, since = None, 0.0
    while True:
        codes = [child.poll() for child in children]
        failed = [i for i, code in enumerate(codes) if code not in (None, 0, PEER_LOST, -signal.SIGABRT)]
        if failed:
            return failed[0]
        fallen = [i for i, code in enumerate(codes) if code not in (None, 0)]
        if fallen and lost is None:
            lost, since = fallen[0], time.monotonic()
        if lost is not None and time.monotonic() - since > WAIT:
            return lost
        if None not in codes:
            return lost
        time.sleep(0.02)


def _end(children: Sequence[Any]) -> None:
    """Kill the processes that still run: they wait for one that is gone. Their last checkpoint is whole or absent."""
    for child in children:
        if child.poll() is None:
            child.kill()
    for child in children:
        child.wait()
        child.stdin.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
