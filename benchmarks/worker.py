"""Each library in its own process. It builds and runs on request, and only one process runs at a time."""

import importlib
import importlib.util
import multiprocessing
import re
import resource
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

#: What each library needs besides jax.
LIBRARIES = {
    "funcnet": (),
    "stax": ("optax",),
    "flax": ("flax", "optax"),
    "equinox": ("equinox", "optax"),
    "torch": ("torch",),
}


def installed() -> list[str]:
    """The libraries that can be measured here."""
    return [name for name, needs in LIBRARIES.items() if all(map(importlib.util.find_spec, needs))]


def peak() -> float:
    """The largest memory of this process so far, in MB."""
    status = Path("/proc/self/status")
    if status.exists():  # on Linux a process inherits the number of getrusage from its parent
        return int(re.findall(r"VmHWM:\s*(\d+) kB", status.read_text())[0]) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def library_module(library: str) -> ModuleType:
    """The module of a library, from the folder `libraries`."""
    return importlib.import_module(f"benchmarks.libraries.with_{library}")


class Worker:
    """The process of one library, seen from the command. `tree` is a folder to import funcnet from."""

    def __init__(self, library: str, tree: str | None = None):
        self.library = library
        self._pipe, theirs = multiprocessing.get_context("spawn").Pipe()
        self._process = multiprocessing.get_context("spawn").Process(
            target=_serve, args=(library, theirs, tree), daemon=True
        )
        self._process.start()
        theirs.close()

    def prepare(self, workload: Any) -> dict[str, list[float]]:
        """Build and warm up every column of a workload, in place of the last workload's: name -> its check."""
        return self._ask("prepare", workload)

    def run(self, column: str) -> tuple[float, int]:
        """Seconds of one run, and the number of steps, calls or updates in it."""
        return self._ask("run", column)

    def peak_memory(self, workload: Any, column: str) -> float:
        """MB of this process at its peak, after a run of this column."""
        return self._ask("peak_memory", workload, column)

    def first_step(self, workload: Any, column: str) -> float:
        """Seconds from the description of a network to the end of this column's first run, in a new process."""
        return self._ask("first_step", workload, column)

    def source(self) -> str:
        """The file of the funcnet that this process measures."""
        return self._ask("source")

    def stop(self) -> None:
        with suppress(BrokenPipeError):  # it has ended already
            self._pipe.send(("stop",))
        self._process.join()

    def _ask(self, what, *arguments):
        self._pipe.send((what, *arguments))
        try:
            kind, answer = self._pipe.recv()
        except EOFError:
            raise RuntimeError(f"{self.library}: its process ended, perhaps because memory ran out") from None
        if kind == "error":
            raise RuntimeError(f"{self.library}: {answer}")
        return answer


def _serve(library, pipe, tree):
    columns = {}
    if tree is not None:
        sys.path.insert(0, tree)

    def prepare(workload):
        columns.clear()
        module = library_module(library)
        with module.double():
            exact = module.columns(workload._replace(dtype="float64"))
            checks = {name: build().check() for name, build in exact.items()}
        for name, build in module.columns(workload).items():
            columns[name] = build()
            columns[name].run()
        return checks

    def run(name):
        column = columns[name]
        start = time.perf_counter()
        column.run()
        return time.perf_counter() - start, column.count

    def peak_memory(workload, name):
        library_module(library).columns(workload)[name]().run()
        return peak()

    def first_step(workload, name):
        columns_of = library_module(library).columns
        start = time.perf_counter()
        columns_of(workload)[name]().run()
        return time.perf_counter() - start

    def source():
        return importlib.import_module("funcnet").__file__

    requests = {"prepare": prepare, "run": run, "peak_memory": peak_memory, "first_step": first_step, "source": source}
    while True:
        what, *arguments = pipe.recv()
        if what == "stop":
            return
        try:
            pipe.send(("done", requests[what](*arguments)))
        except Exception:
            pipe.send(("error", traceback.format_exc()))
