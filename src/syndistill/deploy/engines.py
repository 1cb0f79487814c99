"""What runs a network, one contract for all: compiled code, ONNX Runtime, PyTorch.

Axes: B shots or logical qubits, R rounds, S stabilisers, N detectors, O outputs (line 0: one for basis x or z, two for
both, four classes for joint4).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from syndistill.circuits.layout import Layout
from syndistill.circuits.placement import Placement
from syndistill.deploy.flat_weights import n_outputs
from syndistill.errors import SyndistillError

Bits = NDArray[np.uint8]
Floats = NDArray[np.float32]


class Stream(ABC):
    """The state of B logical qubits of one basis, in step with each other. Its size does not grow with the rounds."""

    def __init__(self, layout: Layout, basis: str, batch: int) -> None:
        if batch < 1:
            raise SyndistillError(f"a stream of {batch} logical qubits; take at least 1")
        self.basis, self.batch = basis, batch
        self.n_stabilisers = layout.n_stabilisers
        self.rounds_done = 0
        self.defined_S = layout.on_basis_S(basis)
        """Which stabilisers the first and the last slice define."""

    def push(self, events_RBS: Bits) -> None:
        """Takes in measured rounds; in the first of a memory experiment only on-basis stabilisers count.

        Raises SyndistillError, and takes in nothing, for another shape or type, or values that are neither 0 nor 1.
        """
        events_RBS = self._checked(events_RBS, 3)
        if self.rounds_done == 0 and self.basis != "both" and len(events_RBS):
            events_RBS = events_RBS.copy()
            events_RBS[0] *= self.defined_S
        self._push(events_RBS)
        self.rounds_done += len(events_RBS)

    def logits(self, last_BS: Bits) -> Floats:
        """logits_BO for line 0, given the slice computed from the data readout; the state stays as it is."""
        last_BS = self._checked(last_BS, 2)
        if self.rounds_done == 0:
            raise SyndistillError("no round was pushed yet; push at least one before asking")
        return self._logits(last_BS if self.basis == "both" else last_BS * self.defined_S)

    def restart(self) -> None:
        """Before the first round again."""
        self._restart()
        self.rounds_done = 0

    def _checked(self, events: Bits, axes: int) -> Bits:
        kind, shape = getattr(events, "dtype", None), getattr(events, "shape", ())
        if (kind != np.uint8 and kind != np.bool_) or len(shape) != axes or shape[-2:] != (
            self.batch,
            self.n_stabilisers,
        ):
            raise SyndistillError(
                f"events of type {kind} and shape {tuple(shape)}; give uint8 or bool of shape "
                f"{'(rounds, ' if axes == 3 else '('}{self.batch}, {self.n_stabilisers})"
            )
        return events if kind == np.uint8 else events.view(np.uint8)

    @abstractmethod
    def _push(self, events_RBS: Bits) -> None:
        """As `push`; shapes are checked, undefined entries are 0."""

    @abstractmethod
    def _logits(self, last_BS: Bits) -> Floats:
        """As `logits`."""

    @abstractmethod
    def _restart(self) -> None:
        """As `restart`."""


class Engine(ABC):
    """A network that can be run. `content_id` is the hash of its weights, with the precision where it is not float32.

    trained_rounds: the most rounds of its training shots, None where the file does not say.
    """

    name: str
    layout: Layout
    output: str
    n_parameters: int
    content_id: str
    trained_rounds: int | None

    def n_outputs(self, basis: str) -> int:
        """O; SyndistillError where it has no answer for shots of the basis."""
        return n_outputs(self.output, basis)

    @abstractmethod
    def stream(self, basis: str, batch: int) -> Stream:
        """Before the first round."""

    def on(self, placement: Placement) -> Callable[[Bits], Floats]:
        """From whole shots of a circuit, bits packed in Stim's order (B, ceil(N / 8)), to logits_BO."""

        def logits(detectors_packed: Bits) -> Floats:
            if not len(detectors_packed):
                return np.zeros((0, self.n_outputs(placement.basis)), np.float32)
            slices_TBS = slices_of(detectors_packed, placement)
            stream = self.stream(placement.basis, len(detectors_packed))
            stream.push(slices_TBS[:-1])
            return stream.logits(slices_TBS[-1])

        return logits


def slices_of(detectors_packed: Bits, placement: Placement) -> Bits:
    """Detection events in Stim's order, bits packed, as slices (R + 1, B, S): the rounds, then the data readout."""
    n = len(placement.slice_N)
    bits_BN = np.unpackbits(detectors_packed, axis=1, bitorder="little", count=n)
    slices = np.zeros((placement.rounds + 1, len(bits_BN), placement.layout.n_stabilisers), np.uint8)
    slices[placement.slice_N, :, placement.stabiliser_N] = bits_BN.T
    return slices


def trained_rounds(metadata: Any) -> int | None:
    """The most rounds that a network file's metadata says the shots of its last leg had; None where it says nothing.

    What a network saw in earlier legs alone it does not keep: student-d5 began at up to 25 rounds and ended at 5.
    """
    legs = metadata.get("legs") if isinstance(metadata, Mapping) else None
    if isinstance(legs, list) and legs:
        return trained_rounds(legs[-1])
    inner = list(metadata.values()) if isinstance(metadata, Mapping) else metadata
    if not isinstance(inner, list):
        return None
    found = [rounds for value in inner if (rounds := trained_rounds(value)) is not None]
    phases = metadata.get("curriculum", {}).get("rounds", []) if isinstance(metadata, Mapping) else []
    return max([*found, *(max(phase["rounds"]) for phase in phases)], default=None)
