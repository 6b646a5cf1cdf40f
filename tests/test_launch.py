"""Several processes as one run: found, started anew when one is killed, ended together when one fails."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from funcnet import checkpoints, parallel
from funcnet.cli import launch, main, options
from funcnet.errors import ConfigError, PortError

RUN = ["--model", "mlp", "--hidden", "16", "--epochs", "5", "--dropout", "0", "--batch-size", "64"]
QUICK = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "true", "JAX_PLATFORMS": "cpu"}


def start(*arguments):
    call = [sys.executable, "-m", "funcnet.cli", *map(str, arguments)]
    return subprocess.Popen(
        call, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | QUICK, start_new_session=True
    )


def wait_for(path, lines):
    deadline = time.monotonic() + 90
    while not path.exists() or len(path.read_text().splitlines()) < lines:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def child_of(launcher, number):
    """The id of the process of that number."""
    for entry in os.listdir("/proc"):
        try:
            words = Path(f"/proc/{entry}/cmdline").read_text().split("\0")
            parent = int(Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            continue
        if parent == launcher.pid and words[-3:-1] == ["--process-id", str(number)]:
            return int(entry)
    raise AssertionError(f"no process {number}")


@pytest.mark.skipif(not os.path.exists("/proc"), reason="finds processes in /proc")
def test_a_killed_process_is_made_good_bit_for_bit(tmp_path):
    """As one process with two devices, which nothing disturbs."""
    launched = start("launch", "-n", 2, "--", "train", *RUN, "--output", tmp_path / "two")
    wait_for(tmp_path / "two" / "metrics.csv", 2)
    os.kill(child_of(launched, 1), signal.SIGKILL)
    out, err = launched.communicate(timeout=120)
    assert launched.returncode == 0, err
    assert "funcnet launch: process 1 failed; restarting from the last checkpoint with --processes 2" in out
    alone = start("train", *RUN, "--devices", 2, "--output", tmp_path / "one")
    _, err = alone.communicate(timeout=120)
    assert alone.returncode == 0, err
    for name in ("weights.safetensors", "metrics.csv", "config.toml"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    (last,) = checkpoints.verify(tmp_path / "one" / "checkpoints")[-1:]
    assert (last.problem, last.manifest.environment["devices"]) == (None, 2)


# The launcher, with children that only wait and fail


@pytest.fixture
def children(monkeypatch):
    """Give each process of the launcher a program of its own."""
    programs = []

    def run(*sources):
        programs[:] = sources
        started = time.monotonic()
        return launch._run(len(sources), []), time.monotonic() - started

    monkeypatch.setattr(launch, "_command", lambda i, *_: [sys.executable, "-S", "-c", programs[i]])
    return run


def test_one_failure_ends_all_and_its_traceback_is_last(children, capfd):
    lost = "import sys, time; time.sleep(0.2); print('lost', file=sys.stderr); sys.exit(75)"
    ended, took = children("import time; time.sleep(60)", lost, "raise KeyError('the first cause')")
    assert (ended.first, ended.status, ended.asked) == (2, 1, False)
    assert took < 5
    err = capfd.readouterr().err
    assert err.index("funcnet launch: process 2 ended with status 1") < err.index("Traceback")
    assert err.endswith("KeyError: 'the first cause'\n")


def test_a_lost_peer_is_not_the_cause(children):
    """Though it is seen to end first."""
    lost = "import sys; sys.exit(75)"
    cause = "import os, signal, time; time.sleep(0.5); os.kill(os.getpid(), signal.SIGKILL)"
    ended, _ = children(lost, cause)
    assert (ended.first, ended.status) == (1, 128 + signal.SIGKILL)


def test_only_lost_peers(children):
    ended, took = children("import sys; sys.exit(75)", "import time; time.sleep(60)")
    assert (ended.first, ended.status) == (0, 75)
    assert took < 5


def test_all_end_well(children):
    assert children("pass", "import time; time.sleep(0.1)")[0] == (0, 0, False)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_is_passed_on_once(children, monkeypatch, number):
    """Also that of a terminal, which sends it to every process of its group: no process is in that of the launcher."""
    polite = f"""if True:
        import os, signal, sys, time
        seen = []
        signal.signal({number:d}, lambda *_: seen.append(1))
        """
    end = """
        while not seen:
            time.sleep(0.01)
        time.sleep(0.3)
        sys.exit(len(seen) != 1 or os.getpgrp() == os.getpgid(os.getppid()))
        """
    before, silenced = signal.getsignal(number), []
    monkeypatch.setattr(launch, "be_silent", lambda: silenced.append(1))
    assert children(f"{polite}time.sleep(0.5); os.kill(os.getppid(), {number:d}){end}", polite + end)[0] == (0, 0, True)
    assert signal.getsignal(number) is before
    assert len(silenced) == (number == signal.SIGHUP)  # the terminal may be closed


def test_a_signal_that_is_ignored_is_not_passed_on(children):
    """SIGHUP under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        end = "import os, time; os.kill(os.getppid(), 1); os.kill(os.getpid(), 1); time.sleep(0.3)"
        assert children(end)[0] == (0, 0, False)
    finally:
        signal.signal(signal.SIGHUP, before)


LAUNCHED = """
import signal, sys, time
from pathlib import Path
from funcnet.cli.launch import stop_with_launcher
stopped = []
signal.signal(signal.SIGTERM, lambda number, frame: stopped.append(number))
stop_with_launcher()
Path(sys.argv[1], "ready").touch()
while not stopped:
    time.sleep(0.01)
Path(sys.argv[1], "stopped").touch()
"""
LAUNCHER = f"""
import sys
from funcnet.cli import launch
launch._command = lambda *_: [sys.executable, "-c", {LAUNCHED!r}, sys.argv[1]]
launch._run(1, [])
"""


def test_processes_stop_when_their_launcher_is_killed(tmp_path):
    launcher = subprocess.Popen([sys.executable, "-c", LAUNCHER, str(tmp_path)])
    wait_for(tmp_path / "ready", 0)
    assert not (tmp_path / "stopped").exists()
    launcher.kill()
    launcher.wait()
    wait_for(tmp_path / "stopped", 0)


@pytest.mark.parametrize("taken, asked, runs, status", [(2, False, 3, 0), (99, False, 10, 76), (99, True, 1, 76)])
def test_a_port_that_was_taken_is_not_the_end(tmp_path, monkeypatch, taken, asked, runs, status):
    seen = []

    def run(*_):
        seen.append(1)
        return launch._End(0, 76 if len(seen) <= taken else 0, asked)

    monkeypatch.setattr(launch, "_run", run)
    chosen = options.Launch(max_restarts=0)
    assert launch.launch(chosen, ["train"], options.Train(output=tmp_path / "run")) == status
    assert len(seen) == runs


def test_proxies_are_not_handed_down(children, monkeypatch):
    monkeypatch.setenv("https_proxy", "http://nowhere:1")
    assert children("import os, sys; sys.exit('https_proxy' in os.environ)")[0].status == 0


@pytest.mark.parametrize("shrink, counts", [(False, [3, 3, 3]), (True, [3, 2, 1])])
def test_restarts_are_bounded_and_may_shrink(tmp_path, monkeypatch, shrink, counts):
    seen = []

    def fails(count, arguments):
        seen.append((count, arguments))
        return launch._End(1, 137, False)

    monkeypatch.setattr(launch, "_run", fails)
    chosen = options.Launch(processes=3, max_restarts=2, shrink=shrink)
    train = options.Train(output=tmp_path / "run", watchdog=9.0, debug_nans=True)
    assert launch.launch(chosen, ["train"], train) == 137
    assert [count for count, _ in seen] == counts
    assert [arguments for _, arguments in seen] == [["train"]] * 3  # nothing was saved yet
    monkeypatch.setattr(launch, "steps", lambda folder: [7])
    seen.clear()
    launch.launch(chosen, ["train"], options.Train(resume=tmp_path / "run", watchdog=9.0, debug_nans=True))
    again = ["train", "--watchdog", "9.0", "--debug-nans", "--resume", str(tmp_path / "run")]
    assert [arguments for _, arguments in seen] == [["train"], again, again]


@pytest.mark.parametrize("who", [0, 1])
def test_a_process_that_cannot_write_ends_all_and_is_tried_again(tmp_path, monkeypatch, capfd, who):
    """The others wait for it, or lose it as a peer. A full disk may have room again at the next start."""
    sources = [
        "import sys, time; time.sleep(0.4); sys.exit(75)",
        f"""if True:
            import os, pathlib, sys
            tries = pathlib.Path({str(tmp_path / "tries")!r})
            tries.write_text((tries.read_text() if tries.exists() else "") + "x")
            if len(tries.read_text()) < 3:
                raise OSError(28, "No space left on device", "shards/0/0.0")
            """,
    ]
    programs = sources if who == 1 else sources[::-1]
    monkeypatch.setattr(launch, "_command", lambda i, *_: [sys.executable, "-S", "-c", programs[i]])
    chosen, train = options.Launch(processes=2, max_restarts=1), options.Train(output=tmp_path / "run")
    assert launch.launch(chosen, ["train"], train) == 1  # tried twice, as --max-restarts says
    out, err = capfd.readouterr()
    assert out.count(f"funcnet launch: process {who} failed; restarting from the last checkpoint with") == 1
    assert err.count(f"funcnet launch: process {who} ended with status 1") == 2
    assert err.count("OSError: [Errno 28] No space left on device: 'shards/0/0.0'\n") == 2
    programs[1 - who] = "pass"
    assert launch.launch(chosen, ["train"], train) == 0
    assert (tmp_path / "tries").read_text() == "xxx"


@pytest.mark.parametrize("status", [0, 2, 3, 4])
def test_what_a_new_start_cannot_mend_is_not_started_anew(tmp_path, monkeypatch, status):
    runs = []
    monkeypatch.setattr(launch, "_run", lambda *_: runs.append(1) or launch._End(0, status, False))
    assert launch.launch(options.Launch(), ["train"], options.Train(output=tmp_path / "run")) == status
    assert len(runs) == 1


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["launch"], "expected -- and a command, such as funcnet launch -n 2 -- train"),
        (["launch", "--", "evaluate", "x"], "expected train after --, got evaluate x"),
        (["launch", "-n", "0", "--", "train"], "expected --processes of 1 or more and --max-restarts of 0 or more"),
    ],
)
def test_wrong_launches(capsys, arguments, message):
    assert main(arguments) == 2
    assert f"funcnet launch: {message}" in capsys.readouterr().err


# Starting


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("127.0.0.1:1",), "expected coordinator, num_processes and process_id together"),
        (("127.0.0.1", 2, 0), "expected coordinator to be host:port, got '127.0.0.1'"),
        (("127.0.0.1:x", 2, 0), "expected coordinator to be host:port"),
        (("127.0.0.1:1", 2, 2), "expected process_id from 0 to num_processes - 1, got 2 of 2"),
        (("127.0.0.1:1", 0, 0), "expected process_id from 0 to num_processes - 1, got 0 of 0"),
    ],
)
def test_a_start_that_cannot_be(arguments, message):
    with pytest.raises(ConfigError, match=f"parallel.start: {message}"):
        parallel.start(*arguments)


def test_a_start_that_comes_too_late():
    with pytest.raises(ConfigError, match="parallel.start: expected to come before anything else that uses jax"):
        parallel.start(devices=3)
    with pytest.raises(ConfigError, match="parallel.start: expected devices to be a positive integer, got 0"):
        parallel.start(devices=0)


def test_a_port_in_use_is_named_before_jax_shares_it(capsys):
    """As the coordinator of another run uses it, which would be ended."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        problem = f"parallel.start: expected coordinator to be a free port, got {address}, which another program uses."
        with pytest.raises(PortError, match=re.escape(problem)):
            parallel.start(address, 2, 0)
        call = ["train", "--coordinator", address, "--num-processes", "2", "--process-id", "0"]
        assert main(call) == 76
    assert capsys.readouterr().err == f"funcnet: {problem}\n"


def test_one_process_alone_joins_none():
    parallel.start("127.0.0.1:1", 1, 0)


@pytest.mark.parametrize(
    "variables, several",
    [
        ({}, False),
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4"}, True),
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "1"}, False),
        ({"SLURM_JOB_ID": "7"}, False),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, True),
        ({"OMPI_COMM_WORLD_SIZE": "1"}, False),
        ({"JOB_COMPLETION_INDEX": "0"}, False),  # which other systems set too
        ({"JOB_COMPLETION_INDEX": "0", "KUBERNETES_SERVICE_HOST": "10.0.0.1"}, True),
    ],
)
def test_clusters_are_recognised(variables, several):
    assert parallel.processes.in_cluster(variables) is several
