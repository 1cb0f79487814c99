"""A memory experiment by its parameters: the one place that knows which noise models there are."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass, fields
from functools import lru_cache

import numpy as np
import stim

from syndistill.circuits.files import MAX_DETECTORS
from syndistill.circuits.layout import BASES, Layout
from syndistill.circuits.placement import Placement, place
from syndistill.circuits.si1000 import si1000_memory, si1000_places
from syndistill.circuits.training_noise import ROUNDS, SOME_RATE, Placed, TrainingNoise, training_noise
from syndistill.circuits.two_observable import two_observable_memory
from syndistill.circuits.uniform import uniform_memory, uniform_places
from syndistill.errors import SyndistillError

# noise name -> circuit builder (distance, rounds, basis, p). A new noise model is one more entry
# (one in every_end.EVERY_END for labels after every round, one in two_observable.NOISY_ROUNDS for basis both).
MEMORIES = {"si1000": si1000_memory, "uniform": uniform_memory}
PLACES = {"si1000": si1000_places, "uniform": uniform_places}
"""Slice and stabiliser of each detector of these memories, which training shots are labelled by."""


@dataclass(frozen=True)
class Experiment:
    """A rotated surface code memory: `basis` "x", "z", or "both" (two observables, noiseless ends)."""

    distance: int
    rounds: int
    basis: str
    noise: str
    p: float

    def __post_init__(self) -> None:
        Layout(self.distance)
        if self.rounds < 1:
            raise SyndistillError(f"rounds={self.rounds} is too few; an experiment has at least one round")
        if self.rounds * (self.distance**2 - 1) > MAX_DETECTORS:
            raise SyndistillError(
                f"such a distance and so many rounds make more than {MAX_DETECTORS:,} detectors (rounds * (d*d - 1)), "
                "which is as many as can be worked with; take fewer rounds or a smaller distance"
            )
        if self.basis not in BASES:
            raise SyndistillError(f"basis={self.basis} is unknown; pick one of {', '.join(BASES)}")
        if self.noise not in MEMORIES:
            raise SyndistillError(f"noise={self.noise} is unknown; pick one of {', '.join(MEMORIES)}")
        if not 0 <= self.p <= 0.1:
            raise SyndistillError(f"p={self.p} is outside [0, 0.1]; it is the two-qubit gate error probability")

    def circuit(self) -> stim.Circuit:
        """The noisy circuit with detectors and observables."""
        if self.basis == "both":
            return two_observable_memory(self.distance, self.rounds, self.noise, self.p)
        return MEMORIES[self.noise](self.distance, self.rounds, self.basis, self.p)

    @classmethod
    def parse(cls, text: str) -> Experiment:
        """From "d=3,rounds=3,basis=z,noise=si1000,p=0.004" (any order, all five keys)."""
        kinds = {f.name: {"int": int, "float": float, "str": str}[str(f.type)] for f in fields(cls)}
        names = {"d": "distance", "r": "rounds"}
        said = text if len(text) <= 100 else f"{text[:97]}..."
        found: dict[str, int | float | str] = {}
        for item in text.split(","):
            key, _, value = item.strip().partition("=")
            key = names.get(key, key)
            if key not in kinds:
                raise SyndistillError(
                    f"experiment key {key[:20]!r} in {said!r} is unknown; keys: d, rounds, basis, noise, p"
                )
            if key in found:
                raise SyndistillError(f"experiment {said!r} names {key} twice; name it once")
            try:
                found[key] = kinds[key](value.lower() if key == "basis" else value)
            except ValueError:
                raise SyndistillError(
                    f"experiment value {item[:30]!r} in {said!r} is no {kinds[key].__name__} that can be worked with"
                ) from None
        if missing := sorted(set(kinds) - set(found)):
            raise SyndistillError(f"experiment {said!r} lacks {', '.join(missing)}")
        return cls(**found)  # type: ignore[arg-type]

    def __str__(self) -> str:
        d = asdict(self)
        return ",".join(f"{'d' if k == 'distance' else k}={v}" for k, v in d.items())


def noise_of(
    noise: str, distance: int, bases: Collection[str], p_range: tuple[float, float], rounds: int
) -> TrainingNoise:
    """The signature of training shots of a named noise model: p in `p_range`, at most so many rounds."""
    models = {basis: [_placed(noise, distance, r, basis) for r in ROUNDS] for basis in sorted(bases)}
    return training_noise(models, noise, distance, SOME_RATE, p_range, rounds)


def _placed(noise: str, distance: int, rounds: int, basis: str) -> Placed:
    dem = Experiment(distance, rounds, basis, noise, SOME_RATE).circuit().detector_error_model()
    if basis == "both":  # every stabiliser in every slice, in the layout's order
        n = distance**2 - 1
        return dem, np.repeat(np.arange(rounds + 1), n), np.tile(np.arange(n), rounds + 1)
    return dem, *PLACES[noise](distance, rounds, basis)


def place_experiment(experiment: Experiment) -> Placement:
    """Its detectors where `simulate` has them."""
    return place(experiment.circuit(), _home(experiment.noise, experiment.distance, experiment.basis))


@lru_cache(maxsize=64)
def _home(noise: str, distance: int, basis: str) -> TrainingNoise:
    return noise_of(noise, distance, (basis,), (SOME_RATE, SOME_RATE), 1)
