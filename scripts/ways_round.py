"""Whether the way round that is taken is the one in which a network errs least.

    python scripts/ways_round.py --data ../shared/data

Each circuit is read in all four ways that put its stabilisers onto the layout's; errors of each on the same shots.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import stim

from syndistill.circuits.experiment import uniform_memory
from syndistill.circuits.files import load_circuit
from syndistill.circuits.mechanisms import mechanisms_of
from syndistill.circuits.observables import observables_of
from syndistill.circuits.placement import Placement, place
from syndistill.decoders.contract import decisions
from syndistill.decoders.network import NetworkDecoder
from syndistill.decoders.registry import build_decoder
from syndistill.decoders.runtime import load
from syndistill.sampling.recorded import Recording
from syndistill.sampling.stored import StoredShots, dem_of_circuit, evaluation_seed

STUDENTS = {3: "student-d3", 5: "student-d5"}


def h_and_m_only(circuit: stim.Circuit) -> stim.Circuit:
    """Prepared and read in X by H, R and M alone."""
    result = stim.Circuit()
    for i in circuit.flattened():
        if i.name == "RX":
            result.append("R", i.targets_copy())
            result.append("H", i.targets_copy())
        elif i.name == "MX":
            result.append("H", i.targets_copy())
            result.append("M", i.targets_copy(), i.gate_args_copy())
        else:
            result.append(i)
    return result


def subjects(data: Path, shots: int) -> Iterator[tuple[str, StoredShots, stim.Circuit]]:
    circuits = {
        "Stim's rotated_memory_x, uniform .004, d3 r3": uniform_memory(3, 3, "x", 0.004),
        "Stim's rotated_memory_z, uniform .004, d3 r3": uniform_memory(3, 3, "z", 0.004),
        "Stim's rotated_memory_x, uniform .004, d5 r5": uniform_memory(5, 5, "x", 0.004),
        "Stim's rotated_memory_z, uniform .004, d5 r5": uniform_memory(5, 5, "z", 0.004),
        "X memory of H and M alone, uniform .004, d5 r10": h_and_m_only(uniform_memory(5, 10, "x", 0.004)),
    }
    for path in sorted((data / "circuits").glob("*.stim")):
        circuits[path.stem] = load_circuit(path)
    for name, circuit in circuits.items():
        dem = dem_of_circuit(circuit)
        yield name, StoredShots.sample(circuit, shots, evaluation_seed(9, 0, shots), dem), circuit
    for folder in sorted((data / "sycamore_x_even").glob("*r05*")):
        recording = Recording.load(folder)
        yield f"recording {folder.name}", recording.stored_shots("pij"), recording.circuit


def every_way(circuit: stim.Circuit) -> Iterator[Placement]:
    """The one that is taken, then the others."""
    placement = place(circuit)
    mechanisms = mechanisms_of(circuit.detector_error_model(approximate_disjoint_errors=True))
    first_N = placement.stabiliser_N[placement.slice_N == 0]
    turned_S = np.arange(placement.layout.n_stabilisers)
    for _ in range(4):
        basis = "x" if placement.layout.is_x_S[turned_S[first_N]].all() else "z"
        stabiliser_N = turned_S[placement.stabiliser_N]
        holds_O2, turn_OS = observables_of(mechanisms, stabiliser_N, placement.layout, basis)
        yield replace(placement, basis=basis, stabiliser_N=stabiliser_N, holds_O2=holds_O2, turn_OS=turn_OS)
        turned_S = placement.layout.turned_back_S[turned_S]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--data", type=Path, default=Path("../shared/data"))
    arguments.add_argument("--shots", type=int, default=50_000)
    said = arguments.parse_args()
    print("| shots of | network | plain | correlated | errors, way taken | other ways |")
    print("|---|---|---|---|---|---|")
    for name, shots, circuit in subjects(said.data, said.shots):
        labels = shots.observables()
        ways = list(every_way(circuit))
        engine = load(STUDENTS[ways[0].layout.distance])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            decoders = [build_decoder(kind, shots.dem) for kind in ("pymatching", "pymatching-correlated")]
            decoders += [NetworkDecoder(engine, way) for way in ways]
        errors = [int((decisions(decoder.decode(shots)) != labels).any(1).sum()) for decoder in decoders]
        others = ", ".join(map(str, sorted(errors[3:])))
        print(f"| {name} | {engine.name} | {errors[0]} | {errors[1]} | {errors[2]} | {others} |", flush=True)


if __name__ == "__main__":
    main()
