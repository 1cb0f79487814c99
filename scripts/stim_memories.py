"""Stim's own generated memories, judged: the table of the README's first example and of docs/circuits.md.

    python scripts/stim_memories.py --rows results/stim-memories.jsonl --shots 200000

Rotated memories X and Z, d = 3 and 5, as many rounds, uniform noise; every decoder on the same shots.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from syndistill.circuits.experiment import uniform_memory
from syndistill.decoders.contract import Decoder
from syndistill.decoders.registry import build_decoder
from syndistill.decoders.runtime import load, on_circuit
from syndistill.evaluation.compare import compare
from syndistill.sampling.stored import dem_of_circuit

RATES = (0.002, 0.004, 0.006, 0.008, 0.01)
STUDENTS = {3: ("student-d3",), 5: ("student-d5", "student-d5-82k")}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--shots", type=int, default=200_000)
    arguments.add_argument("--rows", type=Path)
    said = arguments.parse_args()
    print("| d | memory | p | plain | correlated | Student | over plain | over correlated | McNemar |")
    print("|---|---|---|---|---|---|---|---|---|")
    for d, names in STUDENTS.items():
        engines = [load(name, "int8") for name in names]
        for basis in ("x", "z"):
            for p in RATES:
                circuit = uniform_memory(d, d, basis, p)
                dem = dem_of_circuit(circuit)
                matching = [build_decoder(name, dem) for name in ("pymatching", "pymatching-correlated")]
                students: list[Decoder] = [on_circuit(engine, circuit) for engine in engines]
                label = f"stim rotated_memory_{basis},d={d},rounds={d},p={p}"
                found = compare([*matching, *students], circuit, said.shots, 18, rows_file=said.rows, experiment=label)
                plain, correlated = found.rows[:2]
                for student in found.rows[2:]:
                    both = {correlated.decoder, student.decoder}
                    pair = next(pair for pair in found.pairs if {pair.a, pair.b} == both)
                    print(
                        f"| {d} | {basis.upper()} | {p} | {plain.errors} | {correlated.errors} | {student.decoder} "
                        f"{student.errors} | {student.errors / plain.errors:.3f} | "
                        f"{student.errors / correlated.errors:.3f} | {pair.p_value:.1g} |",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
