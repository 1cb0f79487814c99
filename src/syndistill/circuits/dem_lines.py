"""Which line of data qubits an observable is, told by a detector error model alone.

Legend: N detectors, S stabilisers, O observables.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import numpy as np
import stim

from syndistill.circuits.layout import Layout
from syndistill.circuits.placement import Placement, place_dem
from syndistill.errors import SyndistillError

Votes = dict[frozenset[int], dict[bool, float]]
"""By the stabilisers that an error leaves flipped for good: the probability that it flips the observable, or not."""


def place_dem_lines(dem: stim.DetectorErrorModel, basis: str | None = None) -> Placement:
    """As `place_dem`, with the observables' lines.

    An error on one data qubit flips for good the stabilisers around it, and the observable if the qubit is on its line.
    Errors that leave the same stabilisers flipped are voted on, by probability. Raises SyndistillError where no line
    explains an observable, or two do.
    """
    placement = place_dem(dem, basis or _basis_of_coordinates(dem))
    bases = ("x", "z") if placement.basis == "both" else (placement.basis,)
    if len(bases) != dem.num_observables:
        raise SyndistillError(
            f"{dem.num_observables} observables where a memory in basis {placement.basis} has {len(bases)}; "
            "keep those of the logical qubit alone"
        )
    votes = [_votes(dem, placement, o, basis) for o, basis in enumerate(bases)]
    return replace(
        placement, lines=tuple(_line(placement.layout, b, o, votes[o]) for o, b in enumerate(bases))
    )


def _basis_of_coordinates(dem: stim.DetectorErrorModel) -> str | None:
    """For models without stabiliser types: what the first slice is on the lattice of Stim's generator (pitch 2, from
    0), where a place's parity is its type. None where it is on another lattice or says more itself."""
    coords = dem.get_detector_coordinates()
    if not coords or any(len(c) != 3 for c in coords.values()):
        return None
    first = min(c[2] for c in coords.values())
    kinds = {(c[0] + c[1]) / 2 % 2 for c in coords.values() if c[2] == first}
    return {(1.0,): "x", (0.0,): "z"}.get(tuple(kinds))


def _votes(dem: stim.DetectorErrorModel, placement: Placement, observable: int, basis: str) -> Votes:
    defined_S = placement.layout.on_basis_S(basis)
    votes: Votes = defaultdict(lambda: {False: 0.0, True: 0.0})
    for instruction in dem.flattened():
        if instruction.type != "error":
            continue
        left: set[int] = set()
        flips = False
        for target in instruction.targets_copy():
            if target.is_relative_detector_id():
                stabiliser = int(placement.stabiliser_N[target.val])
                if defined_S[stabiliser]:
                    left ^= {stabiliser}
            elif target.is_logical_observable_id() and target.val == observable:
                flips = not flips
        votes[frozenset(left)][flips] += instruction.args_copy()[0]
    return votes


def _line(layout: Layout, basis: str, observable: int, votes: Votes) -> int:
    """The one line whose qubits' errors flip the observable, and only theirs."""
    on_basis = set(np.flatnonzero(layout.on_basis_S(basis)).tolist())
    around: list[set[int]] = [set() for _ in range(layout.distance**2)]
    for stabiliser, support in enumerate(layout.supports):
        for qubit in support if stabiliser in on_basis else ():
            around[qubit].add(stabiliser)
    seen = [(qubit, votes[frozenset(s)]) for qubit, s in enumerate(around) if frozenset(s) in votes]
    found = []
    for line in range(layout.n_lines):
        members = set(layout.line_data(basis, line))
        fits = all(vote[qubit in members] > vote[qubit not in members] for qubit, vote in seen)
        if fits and any(qubit in members for qubit, _ in seen):
            found.append(line)
    if len(found) != 1:
        raise SyndistillError(
            f"observable L{observable} is no {'row' if basis == 'x' else 'column'} of data qubits as far as the error "
            f"model of basis {basis} tells ({len(found)} fit); give the circuit, or an observable along one line"
        )
    return found[0]
