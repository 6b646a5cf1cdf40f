"""`python -m benchmarks`: measure, check, and write tables and a figure."""

import importlib
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from benchmarks import machine, report, roofline, starts
from benchmarks.against import against, table
from benchmarks.compare import compare
from benchmarks.network import Residual
from benchmarks.profile import profile
from benchmarks.report import Result
from benchmarks.worker import LIBRARIES, Worker, installed
from benchmarks.workload import Inference, Training, Workload

#: The files of `workloads`, in the order of the report.
SUITE = (
    "mlp_64", "mlp_256", "mlp_512", "lenet", "resnet_20", "gpt", "lstm", "mlp_64_many", "mlp_256_fed", "inference",
    "update",
)  # fmt: skip
MEMORY_OF = ("mlp_512", "lenet")


@dataclass
class Options:
    """Measure every workload in every installed library, and compare with what the machine can do.

    Example: python -m benchmarks --only mlp_64 lenet
    """

    size: Literal["full", "smoke"] = "full"
    """smoke: two steps in two rounds, to see that all of it runs."""
    only: tuple[Literal[(*SUITE, "starts")], ...] = (*SUITE, "starts")
    """Files of the folder workloads, and "starts" for imports, the main job, compilation and memory."""
    libraries: tuple[Literal[tuple(LIBRARIES)], ...] = tuple(LIBRARIES)
    """Libraries to measure besides funcnet, which is always measured. Those that are not installed are left out."""
    rounds: int = 5
    """How often each way runs, in turn with all others."""
    folder: Path = Path("runs/benchmarks")
    """Where results.json, report.md and ratios.png are written."""
    against: str | None = None
    """A commit. Instead of other libraries, measure its funcnet in turn with this one. Exit status 1: slower now."""


def main() -> None:
    options = tyro.cli(Options, prog="python -m benchmarks")
    if options.against is None:
        run(options)
    else:
        changes = against(options.against, workloads(options), 2 if options.size == "smoke" else 4 * options.rounds)
        print(table(changes))
        sys.exit(any(change.verdict == "slower" for change in changes))


def run(options: Options) -> None:
    """Measure and write."""
    started = time.perf_counter()
    here = installed()
    for name in options.libraries:
        if name not in here:
            print(f"{name}: not installed, left out")
    limits = machine.measure()
    workers = [Worker(name) for name in here if name in (report.OURS, *options.libraries)]
    rounds = 2 if options.size == "smoke" else options.rounds
    results = []
    for workload in workloads(options):
        results.append(Result(workload, compare(workload, workers, rounds), roofline.limit(workload, limits)))
        print(f"\n{workload.title}\n\n{report.times_table(results[-1])}", flush=True)
    for worker in workers:
        worker.stop()
    sections = [about(limits), *measured(results)]
    if "starts" in options.only:
        sections += starting(options, [worker.library for worker in workers])
    options.folder.mkdir(parents=True, exist_ok=True)
    text = "\n\n".join(sections) + f"\n\nAll of it took {(time.perf_counter() - started) / 60:.0f} minutes.\n"
    (options.folder / "report.md").write_text(text)
    (options.folder / "results.json").write_text(json.dumps(plain(results, limits), indent=1))
    trained = trainings(results)
    if trained:
        report.figure(trained, options.folder / "ratios.png")
    print(f"\n{text}\nwritten to {options.folder}")


def workloads(options: Options) -> list[Workload]:
    """The chosen workloads, with two steps each for a smoke run."""
    chosen = []
    for name in options.only:
        if name != "starts":
            module = importlib.import_module(f"benchmarks.workloads.{name}")
            chosen += getattr(module, "WORKLOADS", None) or [module.WORKLOAD]
    return [_short(workload) for workload in chosen] if options.size == "smoke" else chosen


def _thin(network):
    """Each residual block once."""
    return tuple(
        layer for i, layer in enumerate(network) if not isinstance(layer, Residual) or layer not in network[:i]
    )


def _short(workload):
    match workload:
        case Training():
            network, batch, models = _thin(workload.network), min(workload.batch, 8), min(workload.models, 2)
            return workload._replace(steps=2, batch=batch, models=models, network=network)
        case Inference():
            return workload._replace(calls=2)
    shapes = workload.shapes if len(workload.shapes) > 1 else ((1000,),)
    return workload._replace(updates=2, shapes=shapes)


def trainings(results: list[Result]) -> list[Result]:
    """The workloads that train."""
    return [result for result in results if isinstance(result.workload, Training)]


def about(limits: machine.Machine) -> str:
    """The machine, its versions and its measured rates."""
    words = [f"- {name}: {value}" for name, value in machine.description().items()]
    bandwidths = ", ".join(f"{rate / 1e9:.0f} GB/s at {size} MB" for size, rate in limits.bandwidths.items())
    words += [f"- products of matrices: {limits.flops / 1e9:.0f} GFLOP/s at best", f"- memory: {bandwidths}"]
    return "\n".join(["# Benchmarks", "", *words])


def measured(results: list[Result]) -> list[str]:
    """The sections of the workloads: a summary, what is possible, and every way."""
    sections = ["## What is possible", possible(results)] if results else []
    trained = trainings(results)
    if trained:
        sections = ["## Training, in ratios", report.summary(trained), *sections]
    # Many models, and batches from the host, go through the steps of other workloads.
    alone = [result.workload for result in trained if result.workload.models == 1 and result.workload.fed == "device"]
    if alone:
        sections += ["## Where the time goes", profiles(alone)]
    return sections + [f"## {result.workload.title}\n\n{report.times_table(result)}" for result in results]


def possible(results: list[Result]) -> str:
    """The limit of each workload, and how much of it is reached."""
    rows = []
    for workload, times, limit in results:
        best = min(report.peers(times), key=lambda t: t.median, default=times[0])
        rows.append([
            workload.title, f"{limit.parameters:,}", f"{limit.flops / 1e9:.3g} GFLOP", f"{limit.moved / 1e6:.3g} MB",
            report.duration(limit.seconds), f"{limit.seconds / times[0].median:.0%}",
            f"{limit.seconds / best.median:.0%} ({best.library})",
        ])  # fmt: skip
    headings = ["workload", "parameters", "arithmetic", "moved", "limit", "funcnet reaches", "best peer reaches"]
    return report.table(headings, rows)


def profiles(trained: list[Training], most: int = 8) -> str:
    """The largest shares of each workload's step."""
    rows = []
    for workload in trained:
        shares = [f"`{name}` {share:.0%}" for name, share in profile(workload)[:most]]
        rows.append([workload.title, ", ".join(shares)])
    return report.table(["workload", "busy time of a step, hand-derived engine, by primitive"], rows)


def starting(options: Options, libraries: list[str]) -> list[str]:
    """The sections about whole processes."""
    smoke = options.size == "smoke"
    imports = starts.import_seconds(1 if smoke else 5)
    sections = [
        "## Import",
        report.table(["import of", "seconds"], [[name, f"{seconds:.2f}"] for name, seconds in imports.items()]),
    ]
    if not smoke:
        seconds, accuracy = starts.main_job()
        sections += [
            "## `funcnet train`",
            f"{seconds:.1f} s from the start of the process to {accuracy} of test digits.",
        ]
    compiled = starts.compile_seconds((1, 2) if smoke else starts.DEPTHS)
    depths = list(next(iter(compiled.values())))
    rows = [
        [container, engine, *(f"{of[depth]:.2f} s" for depth in depths), f"{of[depths[-1]] / of[depths[0]]:.2f}"]
        for (container, engine), of in compiled.items()
    ]
    headings = ["blocks as", "engine", *map(str, depths), "last / first"]
    sections += ["## Compilation of a step against depth", report.table(headings, rows)]
    peaks = {}
    for workload in workloads(Options(size=options.size, only=MEMORY_OF)):
        for way, megabytes in starts.peak_memory(workload, libraries).items():
            peaks.setdefault(way, []).append(f"{megabytes:.0f}")
    headings = ["library", "way", *MEMORY_OF]
    rows = [[*way, *megabytes] for way, megabytes in peaks.items()]
    return [*sections, "## Peak memory of a process that trains, in MB", report.table(headings, rows)]


def plain(results: list[Result], limits: machine.Machine) -> dict:
    """All numbers, for other programs."""
    return {
        "about": machine.description(),
        "flops": limits.flops,
        "bandwidths": limits.bandwidths,
        "seconds": {of.workload.title: [t._asdict() for t in of.times] for of in results},
        "limits": {of.workload.title: of.limit._asdict() for of in results},
    }
