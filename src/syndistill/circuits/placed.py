"""What placing a circuit's detectors gives: where each of them is, and how much the circuit is like home.

Axes: N detectors in Stim order, S stabilisers, O observables.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from syndistill.circuits.lattice import ToGrid
from syndistill.circuits.layout import BASES, Layout
from syndistill.circuits.training_noise import TrainingNoise
from syndistill.errors import SyndistillError

Ways = tuple[tuple[str, float], ...]

NEAR_SHARE, NEAR_NATS = 0.995, 0.25
"""The least share of known shapes, and the most nats for each error, that are no cause for a warning. Of 62 circuits
the Students lose to plain matching on 7, all above .25 nats (docs/circuits.md, scripts/far_from_home.py)."""

@dataclass(frozen=True)
class Fit:
    """How much a circuit's errors are like those of the training noise.

    share: of all probability of errors, the part in mechanisms that the training noise has too, 0 to 1. p: the rate at
    which the training noise has as much of them. nats: by how much the errors differ from the training noise at that
    rate (Kullback-Leibler, for each expected error); a network cannot know of it, and decodes as if it were 0. ways:
    basis and share of every way round that coordinates leave open, the best first.
    """

    share: float
    p: float
    nats: float
    ways: tuple[tuple[str, float], ...]


def far_from(home: TrainingNoise, placement: Placement) -> str | None:
    """One line on how far a circuit is from a network's training noise; None where it is near."""
    fit = placement.fit
    if fit is None:
        return None
    faults = []
    if fit.share < NEAR_SHARE:
        faults.append("errors of other shapes (another schedule of gates?)")
    if fit.nats > NEAR_NATS:
        faults.append("errors of other strengths")
    # Of two rounds most errors are at an end, which has more of them: p comes out up to 1.2 times too high.
    if fit.p > home.p_max * (1.1 if placement.rounds > 2 else 1.3):
        faults.append("more of them than it has seen")
    return f"{described(home, placement)}: {', '.join(faults)}" if faults else None


def described(home: TrainingNoise, placement: Placement) -> str:
    """What a network was trained on, and what of it a circuit has."""
    fit = placement.fit
    said = "has no errors" if fit is None else f"shares {fit.share:.1%} of its errors' shapes, p about {fit.p:.2g}"
    return f"trained on {home}; this circuit {said}"


@dataclass(frozen=True, eq=False)
class Placement:
    """A circuit's detectors in the canonical layout.

    slice_N, stabiliser_N: int64 (N,). Slices 0..rounds-1 are the measured rounds, slice `rounds` is the one computed
    from the data readout. holds_O2: whether an observable holds line 0 of basis x, of basis z; turn_OS: uint8, the
    stabilisers whose final values tell it from them.
    """

    layout: Layout
    rounds: int
    basis: str
    slice_N: NDArray[np.int64]
    stabiliser_N: NDArray[np.int64]
    holds_O2: NDArray[np.bool_]
    turn_OS: NDArray[np.uint8]
    fit: Fit | None = None
    """None for a circuit without errors, and for what an exported folder keeps."""
    to_grid: ToGrid | None = None
    """From the circuit's coordinates to the layout's grid, None where they were not believed."""

    @classmethod
    def of_lines(cls, layout: Layout, basis: str, lines: Sequence[int] | None = None) -> Placement:
        """Of no circuit: no detectors, and as observables these lines of data qubits, by default line 0 (basis "both":
        one of x, one of z)."""
        if basis not in BASES:
            raise SyndistillError(f"basis {basis!r} is unknown; pick one of {', '.join(BASES)}")
        bases = ("x", "z") if basis == "both" else (basis,)
        lines = (0,) * len(bases) if lines is None else lines
        fits = isinstance(lines, Sequence | np.ndarray) and len(lines) == len(bases)
        if not fits or not all(isinstance(n, int | np.integer) and 0 <= n < layout.n_lines for n in lines):
            raise SyndistillError(
                f"lines {lines!r} for basis {basis}; give {len(bases)} of 0..{layout.n_lines - 1}, one each"
            )
        nothing_N = np.zeros(0, np.int64)
        turn_OS = np.array([layout.line_matrix(b)[:, line] for b, line in zip(bases, lines, strict=True)])
        holds_O2 = np.array([[b == "x", b == "z"] for b in bases])
        return cls(layout, 0, basis, nothing_N, nothing_N, holds_O2, turn_OS)

    @property
    def n_observables(self) -> int:
        return len(self.turn_OS)

    @property
    def lines(self) -> tuple[int | None, ...]:
        """The line that each observable is, None for one that is none (a line times checks is one)."""
        return tuple(self._line(o) for o in range(self.n_observables))

    def _line(self, observable: int) -> int | None:
        if self.holds_O2[observable].sum() != 1:
            return None
        basis = "x" if self.holds_O2[observable, 0] else "z"
        columns_SL = self.layout.line_matrix(basis)
        return next((n for n, c in enumerate(columns_SL.T) if (c == self.turn_OS[observable]).all()), None)
