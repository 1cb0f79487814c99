"""Where each decoder stands in accuracy and time on this machine: the same shots, in turns, one thread; and how long a
caller waits for it: wall-clock time of single calls.

Legend: B shots.
"""

from __future__ import annotations

import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.table import Table

from syndistill.circuits.placement import place
from syndistill.decoders.answers import learned_both
from syndistill.decoders.contract import Decoder
from syndistill.decoders.kernel_engine import KernelEngine
from syndistill.decoders.network import NetworkDecoder, StreamingDecoder
from syndistill.decoders.onnx_engine import OnnxExperiment
from syndistill.deploy.export import export_onnx
from syndistill.errors import SyndistillError
from syndistill.evaluation.compare import Comparison, compare
from syndistill.evaluation.rows import Row
from syndistill.evaluation.subject import Subject
from syndistill.files.network_file import read_header, shipped_names
from syndistill.sampling.stored import StoredShots, evaluation_seed

BATCH, CALLS, ROUNDS, TIMED_SHOTS = 1024, 1000, 1000, 4096
TURNS, WARM_UP = 7, 20
"""Most shots of a batched call, calls of a latency, rounds of a stream without Python between them, different shots."""


@dataclass(frozen=True)
class Speed:
    """Microseconds on one thread.

    us_per_shot: median over the turns of calls on `batch` shots. single: one shot a call. push: one streamed round a
    call; round: a streamed round with no Python between rounds; both None for what does not stream in compiled code.
    """

    decoder: str
    batch: int
    us_per_shot: float
    single_p50: float
    single_p99: float
    push_p50: float | None = None
    push_p99: float | None = None
    round: float | None = None


def bench_decoder(subject: Subject, name: str) -> Decoder:
    """As `Subject.decoder`; a network's name may also end in :onnx."""
    network, _, way = name.rpartition(":")
    if not network or way != "onnx":
        return subject.decoder(name)
    with tempfile.TemporaryDirectory() as folder:
        decoder = OnnxExperiment(export_onnx(network, subject.circuit, subject.label, Path(folder) / "exported"))
    decoder.name = name
    decoder.content_id = f"{decoder.content_id.removesuffix('-onnx')}-onnx"
    return decoder


def default_decoders(subject: Subject) -> list[str]:
    """Matching, and every shipped network of the circuit's distance."""
    distance = place(subject.circuit).layout.distance
    distances = {name: read_header(name).dials.distance for name in shipped_names()}
    return ["pymatching", "pymatching-correlated", *(name for name, d in distances.items() if d == distance)]


def bench_subject(
    subject: Subject, names: Sequence[str], shots: int, seed: int, seconds: float
) -> tuple[Comparison, list[Speed]]:
    """Error rates of the named decoders (none: `default_decoders`) on the same shots, then their times."""
    decoders = [bench_decoder(subject, name) for name in names or default_decoders(subject)]
    found = compare(decoders, subject.circuit, shots, seed, experiment=subject.label)
    size = min(shots, TIMED_SHOTS)
    timed = StoredShots.sample(subject.circuit, size, evaluation_seed(seed, 0, size))
    return found, measure(decoders, timed, seconds)


def measure(decoders: Sequence[Decoder], shots: StoredShots, seconds: float = 1.0) -> list[Speed]:
    """Times every decoder for about `seconds` at a batch and again at single shots, the decoders in turns so that other
    work on the machine hits all of them. SyndistillError for fewer than 100 shots."""
    if shots.n_shots < 100:
        raise SyndistillError(f"{shots.n_shots} shots are too few to time; take at least 100 shots")
    sizes = [_batch_size(decoder, shots, seconds / TURNS) for decoder in decoders]
    times: list[list[float]] = [[] for _ in decoders]
    for _ in range(TURNS):
        for decoder, size, found in zip(decoders, sizes, times, strict=True):
            found.append(_us_per_shot(decoder, shots, size, seconds / TURNS))
    medians = [statistics.median(found) for found in times]
    return [
        Speed(decoder.name, size, median, *_single(decoder, shots, seconds), *_streamed(decoder, shots))
        for decoder, size, median in zip(decoders, sizes, medians, strict=True)
    ]


def _batch_size(decoder: Decoder, shots: StoredShots, seconds: float) -> int:
    """At most BATCH shots, fewer where a call of so many would take longer than a turn has."""
    decoder.decode(shots.take(0, 10))
    pilot = _timed(lambda: decoder.decode(shots.take(0, 50))) / 50
    return int(min(BATCH, shots.n_shots, max(50, seconds / pilot)))


def _us_per_shot(decoder: Decoder, shots: StoredShots, size: int, seconds: float) -> float:
    """Median over calls on successive batches, for as long as the turn is."""
    pieces = [shots.take(start, start + size) for start in range(0, shots.n_shots - size + 1, size)]
    found: list[float] = []
    while sum(found) < seconds:
        piece = pieces[len(found) % len(pieces)]
        found.append(_timed(lambda piece=piece: decoder.decode(piece)))  # type: ignore[misc]
    return 1e6 * statistics.median(found) / size


def _timed(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _single(decoder: Decoder, shots: StoredShots, seconds: float) -> tuple[float, float]:
    pilot = _timed(lambda: decoder.decode(shots.take(0, 1)))
    calls = int(min(CALLS, max(100, seconds / max(pilot, 1e-6))))
    return latency(decoder, shots, calls)


def latency(decoder: Decoder, shots: StoredShots, calls: int) -> tuple[float, float]:
    """Median and 99th percentile of so many calls, in us: a shot each, from the start again at the end.

    Each includes the unpacking and checks that a user pays for too.
    """
    pieces = [shots.take(start, start + 1) for start in range(shots.n_shots)]
    for call in range(WARM_UP):
        decoder.decode(pieces[call % len(pieces)])
    microseconds = np.empty(calls)
    for call in range(calls):
        piece = pieces[call % len(pieces)]
        start = time.perf_counter_ns()
        decoder.decode(piece)
        microseconds[call] = (time.perf_counter_ns() - start) / 1e3
    p50, p99 = np.percentile(microseconds, (50, 99))
    return float(p50), float(p99)


def _streamed(decoder: Decoder, shots: StoredShots) -> tuple[float, float, float] | tuple[()]:
    if not isinstance(decoder, NetworkDecoder) or not isinstance(decoder.engine, KernelEngine):
        return ()
    if decoder.placement.basis == "both" and not learned_both(decoder.engine.output, decoder.engine.home):
        return ()
    stream = StreamingDecoder(decoder.engine, decoder.placement)
    rng = np.random.default_rng(0)
    rate = float(shots.detectors().mean())
    events = (rng.random((ROUNDS, 1, decoder.engine.layout.n_stabilisers)) < rate).astype(np.uint8)
    calls = [1e6 * _timed(lambda one=one: stream.push(one)) for one in events]  # type: ignore[misc]
    whole = [_timed(lambda: stream.push_rounds(events)) for _ in range(100)]
    p50, p99 = np.percentile(calls, (50, 99))
    return float(p50), float(p99), 1e6 * statistics.median(whole) / ROUNDS


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.processor() or platform.machine()
    return {"processor": model, "cores": os.cpu_count(), "load": round(os.getloadavg()[0], 2)}


def report(found: Comparison, speeds: Sequence[Speed]) -> dict[str, Any]:
    """For --json."""
    rows = [row.report() | asdict(speed) for row, speed in zip(found.rows, speeds, strict=True)]
    return {"machine": machine(), "rows": rows}


def speed_table(found: Comparison, speeds: Sequence[Speed], title: str) -> Table:
    """A line per decoder."""
    where = machine()
    caption = (
        f"{found.rows[0].shots:,} shots, the same for every decoder; microseconds on one thread of "
        f"{where['processor']}, {where['cores']} cores, load {where['load']}; push: a streamed round from Python, "
        "round: without Python"
    )
    table = Table(title=title, caption=caption, caption_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("decoder", overflow="fold")
    columns = ("LER, %", "95 %", "us/shot", "one shot p50", "p99", "push p50", "p99", "round")
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    for row, speed in zip(found.rows, speeds, strict=True):
        table.add_row(*_cells(row, speed))
    return table


def _cells(row: Row, speed: Speed) -> list[str]:
    times = (speed.us_per_shot, speed.single_p50, speed.single_p99, speed.push_p50, speed.push_p99, speed.round)
    interval = f"{100 * row.low:.3g}-{100 * row.high:.3g}"
    return [row.decoder, f"{100 * row.ler:.4g}", interval, *("-" if t is None else f"{t:,.2f}" for t in times)]
