"""What runs a network, one contract for all: compiled code, ONNX Runtime, PyTorch.

Axes: B shots or logical qubits, R rounds, S stabilisers, N detectors, O outputs (line 0: one for basis x or z, two for
both, four classes for joint4).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from syndistill.circuits.layout import Layout
from syndistill.circuits.placement import Placement
from syndistill.circuits.training_noise import TrainingNoise
from syndistill.decoders.answers import question
from syndistill.errors import SyndistillError
from syndistill.files.families import n_channels

Bits = NDArray[np.uint8]
Floats = NDArray[np.float32]
PRECISIONS = ("float32", "int8")
"""Of compiled networks."""
NOT_BITS = "an event is neither 0 nor 1; give detection events, not counts or probabilities"
MOST_STREAMED = 1 << 24
"""Logical qubits of a stream; each takes a kilobyte and more."""


class Stream(ABC):
    """The state of B logical qubits of one basis, in step with each other. Its size does not grow with the rounds."""

    def __init__(self, layout: Layout, basis: str, batch: int) -> None:
        if not isinstance(batch, int | np.integer) or not 1 <= batch <= MOST_STREAMED:
            raise SyndistillError(f"a stream of {batch!r} logical qubits; take a whole number of 1 to {MOST_STREAMED}")
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
        return finite(self._logits(last_BS if self.basis == "both" else last_BS * self.defined_S), "the network")

    def restart(self) -> None:
        """Before the first round again."""
        self._restart()
        self.rounds_done = 0

    def _checked(self, events: Bits, axes: int) -> Bits:
        is_bits = isinstance(events, np.ndarray) and events.dtype in (np.uint8, np.bool_)
        if not is_bits or events.ndim != axes or events.shape[-2:] != (self.batch, self.n_stabilisers):
            raise SyndistillError(
                f"events are {described(events)}; give a numpy array, uint8 or bool, of shape "
                f"{'(rounds, ' if axes == 3 else '('}{self.batch}, {self.n_stabilisers})"
            )
        return events if events.dtype == np.uint8 else events.view(np.uint8)

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

    trained_rounds: the most rounds of its training shots, home: their noise; None where the file does not say.
    """

    name: str
    layout: Layout
    output: str
    n_parameters: int
    content_id: str
    trained_rounds: int | None
    home: TrainingNoise | None

    def n_outputs(self, basis: str) -> int:
        """O; SyndistillError where it has no answer for shots of the basis."""
        return n_channels(self.output, basis)

    @abstractmethod
    def stream(self, basis: str, batch: int) -> Stream:
        """Before the first round."""

    def on(self, placement: Placement) -> Callable[[Bits], Floats]:
        """From whole shots of a circuit, bits packed in Stim's order (B, ceil(N / 8)), to finite logits_BO.

        SyndistillError for a placement that is not of this network's layout and bases; what is returned raises it for
        bits of another type or shape.
        """
        self.check(placement)
        if placement.rounds < 1:
            raise SyndistillError("the placement is of no circuit, so it has no shots; make one by `place`")
        asked = question(placement, placement.basis)  # without what a circuit has beyond a memory of the basis
        n_detectors, run = len(placement.slice_N), self._on(asked.placement)

        def logits(detectors_packed: Bits) -> Floats:
            return finite(run(asked.packed(packed_bits(detectors_packed, n_detectors, self.name))), self.name)

        return logits

    def check(self, placement: Placement) -> None:
        """SyndistillError for what is no placement on this network's layout and bases. Compiled code relies on it: it
        writes where the placement says."""
        if not isinstance(placement, Placement):
            raise SyndistillError(f"a {type(placement).__name__} is no placement; make one by circuits.placement.place")
        if placement.layout != self.layout:
            raise SyndistillError(
                f"{self.name} decodes distance {self.layout.distance}, the circuit has distance "
                f"{placement.layout.distance}; take a network of that distance"
            )
        self.n_outputs(placement.basis)
        slice_N, stabiliser_N, n_observables = placement.slice_N, placement.stabiliser_N, placement.n_observables
        fits = len(slice_N) == len(stabiliser_N) and placement.rounds >= (len(slice_N) > 0)
        fits = fits and placement.holds_O2.shape == (n_observables, 2)
        fits = fits and placement.turn_OS.shape == (n_observables, self.layout.n_stabilisers)
        for places, most in ((slice_N, placement.rounds), (stabiliser_N, self.layout.n_stabilisers - 1)):
            fits = fits and (not len(places) or bool(0 <= places.min() <= places.max() <= most))
        if not fits:
            raise SyndistillError("the placement has detectors outside its rounds or layout; make it by `place`")

    def _on(self, placement: Placement) -> Callable[[Bits], Floats]:
        """As `on`; placement and bits are checked."""

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


def require_engine(engine: Engine) -> None:
    if not isinstance(engine, Engine):
        raise SyndistillError(f"a {type(engine).__name__} is no engine; decoders.runtime.load makes one")


def finite(logits_BO: Floats, name: str) -> Floats:
    """The same; SyndistillError where one is no number, which would count as "no flip"."""
    if not np.isfinite(logits_BO).all():
        raise SyndistillError(f"{name} gives logits that are no numbers; get a fresh copy of the network")
    return logits_BO


def packed_bits(detectors: Bits, n_detectors: int, name: str) -> Bits:
    """The same; SyndistillError for anything but uint8 (B, ceil(N / 8))."""
    row_bytes = -(-n_detectors // 8)
    is_packed = isinstance(detectors, np.ndarray) and detectors.dtype == np.uint8 and detectors.ndim == 2
    if not is_packed or detectors.shape[1] != row_bytes:
        raise SyndistillError(
            f"detection events are {described(detectors)}; {name} takes uint8 of shape (shots, {row_bytes}), "
            f"little-endian bits of {n_detectors} detectors"
        )
    return detectors


def described(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype} of shape {value.shape}"
    return f"a {type(value).__name__}"
