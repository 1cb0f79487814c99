"""An engine on one circuit, as a decoder: Stim's packed bits in, probabilities of the observables out.

Axes: B shots, N detectors, O observables.
"""

from __future__ import annotations

import numpy as np
import stim
from numpy.typing import NDArray

from syndistill.circuits.placement import Placement, place
from syndistill.decoders.answers import Answers
from syndistill.decoders.contract import Decoder, warn_of_more_rounds, warn_of_other_noise
from syndistill.deploy.engines import Bits, Engine, packed_bits, require_engine
from syndistill.sampling.stored import StoredShots


class EngineDecoder(Decoder):
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


def on_circuit(engine: Engine, source: stim.Circuit | stim.DetectorErrorModel) -> EngineDecoder:
    """A decoder of a circuit's shots, or an error model's. SyndistillError for what the network cannot decode."""
    return EngineDecoder(engine, place(source, engine.home))
