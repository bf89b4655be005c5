"""``pybatch demo``: a real model served one image at a time and batched, measured, checked and pictured.

The model is a small neural network trained on the spot; callers submit only images it has never seen. Both phases run
in a closed loop: a caller submits an image, waits for its answer, and only then submits the next.

The comparison is meant to be hard on batching. One at a time has a single caller in a tight loop with nothing else
running: no queue, no other thread. Batched pays for all of its callers, their threads, their event loop and the
progress bar in the same process.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import threading
import time
from array import array
from collections.abc import Iterable, Iterator, Sequence, Sized
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from itertools import cycle
from typing import Any

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, generate_latest
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.progress_bar import ProgressBar
from rich.table import Table
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from batchcore.records import Histogram, Stats
from pybatch import Scheduler

__all__ = ["Options", "main"]

TICK_S = 0.1
LATENCY_BOUNDS_NS = tuple(step * 10**power for power in range(4, 10) for step in (1, 2, 3, 5, 7))


@dataclass(frozen=True, slots=True)
class Options:
    """What the demo can be told; ``pybatch demo --help`` explains each."""

    threads: int = 8
    tasks: int = 120
    duration_s: float = 3.0
    max_batch_size: int = 64
    max_latency_ms: float | None = None
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Phase:
    """What the callers of one phase saw; latency is submit to answer."""

    callers: int
    elapsed_s: float
    answers: int
    mismatches: int
    accuracy: float
    throughput_per_s: float
    p50_ms: float
    p99_ms: float
    latency_ns: Histogram


@dataclass(frozen=True, slots=True)
class Report:
    """Everything the demo found out; its fields are the keys of ``--json``."""

    options: Options
    versions: dict[str, str]
    cpus: int
    model: str
    trained_images: int
    unseen_images: int
    one_at_a_time: Phase
    batched: Phase
    gain: float
    batches: int
    mean_batch_size: float
    batch_size: Histogram
    checked: int
    mismatches: int
    prometheus_text: str


@dataclass(frozen=True, slots=True)
class Job:
    """A trained model, images it has never seen, the digit in each, and what the model says of each alone."""

    model: Any
    trained_images: int
    images: list[NDArray[np.float64]]
    labels: NDArray[np.int64]
    expected: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Caller:
    """One closed loop over all images; nothing is judged while the clock runs."""

    order: list[int]
    answers: array[int] = field(default_factory=lambda: array("q"))
    latencies_ns: array[int] = field(default_factory=lambda: array("q"))

    def note(self, answer: int, latency_ns: int) -> None:
        self.answers.append(answer)
        self.latencies_ns.append(latency_ns)


def main(options: Options, *, as_json: bool = False) -> int:
    """Measure, with progress on stderr; print the report on stdout; return the exit code (1 on a wrong answer)."""
    progress_console = Console(stderr=True, highlight=False)
    lively = progress_console.is_terminal and not progress_console.is_dumb_terminal
    columns = TextColumn("{task.description}"), BarColumn(20), TimeRemainingColumn()
    # Refreshed by hand, between measurements: a refreshing thread would take part in them. One BLAS thread in either
    # phase: matrices this small gain nothing from more, and idle ones spin for the cores of the callers.
    progress = Progress(*columns, console=progress_console, transient=True, auto_refresh=False, disable=not lively)
    with progress, threadpool_limits(1):
        report = measure(options, progress)
    console = Console(highlight=False, markup=False)
    if as_json:
        console.out(json.dumps(asdict(report), indent=2))
    else:
        show(report, console)
    return 1 if report.mismatches else 0


def measure(options: Options, progress: Progress) -> Report:
    """Train the model, run both phases and return all figures."""
    job = train(options.seed, progress)
    alone = one_at_a_time(job, options, ticks(progress, "one at a time", options.duration_s))
    together, stats, metrics = batched(job, options, ticks(progress, "batched", options.duration_s))
    return Report(
        options=options,
        versions={"python": platform.python_version()}
        | {name: version(name) for name in ("batchcore", "numpy", "scikit-learn")},
        cpus=os.cpu_count() or 1,
        model=type(job.model).__name__,
        trained_images=job.trained_images,
        unseen_images=len(job.images),
        one_at_a_time=alone,
        batched=together,
        gain=together.throughput_per_s / alone.throughput_per_s,
        batches=stats.batches,
        mean_batch_size=stats.batch_size.mean,
        batch_size=stats.batch_size,
        checked=alone.answers + together.answers,
        mismatches=alone.mismatches + together.mismatches,
        prometheus_text=metrics,
    )


def train(seed: int, progress: Progress) -> Job:
    """Train on three quarters of the images; keep the rest for the callers."""
    images, labels = load_digits(return_X_y=True)
    split: Any = train_test_split(images / 16, labels, test_size=0.25, random_state=seed, stratify=labels)
    seen, unseen, seen_labels, labels = split
    # Stops when an epoch gains little: a fraction of a second for 0.97.
    model: Any = MLPClassifier((64,), learning_rate_init=0.01, tol=0.01, n_iter_no_change=3, random_state=seed)
    for _ in ticks(progress, f"training on {len(seen):,} of {len(images):,} digits"):
        model.fit(seen, seen_labels)
    # Batched or alone, probabilities differ by some 1e-15; the best two of an image by 1e-3 and more (seeds 0 to 11).
    expected = np.array([model.predict(image[None])[0] for image in unseen])
    return Job(model, len(seen), list(unseen), labels, expected)


def one_at_a_time(job: Job, options: Options, slices_s: Iterable[float]) -> Phase:
    """Let one caller ask the model for one image after another; the time between the slices is nobody's."""
    (caller,) = make_callers(1, job.images, options.seed)
    images = endless(caller, job)
    predict, elapsed_ns = job.model.predict, 0
    for slice_s in slices_s:
        began_ns = now_ns = time.perf_counter_ns()
        while now_ns - began_ns < slice_s * 1e9:
            answer = predict(next(images)[None])[0]
            answered_ns = time.perf_counter_ns()
            caller.note(answer, answered_ns - now_ns)
            now_ns = answered_ns
        elapsed_ns += now_ns - began_ns
    return judge([caller], job, elapsed_ns)


def batched(job: Job, options: Options, slices_s: Iterable[float]) -> tuple[Phase, Stats, str]:
    """Let all callers, threads and tasks, submit to one scheduler at once; return its metrics as text too."""

    def predict(images: list[NDArray[np.float64]]) -> list[int]:
        answers: list[int] = job.model.predict(np.array(images)).tolist()
        return answers

    registry = CollectorRegistry()
    scheduler = Scheduler(
        predict,
        max_batch_size=options.max_batch_size,
        max_latency_ms=options.max_latency_ms,
        name="digits",
        registry=registry,
    )
    callers = make_callers(options.threads + options.tasks, job.images, options.seed)
    stop = threading.Event()

    def thread(caller: Caller) -> None:
        for image in endless(caller, job):
            began_ns = time.perf_counter_ns()
            answer = scheduler.submit(image).result()
            caller.note(answer, time.perf_counter_ns() - began_ns)
            if stop.is_set():
                return

    async def task(caller: Caller) -> None:
        for image in endless(caller, job):
            began_ns = time.perf_counter_ns()
            answer = await scheduler.submit(image)
            caller.note(answer, time.perf_counter_ns() - began_ns)
            if stop.is_set():
                return

    async def tasks(callers: Sequence[Caller]) -> None:
        await asyncio.gather(*map(task, callers))

    with scheduler, ThreadPoolExecutor(options.threads + 1, "caller") as pool:
        began_ns = time.perf_counter_ns()
        try:
            running = [pool.submit(thread, caller) for caller in callers[: options.threads]]
            running.append(pool.submit(lambda: asyncio.run(tasks(callers[options.threads :]))))
            for slice_s in slices_s:
                time.sleep(slice_s)
        finally:
            stop.set()
        for outcome in running:
            outcome.result()
        elapsed_ns = time.perf_counter_ns() - began_ns
        scheduler.drain()  # so that the last batch, whose answers are here already, is in the statistics
        # Before it is shut down, which takes its metrics away.
        return judge(callers, job, elapsed_ns), scheduler.stats(), generate_latest(registry).decode()


def make_callers(count: int, images: Sized, seed: int) -> list[Caller]:
    """Return callers that each go through all images in an order of their own."""
    random = np.random.default_rng(seed)
    return [Caller(random.permutation(len(images)).tolist()) for _ in range(count)]


def endless(caller: Caller, job: Job) -> Iterator[NDArray[np.float64]]:
    """Return the caller's images, over and over."""
    return cycle([job.images[index] for index in caller.order])


def judge(callers: Sequence[Caller], job: Job, elapsed_ns: int) -> Phase:
    """Compare every answer with the model's own for that image, and with the digit the image shows."""
    answers = np.concatenate([np.array(caller.answers) for caller in callers])
    asked = np.concatenate([np.resize(caller.order, len(caller.answers)) for caller in callers])
    latencies_ns = np.concatenate([np.array(caller.latencies_ns) for caller in callers])
    p50_ms, p99_ms = np.percentile(latencies_ns, (50, 99)) / 1e6
    intervals = np.searchsorted(LATENCY_BOUNDS_NS, latencies_ns)
    counts = np.bincount(intervals, minlength=len(LATENCY_BOUNDS_NS) + 1).tolist()
    return Phase(
        callers=len(callers),
        elapsed_s=elapsed_ns / 1e9,
        answers=len(answers),
        mismatches=int((answers != job.expected[asked]).sum()),
        accuracy=float((answers == job.labels[asked]).mean()),
        throughput_per_s=len(answers) / elapsed_ns * 1e9,
        p50_ms=float(p50_ms),
        p99_ms=float(p99_ms),
        latency_ns=Histogram(LATENCY_BOUNDS_NS, tuple(counts), int(latencies_ns.sum())),
    )


def ticks(progress: Progress, phase: str, duration_s: float = 0.0) -> Iterator[float]:
    """Yield slices of `duration_s` to be spent, in seconds, and show how many of them are over."""
    if progress.disable:
        progress.console.print(f"{phase}, {duration_s:g} s ..." if duration_s else f"{phase} ...")
    count = max(1, round(duration_s / TICK_S))
    yield from progress.track([duration_s / count] * count, description=phase)


def show(report: Report, console: Console) -> None:
    """Print the report for people."""
    options, alone, together = report.options, report.one_at_a_time, report.batched
    console.print(
        f"{report.model} trained on {report.trained_images:,} handwritten digits; "
        f"callers submit {report.unseen_images:,} others.\n"
    )
    table = Table("", "one at a time", "batched", "gain", box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    table.add_row("callers", "1", f"{options.threads} threads + {options.tasks} tasks")
    table.add_row(
        "throughput", f"{alone.throughput_per_s:,.0f} /s", f"{together.throughput_per_s:,.0f} /s", f"{report.gain:.1f}x"
    )
    table.add_row("latency p50", f"{alone.p50_ms:.2f} ms", f"{together.p50_ms:.2f} ms")
    table.add_row("latency p99", f"{alone.p99_ms:.2f} ms", f"{together.p99_ms:.2f} ms")
    table.add_row("mean batch size", "1", f"{report.mean_batch_size:.1f}")
    table.add_row("accuracy", f"{alone.accuracy:.1%}", f"{together.accuracy:.1%}")
    console.print(table)
    console.print(
        "\nOne at a time is at its best here: one caller, a tight loop, nothing else.\n"
        f"{together.callers:,} callers taking turns at it would each wait about "
        f"{together.callers / alone.throughput_per_s * 1e3:.1f} ms.\n"
    )
    console.print(picture("batch size", "batches", report.batch_size))
    console.print()
    console.print(picture("latency ms", "answers", together.latency_ns, unit=1e6))
    console.print(
        f"\nevery answer checked: {report.checked - report.mismatches:,} of {report.checked:,} equal the model's own"
    )
    if report.mismatches:
        console.print(f"WRONG: {report.mismatches:,} answers differ", style="bold red")
    console.print("\nmetrics in Prometheus text:\n")
    console.out(report.prometheus_text.rstrip())


def picture(title: str, counted: str, histogram: Histogram, unit: float = 1) -> Table:
    """Return one bar for each interval from the first to the last that has observations."""
    labels = [f"<= {bound / unit:g}" for bound in histogram.bounds] + [f"> {histogram.bounds[-1] / unit:g}"]
    used = [index for index, count in enumerate(histogram.counts) if count]
    table = Table(box=None, pad_edge=False)
    table.add_column(title, justify="right", min_width=10)
    table.add_column()
    table.add_column(counted, justify="right")
    for index in range(used[0], used[-1] + 1):
        count = histogram.counts[index]
        bar = ProgressBar(max(histogram.counts), count, width=40, finished_style="bar.complete")
        table.add_row(labels[index], bar, f"{count:,}")
    return table
