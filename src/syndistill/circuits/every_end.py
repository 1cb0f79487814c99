"""One circuit that shows what an experiment would have read, had it ended after any of its rounds.

It runs in `stim.FlipSimulator(disable_stabilizer_randomization=True)`, where a measurement reads the Pauli
frame and leaves it alone, so that the data qubits can be read after every round without ending anything.
"""

from __future__ import annotations

from functools import lru_cache

import stim

from syndistill.circuits.experiment import Experiment
from syndistill.circuits.si1000 import si1000_every_end
from syndistill.circuits.two_observable import two_observable_every_end
from syndistill.circuits.uniform import uniform_every_end

EVERY_END = {"si1000": si1000_every_end, "uniform": uniform_every_end}


@lru_cache(maxsize=256)  # writing the circuit takes 20 ms, drawing 1000 shots of it 2: a curriculum has 51 rates
def every_end(experiment: Experiment) -> stim.Circuit:
    """A circuit whose records come in one block per round; shared by its callers, who leave it as it is.

    A block holds the ancilla of each stabiliser in canonical order (d*d - 1 records), then every data qubit
    row by row (d*d records); for basis "both" the data qubits twice, read in X, then in Z.
    """
    e = experiment
    if e.basis == "both":
        return two_observable_every_end(e.distance, e.rounds, e.noise, e.p)
    return EVERY_END[e.noise](e.distance, e.rounds, e.basis, e.p)
