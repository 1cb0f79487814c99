"""How long a caller waits for a decoder: wall-clock time of single calls."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from syndistill.decoders.contract import Decoder
from syndistill.errors import SyndistillError
from syndistill.sampling.stored import StoredShots


@dataclass(frozen=True)
class Latency:
    """Microseconds of one call of `decode` on `batch` shots: median and 99th percentile over `calls` calls."""

    decoder: str
    batch: int
    calls: int
    p50_us: float
    p99_us: float

    @property
    def us_per_shot(self) -> float:
        """The median call, divided by its shots."""
        return self.p50_us / self.batch


def measure_latency(
    decoder: Decoder, shots: StoredShots, *, batch: int = 1, calls: int = 1000, warm_up: int = 20
) -> Latency:
    """Times `calls` calls on successive batches of the shots (from the start again at the end), after `warm_up` calls.

    Each call includes the unpacking and checks that a user pays for too.  Raises SyndistillError for fewer shots than
    one batch, or fewer than 100 calls, of which no 99th percentile can be told.
    """
    if not 1 <= batch <= shots.n_shots:
        raise SyndistillError(f"batch {batch} of {shots.n_shots} shots: take 1 <= batch <= the number of shots")
    if calls < 100 or warm_up < 1:
        raise SyndistillError(f"{calls} calls after {warm_up} of warm-up: take at least 100 after at least 1")
    pieces = [shots.take(start, start + batch) for start in range(0, shots.n_shots - batch + 1, batch)]
    for call in range(warm_up):
        decoder.decode(pieces[call % len(pieces)])
    microseconds = np.empty(calls)
    for call in range(calls):
        piece = pieces[call % len(pieces)]
        start = time.perf_counter_ns()
        decoder.decode(piece)
        microseconds[call] = (time.perf_counter_ns() - start) / 1e3
    p50, p99 = np.percentile(microseconds, (50, 99))
    return Latency(decoder.name, batch, calls, float(p50), float(p99))
