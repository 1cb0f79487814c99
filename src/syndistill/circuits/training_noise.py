"""The signature of the noise that a network was trained on: which error mechanisms there are, and how likely.

A network has learned the shapes of errors in one orientation, of one schedule of gates. The signature says which, so
that another circuit can be read the right way round, and so that a circuit far from it is told.

Axes: U shapes, K detectors of one (see `mechanisms`), S stabilisers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import stim
from numpy.typing import NDArray

from syndistill.circuits.layout import Layout
from syndistill.circuits.mechanisms import MOST_DETECTORS, PARTS, Shapes, mechanisms_of, shape_keys, shapes_of
from syndistill.errors import SyndistillError

SOME_RATE = 1e-3
LEAST = 1e-5
"""The probability that a network is taken to expect of an error that its training noise did not have."""

ROUNDS = (4, 1)  # four rounds have every part but "only", which one round has


@dataclass(frozen=True, eq=False)
class Pattern:
    """The shapes of one basis: their numbers, parts, and probabilities per unit of p (`rate_U`)."""

    keys_U: NDArray[np.int64]
    part_U: NDArray[np.int64]
    rate_U: NDArray[np.float64]

    @cached_property
    def known(self) -> NDArray[np.int64]:
        """The numbers of all shapes, in increasing order, in whatever part."""
        return np.unique(self.keys_U[self.keys_U >= 0])

    def part(self, name: str) -> Pattern:
        """What of it is in this part of time."""
        in_U = self.part_U == PARTS.index(name)
        return Pattern(self.keys_U[in_U], self.part_U[in_U], self.rate_U[in_U])

    def codes(self, n_stabilisers: int) -> NDArray[np.int64]:
        """What `mechanisms.shape_keys` made the numbers of, (U, K)."""
        base = 2 * n_stabilisers + 1
        return self.keys_U[:, None] // base ** np.arange(MOST_DETECTORS - 1, -1, -1) % base - 1

    def share(self, keys_U: NDArray[np.int64], weight_U: NDArray[np.float64]) -> float:
        """The part of the weight that is in shapes known here."""
        total = weight_U.sum()
        return float(weight_U[np.isin(keys_U, self.known)].sum() / total) if total > 0 else 0.0

    def likeness(self, keys_U: NDArray[np.int64], shapes: Shapes) -> float:
        """How much of two distributions over (part of time, shape) is common, 0 to 1: 1 where every mechanism is as
        likely, next to the others, as here."""
        here = _distribution(self.keys_U, self.part_U, self.rate_U, np.unique(shapes.part_U))
        there = _distribution(keys_U, shapes.part_U, shapes.mean_U(), np.unique(self.part_U))
        return sum(min(chance, here.get(which, 0.0)) for which, chance in there.items())

    def rate_of(self, keys_U: NDArray[np.int64], shapes: Shapes) -> float:
        """The p at which this noise has as much probability in the shapes common to both; 0 where there are none."""
        rate_U = self._rates(keys_U, shapes.part_U)
        expected = float(rate_U.sum())
        return float(shapes.mean_U()[rate_U > 0].sum()) / expected if expected else 0.0

    def divergence(self, keys_U: NDArray[np.int64], shapes: Shapes, p_M: NDArray[np.float64], p: float) -> float:
        """Nats a shot by which errors of these probabilities differ from this noise at `p`: the sum of
        q log(q / e) + (1 - q) log((1 - q) / (1 - e)) over mechanisms, with e the expected probability of each (at least
        LEAST) and q = 0 for those that are expected and not there."""
        # A shape may have two mechanisms of the same detectors, one of which flips the observable: here they are one.
        first_M = np.flatnonzero(np.append(True, np.diff(shapes.detectors_MK, axis=0).any(1)))
        p_M, shape_M = np.add.reduceat(p_M, first_M), shapes.shape_M[first_M]
        known_M = np.isin(shapes.part_U, self.part_U)[shape_M]  # of the ends nothing may be known
        expected_M = np.clip(p * self._rates(keys_U, shapes.part_U)[shape_M], LEAST, 0.5)[known_M]
        q_M = np.clip(p_M[known_M], 1e-12, 1 - 1e-12)
        there = (q_M * np.log(q_M / expected_M) + (1 - q_M) * np.log((1 - q_M) / (1 - expected_M))).sum()
        present = set(zip(shapes.part_U.tolist(), keys_U.tolist(), strict=True))
        base = 2 * shapes.n_places + 1
        missing = 0.0
        for part, key, rate in zip(self.part_U.tolist(), self.keys_U.tolist(), self.rate_U.tolist(), strict=True):
            if (part, key) not in present and part in shapes.part_U:
                spans = any(key // base**k % base > shapes.n_places for k in range(MOST_DETECTORS))
                times = max(shapes.rounds - 1 - spans, 0) if part == PARTS.index("bulk") else 1
                missing -= times * np.log1p(-min(p * rate, 0.5))
        return float(there + missing)

    def _rates(self, keys_U: NDArray[np.int64], part_U: NDArray[np.int64]) -> NDArray[np.float64]:
        here = dict(zip(zip(self.part_U.tolist(), self.keys_U.tolist(), strict=True), self.rate_U, strict=True))
        return np.array([here.get(which, 0.0) for which in zip(part_U.tolist(), keys_U.tolist(), strict=True)])


def _distribution(
    keys_U: NDArray[np.int64], part_U: NDArray[np.int64], value_U: NDArray[np.float64], parts: NDArray[np.int64]
) -> dict[tuple[int, int], float]:
    """Values by (part, key) of these parts alone, as fractions of their sum."""
    sums: dict[tuple[int, int], float] = {}
    for key, part, value in zip(keys_U.tolist(), part_U.tolist(), value_U.tolist(), strict=True):
        if part in parts:
            sums[part, key] = sums.get((part, key), 0.0) + value
    total = sum(sums.values())
    return {which: value / total for which, value in sums.items()} if total else {}


@dataclass(frozen=True, eq=False)
class TrainingNoise:
    """noise: the model's name, or those of files between commas. p_min, p_max: what its p was, or the factor of the
    files' errors; rounds: the most there were.

    patterns: by basis ("x", "z", "both"), the shapes in the canonical layout of this distance.
    """

    noise: str
    distance: int
    p_min: float
    p_max: float
    rounds: int
    patterns: Mapping[str, Pattern]

    @property
    def of_files(self) -> bool:
        """A rate is below 1/2; a range of factors holds 1."""
        return self.p_max > 0.5

    def __str__(self) -> str:
        if not self.of_files:
            return f"{self.noise}, p {self.p_min:g} to {self.p_max:g}, up to {self.rounds} rounds"
        first, *others = self.noise.split(", ")
        files = f"{first} and {len(others)} more" if others else first
        return f"{files}, their errors times {self.p_min:g} to {self.p_max:g}, up to {self.rounds} rounds"

    def strength(self, p: float) -> str:
        """What a strength is in words: a model's p, or a factor of the files' errors."""
        return f"about {p:.2g} times as likely" if self.of_files else f"p about {p:.2g}"

    def pattern(self, basis: str) -> Pattern | None:
        """Of a basis; None where the network never saw it. For "both" without one of its own the middle of x and z,
        which is the same: their ends are not those of an experiment of two observables."""
        if basis == "both" and basis not in self.patterns and {"x", "z"} <= set(self.patterns):
            x, z = (self.patterns[b].part("bulk") for b in ("x", "z"))
            new_U = ~np.isin(z.keys_U, x.keys_U)
            joined = [np.concatenate([getattr(x, f), getattr(z, f)[new_U]]) for f in ("keys_U", "part_U", "rate_U")]
            return Pattern(*joined)
        return self.patterns.get(basis)

    @cached_property
    def any_way(self) -> NDArray[np.int64]:
        """The numbers of all shapes in all ways round: what circuit noise does, nearly whatever the schedule."""
        layout = Layout(self.distance)
        n = layout.n_stabilisers
        found = []
        for pattern in self.patterns.values():
            codes_UK = pattern.codes(n)
            slice_UK, stabiliser_UK = np.divmod(codes_UK, n)
            for _ in range(4):
                stabiliser_UK = layout.turned_S[stabiliser_UK]
                turned_UK = np.where(codes_UK >= 0, slice_UK * n + stabiliser_UK, -1)
                found.append(shape_keys(np.sort(turned_UK, axis=1), n))
        return np.unique(np.concatenate(found))

    def to_json(self) -> dict[str, Any]:
        """For a network file's header: numbers as they are, in rows (part, key, rate)."""
        return {
            "noise": self.noise,
            "distance": self.distance,
            "p_min": self.p_min,
            "p_max": self.p_max,
            "rounds": self.rounds,
            "patterns": {
                basis: {
                    "part": p.part_U.tolist(),
                    "key": p.keys_U.tolist(),
                    "rate": [float(f"{rate:.5g}") for rate in p.rate_U],
                }
                for basis, p in self.patterns.items()
            },
        }

    @classmethod
    def from_json(cls, content: Any) -> TrainingNoise:
        """SyndistillError where this is not what `to_json` writes."""
        try:
            patterns = {
                basis: Pattern(
                    np.array(p["key"], np.int64), np.array(p["part"], np.int64), np.array(p["rate"], np.float64)
                )
                for basis, p in content["patterns"].items()
            }
            return cls(
                str(content["noise"]), int(content["distance"]), float(content["p_min"]), float(content["p_max"]),
                int(content["rounds"]), patterns,
            )  # fmt: skip
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise SyndistillError(
                f"the signature of the training noise is damaged ({error}); get a fresh copy of the network"
            ) from None


Placed = tuple[stim.DetectorErrorModel, NDArray[np.int64], NDArray[np.int64]]
"""An error model with its detectors' slices and stabilisers."""


def training_noise(
    models: Mapping[str, list[Placed]], noise: str, distance: int, p: float, p_range: tuple[float, float], rounds: int
) -> TrainingNoise:
    """From error models by basis; `p` is the rate they are for. Of a shape in several models the first counts."""
    n_stabilisers = Layout(distance).n_stabilisers
    patterns = {}
    for basis, members in models.items():
        parts: dict[tuple[int, int], float] = {}
        for dem, slice_N, stabiliser_N in members:
            shapes = shapes_of(mechanisms_of(dem), slice_N, stabiliser_N, n_stabilisers, int(slice_N.max()))
            keys_U = shapes.keys_U(np.arange(n_stabilisers), n_stabilisers)
            for key, part, mean in zip(keys_U.tolist(), shapes.part_U.tolist(), shapes.mean_U(), strict=True):
                parts.setdefault((part, key), float(mean) / p)
        rows = sorted(parts.items())
        patterns[basis] = Pattern(
            np.array([key for (_, key), _ in rows]), np.array([part for (part, _), _ in rows]),
            np.array([rate for _, rate in rows]),
        )  # fmt: skip
    return TrainingNoise(noise, distance, *p_range, rounds, patterns)


NOISE_KEY = "training_noise"
"""Of a network file's metadata."""


def noise_in(metadata: Any) -> TrainingNoise | None:
    """What a network file's metadata says of its training noise; None where it says nothing."""
    content = metadata.get(NOISE_KEY) if isinstance(metadata, Mapping) else None
    return None if content is None else TrainingNoise.from_json(content)
