"""What the decoders without weights have in common: the model as their packages take it, and their packages' errors.

Packages of matching and of search are made for errors that are less likely than not and that a detector sees. Models
may hold others (an error of probability .7 or 1, of an erasure; one of probability 0; one that cancels itself). Each is
handled exactly here, or left out where it changes no answer.

Legend: B shots, N detectors, O observables.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import stim
from numpy.typing import NDArray

from syndistill.circuits.mechanisms import error_texts
from syndistill.decoders.contract import Decoder, reference_id
from syndistill.errors import SyndistillError
from syndistill.sampling.stored import StoredShots

Component = tuple[frozenset[int], frozenset[int]]
"""Detectors and observables that a part of an error flips."""


@dataclass(frozen=True, eq=False)
class UnlikelyErrors:
    """A model whose errors all have 0 < p <= 1/2, and the flips that come on top of them.

    An error of p > 1/2 is a certain flip followed by one of 1 - p. detectors_N, observables_O: bool, all certain flips
    together. Of an ordinary model `dem` is that very model.
    """

    dem: stim.DetectorErrorModel
    detectors_N: NDArray[np.bool_]
    observables_O: NDArray[np.bool_]

    @classmethod
    def of(cls, dem: stim.DetectorErrorModel, *, keep_unseen: bool = False) -> UnlikelyErrors:
        """keep_unseen: also the errors that flip observables alone, which no decision depends on."""
        certain_N, certain_O = np.zeros(dem.num_detectors, bool), np.zeros(dem.num_observables, bool)
        if _ordinary(dem):
            return cls(dem, certain_N, certain_O)
        changed, kept = False, stim.DetectorErrorModel()
        for instruction in dem.flattened():
            if instruction.type != "error":
                kept.append(instruction)
                continue
            (p,) = instruction.args_copy()
            raw = _components(instruction)
            seen = _seen(raw)
            if p > 0.5:
                for detectors, observables in seen:
                    certain_N[list(detectors)] ^= True
                    certain_O[list(observables)] ^= True
            wanted = bool(seen) and 0 < p < 1 and (keep_unseen or bool(seen[0][0]))
            if wanted and p <= 0.5 and len(seen) == len(raw) and not _repeats(instruction):
                kept.append(instruction)
                continue
            changed = True
            if wanted:
                kept.append("error", [1 - p if p > 0.5 else p], _targets(seen))
        return cls(_as_large_as(dem, kept) if changed else dem, certain_N, certain_O)


def _ordinary(dem: stim.DetectorErrorModel) -> bool:
    """Whether all errors have 0 < p <= 1/2 and parts that detectors see and that name nothing twice."""
    known: dict[str, bool] = {}
    for _, p, texts in error_texts(dem):
        if not 0 < p <= 0.5:
            return False
        for text in texts:
            if text not in known:
                names = text.split()
                known[text] = "D" in text and len(set(names)) == len(names)
            if not known[text]:
                return False
    return True


def _several_ways(dem: stim.DetectorErrorModel) -> bool:
    """Whether parts of errors flip the same detectors and different observables."""
    way: dict[tuple[str, ...], tuple[str, ...]] = {}
    for text in {text for _, _, texts in error_texts(dem) for text in texts}:
        names = sorted(text.split())
        detectors = tuple(name for name in names if name[0] == "D")
        if way.setdefault(detectors, observables := tuple(names[len(detectors) :])) != observables:
            return True
    return False


def _components(instruction: stim.DemInstruction) -> list[Component]:
    """What each part of an error flips; what a part names twice cancels."""
    found: list[tuple[set[int], set[int]]] = [(set(), set())]
    for target in instruction.targets_copy():
        if target.is_separator():
            found.append((set(), set()))
        else:
            found[-1][target.is_logical_observable_id()].symmetric_difference_update({target.val})
    return [(frozenset(detectors), frozenset(observables)) for detectors, observables in found]


def _seen(components: list[Component]) -> list[Component]:
    """The parts that detectors see, the first with the observables of the others; none of an error without effect."""
    seen = [c for c in components if c[0]]
    for _, observables in (c for c in components if not c[0]):
        first = seen[0] if seen else (frozenset(), frozenset())
        seen[:1] = [(first[0], first[1] ^ observables)]
    return seen if any(c[0] or c[1] for c in seen) else []


def _repeats(instruction: stim.DemInstruction) -> bool:
    parts = " ".join(map(str, instruction.targets_copy())).split("^")
    return any(len(set(part.split())) != len(part.split()) for part in parts)


def _targets(components: list[Component]) -> list[stim.DemTarget]:
    found: list[stim.DemTarget] = []
    for detectors, observables in components:
        found += [stim.target_separator()] if found else []
        found += [stim.target_relative_detector_id(n) for n in sorted(detectors)]
        found += [stim.target_logical_observable_id(o) for o in sorted(observables)]
    return found


def _as_large_as(dem: stim.DetectorErrorModel, kept: stim.DetectorErrorModel) -> stim.DetectorErrorModel:
    """`kept` with as many detectors and observables as `dem`."""
    if kept.num_detectors < dem.num_detectors:
        kept.append("detector", [], [stim.target_relative_detector_id(dem.num_detectors - 1)])
    if kept.num_observables < dem.num_observables:
        kept.append("logical_observable", [], [stim.target_logical_observable_id(dem.num_observables - 1)])
    return kept


def likelier_first(dem: stim.DetectorErrorModel) -> stim.DetectorErrorModel:
    """Errors that flip the same detectors and other observables, the less likely ones last.

    PyMatching joins them into one edge with the observables of the first. A model without such comes back as it is; the
    others are of small distance, or have an error across the whole code.
    """
    if not _several_ways(dem):
        return dem
    total: dict[frozenset[int], dict[frozenset[int], float]] = defaultdict(lambda: defaultdict(float))
    errors = [i for i in dem.flattened() if i.type == "error"]
    for instruction in errors:
        for detectors, observables in _components(instruction):
            total[detectors][observables] += instruction.args_copy()[0]
    best = {detectors: max(ways, key=lambda o: ways[o]) for detectors, ways in total.items()}
    ordered = stim.DetectorErrorModel()
    for instruction in sorted(errors, key=lambda i: any(best[d] != o for d, o in _components(i))):
        ordered.append(instruction)
    for instruction in dem.flattened():
        if instruction.type != "error":
            ordered.append(instruction)
    return ordered


class ReferenceDecoder(Decoder):
    """A decoder that a package makes from an error model alone.

    `dem` is that model; `model` is what the package is given, whose answers are turned by the certain flips beside it.
    """

    def __init__(self, algorithm: str, version: str, settings: str, dem: stim.DetectorErrorModel) -> None:
        self.name, self.dem = algorithm, dem
        self.n_detectors = dem.num_detectors
        self.n_observables = dem.num_observables
        self.unlikely = UnlikelyErrors.of(dem, keep_unseen=self.gives_probabilities)
        self.model = self._prepared(self.unlikely.dem)
        if self.model is not dem:  # answers to such models were others before
            settings += " unlikely errors, certain flips apart, likelier first"
        self.content_id = reference_id(algorithm, version, settings, dem)

    def _prepared(self, dem: stim.DetectorErrorModel) -> stim.DetectorErrorModel:
        """What else the package needs; an ordinary model comes back as it is."""
        return dem

    def _probabilities(self, shots: StoredShots) -> NDArray[np.float64]:
        certain_N, certain_O = self.unlikely.detectors_N, self.unlikely.observables_O
        if certain_N.any():
            shots = StoredShots.from_bits(shots.detectors() ^ certain_N, shots.observables(), shots.dem)
        with package_errors(f"{self.name} cannot decode these shots"):
            found_BO = self._unlikely_flips(shots)
        return np.where(certain_O, 1.0 - found_BO, found_BO)

    @abstractmethod
    def _unlikely_flips(self, shots: StoredShots) -> NDArray[np.float64]:
        """`decode` for shots of `model`."""


@contextmanager
def package_errors(what: str) -> Iterator[None]:
    """What a decoder's package raises about a model or about shots, as one line."""
    try:
        yield
    except (ArithmeticError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        said = str(error).strip().partition("\n")[0] or type(error).__name__
        raise SyndistillError(
            f"{what} ({type(error).__name__}: {said}); give shots and the error model that belongs to them, or leave "
            "this decoder out"
        ) from error
