"""Networks as decoders, whatever engine runs them: Stim's packed bits in, probabilities of the observables out; or
round by round while the experiment runs: push a round, ask for the posterior at any time, finish with the readout.

Axes: B shots or logical qubits, R rounds, N detectors, S stabilisers in the layout's order, O observables.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import stim
from numpy.typing import NDArray

from syndistill.circuits.placement import Placement, place
from syndistill.decoders.answers import Answers
from syndistill.decoders.contract import Decoder, warn_of_more_rounds, warn_of_other_noise
from syndistill.decoders.engines import Bits, Engine, packed_bits, require_engine
from syndistill.errors import SyndistillError
from syndistill.files.network_file import members_in
from syndistill.sampling.stored import StoredShots

if TYPE_CHECKING:
    from syndistill.decoders.ensemble import PackedEnsemble


class NetworkDecoder(Decoder):
    """A network on one circuit, run by an engine.

    Raises SyndistillError for a circuit of another distance and a basis that the network has no answer for; warns of
    more rounds (MoreRoundsThanTrained) and of other noise (FarFromTraining) than the training shots had.
    """

    gives_probabilities = True

    def __init__(self, engine: Engine, placement: Placement, name: str | None = None) -> None:
        require_engine(engine)
        engine.check(placement)
        self.engine = engine
        self.placement = placement
        self.name = name or engine.name
        self._answers = Answers(placement, engine.output, engine.home)
        self._logits = [engine.on(question.placement) for question in self._answers.questions]
        warn_of_more_rounds(self.name, engine.trained_rounds, placement.rounds)
        warn_of_other_noise(self.name, engine.home, placement)
        self.n_parameters = engine.n_parameters
        self.n_detectors = len(placement.slice_N)
        self.n_observables = placement.n_observables
        self.content_id = engine.content_id

    def probabilities(self, detectors_packed: Bits) -> NDArray[np.float64]:
        """As `decode`, of bits packed in Stim's order, uint8 (B, ceil(N / 8)). SyndistillError for another shape."""
        packed = packed_bits(detectors_packed, self.n_detectors, self.name)
        questions = zip(self._logits, self._answers.questions, strict=True)
        return self._answers.flips([logits(question.packed(packed)) for logits, question in questions], packed)

    def _probabilities(self, shots: StoredShots) -> NDArray[np.float64]:
        return self.probabilities(shots.detectors_packed)


def on_circuit(engine: Engine, source: stim.Circuit | stim.DetectorErrorModel) -> NetworkDecoder:
    """A decoder of a circuit's shots, or an error model's. SyndistillError for what the network cannot decode."""
    return NetworkDecoder(engine, place(source, engine.home))


def named_on_circuit(
    network: str | Path, source: stim.Circuit | stim.DetectorErrorModel, engine: Callable[[str | Path], Engine]
) -> NetworkDecoder | PackedEnsemble:
    """What `engine` makes one of, or several decoders between commas: "student-d5,pymatching-correlated"."""
    if not isinstance(network, str) or len(members_in(network)) == 1:
        return on_circuit(engine(network), source)
    from syndistill.decoders.ensemble import PackedEnsemble  # here, as it takes time to load

    return PackedEnsemble(network, source, lambda member: on_circuit(engine(member), source))


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
