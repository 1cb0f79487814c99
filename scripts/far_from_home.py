"""Where a network's warning of other noise should begin: its errors against matching's on circuits far and near.

    python scripts/far_from_home.py --shots 100000 > table.md

For each circuit: share of known shapes, nats for each error, and errors over those of matching, plain and
correlated, on the same shots. docs/circuits.md has the table.
"""

from __future__ import annotations

import argparse
import itertools
import warnings
from collections.abc import Iterator

import numpy as np
import stim

from syndistill.circuits.experiment import si1000_memory
from syndistill.circuits.placement import far_from, place
from syndistill.decoders.contract import decisions
from syndistill.decoders.registry import build_decoder
from syndistill.decoders.runtime import load, on_circuit
from syndistill.errors import SyndistillError
from syndistill.sampling.stored import StoredShots, dem_of_circuit, evaluation_seed

CORNERS = ((0, -1), (-1, -1), (0, 0), (-1, 0))
NOISES = {
    "gates": "after_clifford_depolarization",
    "idle data": "before_round_data_depolarization",
    "measurement": "before_measure_flip_probability",
    "reset": "after_reset_flip_probability",
}


def generated(basis: str, d: int, rounds: int, **p: float) -> stim.Circuit:
    return stim.Circuit.generated(f"surface_code:rotated_memory_{basis}", distance=d, rounds=rounds, **p)


def circuits(d: int, rounds: int) -> Iterator[tuple[str, stim.Circuit]]:
    for p in (0.001, 0.002, 0.004, 0.006, 0.008, 0.012):
        yield f"SI1000 p={p}", si1000_memory(d, rounds, "z", p)
    for basis, p in itertools.product("zx", (0.002, 0.004, 0.006, 0.01)):
        yield f"Stim, uniform p={p}, {basis}", generated(basis, d, rounds, **dict.fromkeys(NOISES.values(), p))
    for name, key in NOISES.items():
        yield f"Stim, {name} alone .02", generated("z", d, rounds, **{key: 0.02})
        strong = {**dict.fromkeys(NOISES.values(), 0.002), key: 0.02}
        yield f"Stim, .002, {name} ten times", generated("z", d, rounds, **strong)
    seen: set[float] = set()
    for x, z in itertools.product(itertools.permutations(CORNERS), repeat=2):
        circuit = si1000_memory(d, rounds, "z", 0.004, {True: x, False: z})
        try:
            share = place(circuit).fit
        except SyndistillError:
            continue  # such an order measures no stabilisers
        assert share is not None
        if round(share.share, 3) not in seen:
            seen.add(round(share.share, 3))
            yield f"SI1000 p=.004, schedule {x} {z}", circuit
    base = si1000_memory(d, rounds, "z", 0.004)
    for size in (0.03, 0.1, 0.3):
        changed, done = stim.Circuit(), False
        for i in base:
            changed.append(i)
            if i.name == "CZ" and not done and len(changed) > len(base) // 2:
                changed.append("X_ERROR", [i.targets_copy()[0].value], size)
                done = True
        yield f"SI1000 p=.004, one qubit fails with {size}", changed


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--shots", type=int, default=100_000)
    arguments.add_argument("--networks", nargs="+", default=["student-d3", "student-d5"])
    said = arguments.parse_args()
    print("| network | circuit | share | nats | p | errors | over plain | over correlated | warns |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name in said.networks:
        engine = load(name, "int8")
        assert engine.home is not None
        d = engine.layout.distance
        for label, circuit in circuits(d, d):
            shots = StoredShots.sample(circuit, said.shots, evaluation_seed(18, d, said.shots), dem_of_circuit(circuit))
            labels = shots.observables()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                decoder = on_circuit(engine, circuit)
            fit = decoder.placement.fit
            assert fit is not None
            matching = [build_decoder(kind, shots.dem) for kind in ("pymatching", "pymatching-correlated")]
            wrong = [int((decisions(one.decode(shots)) != labels).any(1).sum()) for one in (decoder, *matching)]
            ratios = [wrong[0] / max(1, other) for other in wrong[1:]]
            far = far_from(engine.home, decoder.placement)
            print(
                f"| {name} | {label} | {fit.share:.3f} | {fit.nats:.3f} | {fit.p:.4f} | {wrong[0]} | "
                + " | ".join(f"{r:.3f}" for r in ratios)
                + f" | {'yes' if far else ''} |",
                flush=True,
            )


if __name__ == "__main__":
    np.seterr(all="raise", under="ignore")
    main()
