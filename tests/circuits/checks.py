"""What tests of placing have in common."""

from __future__ import annotations

import warnings

import numpy as np
import stim

from syndistill.circuits.placement import CoordinatesContradicted, Placement, place


def same(a: Placement, b: Placement) -> bool:
    return (
        (a.layout, a.rounds, a.basis) == (b.layout, b.rounds, b.basis)
        and np.array_equal(a.slice_N, b.slice_N)
        and np.array_equal(a.stabiliser_N, b.stabiliser_N)
        and np.array_equal(a.turn_OS, b.turn_OS)
        and np.array_equal(a.holds_O2, b.holds_O2)
    )


def quietly(source: stim.Circuit | stim.DetectorErrorModel) -> Placement:
    """Placed without a word against its coordinates."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", CoordinatesContradicted)
        return place(source)


def check_observables(circuit: stim.Circuit, placement: Placement) -> None:
    """By sampling errors: each observable is what the placement says, line 0 being that of the first one that is."""
    sampler = circuit.detector_error_model(approximate_disjoint_errors=True).compile_sampler(seed=3)
    events, flips, _ = sampler.sample(2000)
    slices = np.zeros((2000, placement.rounds + 1, placement.layout.n_stabilisers), int)
    slices[:, placement.slice_N, placement.stabiliser_N] = events
    untouched = (flips + slices.sum(1) @ placement.turn_OS.T) % 2
    for kind in ((True, False), (False, True)):
        members = [o for o in range(len(placement.turn_OS)) if tuple(placement.holds_O2[o].tolist()) == kind]
        assert all((untouched[:, o] == untouched[:, members[0]]).all() for o in members)
        assert all(untouched[:, o].any() for o in members)
    nothing = [o for o in range(len(placement.turn_OS)) if not placement.holds_O2[o].any()]
    assert not untouched[:, nothing].any()
