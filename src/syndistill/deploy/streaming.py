"""Decoding while the experiment runs: push a round, ask for the posterior at any time, finish with the data readout.

Axes: B logical qubits, R rounds, S stabilisers in the layout's order, O observables.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from syndistill.circuits.placement import Placement
from syndistill.decoders.answers import Answers
from syndistill.deploy.engines import Bits, Engine, require_engine
from syndistill.errors import SyndistillError


class StreamingDecoder:
    """`batch` logical qubits side by side, all in the same round.

    placement: of the circuit that runs (`circuits.placement.place`), whose basis and observables count; or
    `Placement.of_lines` where there is no circuit. What it keeps does not grow with the rounds. Raises SyndistillError
    for a basis that the network has no answer for.
    """

    def __init__(self, engine: Engine, placement: Placement, batch: int = 1) -> None:
        require_engine(engine)
        engine.check(placement)
        self.layout = engine.layout
        self._answers = Answers(placement, engine.output, engine.home)
        if len(self._answers.questions) > 1:
            raise SyndistillError(f"{engine.name} knows one basis at a time; stream the two bases as two experiments")
        self._stream = engine.stream(placement.basis, batch)
        self._last_events = np.zeros((batch, engine.layout.n_stabilisers), np.uint8)
        self._turn_SO = placement.turn_OS.T.astype(np.int64)
        self._parity_BS = self._last_events.copy() if self._turn_SO.any() else None
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
        flips_BO = self._answers.untouched([self._stream.logits(last_BS)])
        if self._parity_BS is None:
            return flips_BO
        final_BS = self._parity_BS ^ (np.asarray(last_BS, np.uint8) * self._stream.defined_S)
        turned_BO = (final_BS.astype(np.int64) @ self._turn_SO) % 2 == 1
        return np.where(turned_BO, 1 - flips_BO, flips_BO)
