"""The basis of a memory, from where its observable lives: the Paulis of its detecting region on the data qubits."""

from __future__ import annotations

import stim

_TICKS = 12
"""How many moments are looked at: more than one round has, and in every round it is the same."""
_CLEAR = 0.9


def basis_of_region(circuit: stim.Circuit) -> str | None:
    """"x" or "z" where nearly all Paulis of the first observable are that, None where the frames of the qubits change
    (CZ circuits, the ZXXZ code), so that the circuit itself does not say it. "both" is not found here.

    Errors of the ancillas' basis (MX, RX) play no part: what counts is what the observable is between the gates.
    """
    if circuit.num_observables == 0:
        return None
    target = stim.target_logical_observable_id(0)
    ticks = range(1, min(circuit.num_ticks, _TICKS) + 1)
    try:
        regions = circuit.detecting_regions(targets=[target], ticks=ticks).get(target, {})
    except ValueError:  # the observable anticommutes with a reset: not deterministic, which its errors will show
        return None
    counts = {"x": 0, "z": 0}
    for pauli in regions.values():
        counts["x"] += len(pauli.pauli_indices("X"))
        counts["z"] += len(pauli.pauli_indices("Z"))
    total = sum(counts.values())
    return next((basis for basis, count in counts.items() if total and count >= _CLEAR * total), None)
