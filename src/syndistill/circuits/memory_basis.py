"""Which basis a memory experiment is in, from the circuit alone."""

from __future__ import annotations

import stim

_Z = 3  # of a stim.PauliString: 0 I, 1 X, 2 Y, 3 Z


def memory_basis(circuit: stim.Circuit) -> str | None:
    """ "x" or "z"; None for several observables, and where the circuit does not say it.

    The Pauli that the observable's detecting region has on its data qubits during the rounds says it, whatever gates
    prepare and read them. Where that is X on some and Z on others (circuits of CZ and H with resting frames, ZXXZ) a
    fourth coordinate of the detectors does (0, 1, 2 mean X and 3, 4, 5 mean Z), if it is of that kind.
    """
    if circuit.num_observables != 1:
        return None
    return _from_region(circuit) or _from_kinds(circuit)


def _from_region(circuit: stim.Circuit) -> str | None:
    try:
        regions = circuit.without_noise().detecting_regions(targets=["L0"])
    except ValueError:  # gauges: the observable is not deterministic
        return None
    at = [pauli for _, pauli in sorted(next(iter(regions.values()), {}).items())]
    if not at:
        return None
    line = at[0].pauli_indices()  # the data qubits as they were reset
    inner = at[len(at) // 4 : len(at) - len(at) // 4]  # without preparation and readout
    paulis = {pauli[q] for pauli in inner for q in line if q < len(pauli)}
    return {frozenset({1}): "x", frozenset({_Z}): "z"}.get(frozenset(paulis))


def _from_kinds(circuit: stim.Circuit) -> str | None:
    coords = [c for c in circuit.get_detector_coordinates().values() if len(c) == 4]
    if len(coords) != circuit.num_detectors or any(c[3] not in range(6) for c in coords):
        return None
    start = min(c[2] for c in coords)
    first = {c[3] >= 3 for c in coords if c[2] == start}
    both_kinds = len({c[3] >= 3 for c in coords}) == 2
    several_times = len({c[2] for c in coords}) > 2
    if len(first) != 1 or (several_times and not both_kinds):
        return None
    return "z" if first == {True} else "x"
