"""Decoding while the experiment runs: push a round, ask for the posterior at any time, finish with the data readout.

Axes: B logical qubits, R rounds, S stabilisers in the layout's order, O observables.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from syndistill.circuits.layout import BASES
from syndistill.deploy.decoding import flips
from syndistill.deploy.engines import Bits, Engine, require_engine
from syndistill.errors import SyndistillError


class StreamingDecoder:
    """`batch` logical qubits side by side, all in the same round.

    basis: "x", "z", or "both" (two observables, x line then z line). lines: for each observable its line of data
    qubits (default: line 0). What it keeps does not grow with the rounds. Raises SyndistillError for a basis that the
    network has no answer for, and for lines that the layout does not have.
    """

    def __init__(self, engine: Engine, basis: str, lines: Sequence[int] | None = None, batch: int = 1) -> None:
        require_engine(engine)
        if basis not in BASES:
            raise SyndistillError(f"basis {basis!r} is unknown; pick one of {', '.join(BASES)}")
        engine.n_outputs(basis)
        bases = ("x", "z") if basis == "both" else (basis,)
        lines = [0] * len(bases) if lines is None else lines
        most = engine.layout.n_lines - 1
        fits = isinstance(lines, Sequence | np.ndarray) and len(lines) == len(bases)
        if not fits or not all(isinstance(line, int | np.integer) and 0 <= line <= most for line in lines):
            raise SyndistillError(f"lines {lines!r} for basis {basis}; give {len(bases)} of 0..{most}, one each")
        self.layout = engine.layout
        self._output = engine.output
        self._stream = engine.stream(basis, batch)
        self._last_events = np.zeros((batch, engine.layout.n_stabilisers), np.uint8)
        columns = [engine.layout.line_matrix(b)[:, line] for b, line in zip(bases, lines, strict=True)]
        self._between_SO = np.stack(columns, -1)
        self._parity_BS = self._last_events.copy() if any(lines) else None
        self._finished = False

    @property
    def rounds_done(self) -> int:
        return self._stream.rounds_done

    def push(self, events_BS: Bits) -> None:
        """Takes in one measured round: detection events, uint8 or bool. Refused events change nothing."""
        self.push_rounds(events_BS[None] if isinstance(events_BS, np.ndarray) else events_BS)

    def push_rounds(self, events_RBS: Bits) -> None:
        """Takes in several rounds at once, without Python between them where the engine can."""
        if self._finished:
            raise SyndistillError("the experiment is finished; restart the stream before the next round")
        first = self._stream.rounds_done == 0
        self._stream.push(events_RBS)
        if self._parity_BS is not None:
            defined_RBS = np.asarray(events_RBS, np.uint8)
            if first and len(defined_RBS):
                defined_RBS = defined_RBS.copy()
                defined_RBS[0] *= self._stream.defined_S
            self._parity_BS ^= np.bitwise_xor.reduce(defined_RBS, axis=0)

    def posterior(self) -> NDArray[np.float64]:
        """Probability (B, O) that each observable has flipped by now, if the data were read at once and showed no
        event beyond those pushed. The stream goes on as if nobody had asked."""
        return self._answer(self._last_events)

    def finish(self, last_BS: Bits) -> NDArray[np.float64]:
        """Probability (B, O) that each observable flipped, given the slice computed from the data readout."""
        answer = self._answer(last_BS)
        self._finished = True
        return answer

    def restart(self) -> None:
        """The next experiment, of all the logical qubits."""
        self._stream.restart()
        if self._parity_BS is not None:
            self._parity_BS[:] = 0
        self._finished = False

    def _answer(self, last_BS: Bits) -> NDArray[np.float64]:
        if self._finished:
            raise SyndistillError("the experiment is finished; restart the stream before asking again")
        flips_BO = flips(self._stream.logits(last_BS), self._output)
        if self._parity_BS is None:
            return flips_BO
        final_BS = self._parity_BS ^ (np.asarray(last_BS, np.uint8) * self._stream.defined_S)
        turned_BO = (final_BS.astype(np.int64) @ self._between_SO) % 2 == 1
        return np.where(turned_BO, 1 - flips_BO, flips_BO)
