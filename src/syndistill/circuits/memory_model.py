"""The errors of any memory experiment on the canonical layout, cut or lengthened to any number of rounds.

An error model knows one end. What its errors would have shown, had the experiment ended earlier, follows from it:

- An error that set off a detector of the first `n` slices had happened before round n was over. Ended there, it sets
  off the same ones, and the closing detector of a stabiliser where an odd number of its later ones are on it: the data
  readout shows at once what the ancilla would have shown later.
- An error that sets off closing detectors alone happened after the last ancilla was read. Every end has its like.
- In the first round off-basis ancillas have no detectors. After one round alone an error that only such an ancilla saw
  in its round is therefore one of the closing detectors too; the last round says which there are.

A longer experiment repeats the errors of one slice in the middle, where all slices are alike. Both hold where rounds
and ends are alike, which is what a test compares with Stim's own models of other lengths.

Axes: M errors, N detectors, S stabilisers, O observables, J joint errors, R rounds, K ends.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import stim
from numpy.typing import NDArray

from syndistill.circuits.experiment import si1000_places
from syndistill.circuits.layout import Layout
from syndistill.circuits.mechanisms import flips
from syndistill.circuits.placement import Placement
from syndistill.circuits.training_noise import Placed
from syndistill.errors import SyndistillError

Shown = tuple[frozenset[int], bool]
"""What an error shows: detectors as slice * S + stabiliser, and whether it flips the line."""

FIRST_ALIKE = 2
"""From this slice on the errors of slices are alike: the first round lacks off-basis detectors, which the errors that
begin in slice 1 feel too."""


class JointErrors(NamedTuple):
    """Independent errors and what each shows of every end: chance_J float64; events_JRS, last_JKS, label_JK uint8, the
    label being the line's; frame_JKL uint8, each line's label from a readout without errors of its own."""

    chance_J: NDArray[np.float64]
    events_JRS: NDArray[np.uint8]
    last_JKS: NDArray[np.uint8]
    label_JK: NDArray[np.uint8]
    frame_JKL: NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class MemoryModel:
    """Independent errors of a memory of basis x or z; equal to itself alone.

    chance: the probability of each, by what it shows. line: the one whose flips are told. The closing slice is slice
    `rounds`.
    """

    layout: Layout
    basis: str
    rounds: int
    chance: dict[Shown, float]
    line: int = 0
    _lengths: dict[int, MemoryModel] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, dem: stim.DetectorErrorModel, placement: Placement) -> MemoryModel:
        """From an error model (decomposed or not) whose detectors sit as `placement` says.

        SyndistillError for two observables at once, for one that is no line of its basis (times checks), and for errors
        that flip it and set off nothing: no decoder sees those.
        """
        if placement.basis == "both":
            raise SyndistillError("a circuit that tracks two observables has no single label; give one of basis x or z")
        if dem.num_errors == 0:
            raise SyndistillError("there are no errors to learn from; give a circuit with its noise")
        column = 0 if placement.basis == "x" else 1
        alone_O = (placement.holds_O2 == (np.arange(2) == column)).all(1)
        if not alone_O.any():
            raise SyndistillError(f"no observable is a line of basis {placement.basis} times checks; add one")
        observable = int(alone_O.argmax())
        n = placement.layout.n_stabilisers
        code_N = placement.slice_N * n + placement.stabiliser_N
        line = placement.lines[observable]
        # A line times checks is told as line 0, which the checks' last values tell it from.
        turns = set(np.flatnonzero(placement.turn_OS[observable]).tolist()) if line is None else set()
        found: list[tuple[Shown, float]] = []
        for p, detectors, observables in flips(dem):
            codes = frozenset(code_N[sorted(detectors)].tolist())
            turned = sum(code % n in turns for code in codes)
            flipped = bool((observables >> observable & 1) ^ (turned & 1))
            if flipped and not codes and p > 0:
                raise SyndistillError(
                    f"an error of probability {p:g} flips the observable and sets off no detector; no decoder sees it: "
                    "mend the circuit's detectors"
                )
            if codes:
                found.append(((codes, flipped), p))
        return cls(placement.layout, placement.basis, placement.rounds, _joined(found), line or 0)

    def scaled(self, factor: float) -> MemoryModel:
        """Every error `factor` times as often: 1 - 2p to that power, so that two errors joined are the joined one."""
        chance = {shown: (1 - (1 - 2 * min(p, 0.5)) ** factor) / 2 for shown, p in self.chance.items()}
        return replace(self, chance=chance, _lengths={})

    def of_rounds(self, rounds: int) -> MemoryModel:
        """The same memory with so many rounds; made once.

        SyndistillError for more rounds than the model has where its slices are not alike or too few to know.
        """
        if rounds == self.rounds:
            return self
        if rounds not in self._lengths:
            chance = self._ended(rounds) if rounds < self.rounds else self._repeated(rounds - self.rounds)
            self._lengths[rounds] = replace(self, rounds=rounds, chance=chance, _lengths={})
        return self._lengths[rounds]

    def _ended(self, rounds: int) -> dict[Shown, float]:
        n = self.layout.n_stabilisers
        found: list[tuple[Shown, float]] = []
        for (codes, flipped), p in self.chance.items():
            first = min(codes) // n
            if first < rounds:
                kept = frozenset(code for code in codes if code < rounds * n)
                found.append(((kept | self._closing(codes, rounds), flipped), p))
        found += [((shown, flipped), p) for (shown, flipped), p in self._fresh(rounds)]
        return _joined(found)

    def _fresh(self, rounds: int) -> list[tuple[Shown, float]]:
        """The errors that closing detectors alone see, of an end after so many rounds."""
        n, on_S = self.layout.n_stabilisers, self.layout.on_basis_S(self.basis)
        unseen_from = self.rounds - (rounds == 1 < self.rounds)
        found = []
        for (codes, flipped), p in self.chance.items():
            if min(codes) // n >= unseen_from and not any(code < self.rounds * n and on_S[code % n] for code in codes):
                closing = self._closing(codes, self.rounds)
                if closing:
                    found.append(((frozenset(code - (self.rounds - rounds) * n for code in closing), flipped), p))
        return found

    def _closing(self, codes: frozenset[int], rounds: int) -> frozenset[int]:
        """The closing detectors of an end after `rounds` rounds that an earlier error sets off."""
        n = self.layout.n_stabilisers
        on_S = self.layout.on_basis_S(self.basis)
        later = [code % n for code in codes if code >= rounds * n and on_S[code % n]]
        return frozenset(rounds * n + s for s in set(later) if later.count(s) % 2)

    def _repeated(self, more: int) -> dict[Shown, float]:
        n, last_alike = self.layout.n_stabilisers, self.rounds - 2
        slices = [self._slice(t) for t in range(FIRST_ALIKE, last_alike + 1)]
        if len(slices) < 2:
            raise SyndistillError(
                f"a model of {self.rounds} rounds does not say how a longer one goes on; give one of 5 rounds or more"
            )
        if any(not _alike(one, slices[0]) for one in slices[1:]):
            raise SyndistillError(
                f"the noise is not the same in every round, so {self.rounds} rounds do not say what "
                f"{self.rounds + more} have; give a model of as many rounds"
            )
        found: list[tuple[Shown, float]] = []
        for (codes, flipped), p in self.chance.items():
            first = min(codes) // n
            copies = range(more + 1) if first == FIRST_ALIKE else [0 if first < FIRST_ALIKE else more]
            found += [((frozenset(code + k * n for code in codes), flipped), p) for k in copies]
        return _joined(found)

    def _slice(self, t: int) -> dict[Shown, float]:
        """The errors that begin in slice t, as if it were slice 0."""
        n = self.layout.n_stabilisers
        return {
            (frozenset(code - t * n for code in codes), flipped): p
            for (codes, flipped), p in self.chance.items()
            if min(codes) // n == t
        }

    def placement(self) -> Placement:
        """Of `dem`: every place that has a detector, slice by slice; observable 0 is the line."""
        slice_N, stabiliser_N = si1000_places(self.layout.distance, self.rounds, self.basis)
        of_line = Placement.of_lines(self.layout, self.basis, [self.line])
        return replace(of_line, rounds=self.rounds, slice_N=slice_N, stabiliser_N=stabiliser_N)

    def dem(self, *, decomposed: bool = False) -> stim.DetectorErrorModel:
        """With the detectors of `placement` and the line as observable 0.

        decomposed: each error in two parts, as matching takes it: what checks of the memory's basis see, with the line,
        and what the others see. An error of a rotated code is seen by at most two of each.
        """
        placed, n = self.placement(), self.layout.n_stabilisers
        on_S = self.layout.on_basis_S(self.basis)
        number = {code: k for k, code in enumerate((placed.slice_N * n + placed.stabiliser_N).tolist())}
        lines = []
        for (codes, flipped), p in self.chance.items():
            of_basis = {code for code in codes if on_S[code % n]} if decomposed else codes
            parts = [part for part in (of_basis, codes - of_basis) if part]
            texts = [" ".join(f"D{number[code]}" for code in sorted(part)) for part in parts]
            texts[0] += " L0" * flipped
            lines.append(f"error({p!r}) {' ^ '.join(texts)}")
        return stim.DetectorErrorModel("\n".join([*lines, f"detector D{len(number) - 1}", "logical_observable L0"]))

    def placed(self) -> Placed:
        """As a network's signature of its training noise takes it."""
        placement = self.placement()
        return self.dem(), placement.slice_N, placement.stabiliser_N

    def joint_errors(self) -> JointErrors:
        """What each error shows of every end; one that closing detectors alone see is another at every end."""
        n, r = self.layout.n_stabilisers, self.rounds
        rows: list[tuple[float, Shown, dict[int, frozenset[int]]]] = []
        for (codes, flipped), p in self.chance.items():
            if (first := min(codes) // n) < r:
                closing = {end: self._closing(codes, end) for end in range(first + 1, r + 1)}
                rows.append((p, (frozenset(code for code in codes if code < r * n), flipped), closing))
        for end in range(1, r + 1):
            rows += [(p, (frozenset(), flipped), {end: codes}) for (codes, flipped), p in self._fresh(end)]
        events_JRS = np.zeros((len(rows), r, n), np.uint8)
        last_JKS = np.zeros((len(rows), r, n), np.uint8)
        label_JK = np.zeros((len(rows), r), np.uint8)
        for j, (_, (codes, flipped), closing) in enumerate(rows):
            for code in codes:
                events_JRS[j, code // n, code % n] = 1
            for end, shown in closing.items():
                label_JK[j, end - 1] = flipped
                for code in shown:
                    last_JKS[j, end - 1, code % n] = 1
        values_JKS = (np.bitwise_xor.accumulate(events_JRS, axis=1) ^ last_JKS).astype(np.float32)
        told_SL = self.layout.line_matrix(self.basis)
        turned_JKL = values_JKS @ (told_SL ^ told_SL[:, [self.line]]).astype(np.float32)
        frame_JKL = (turned_JKL.astype(np.uint8) % 2) ^ label_JK[..., None]
        frame_JKL[events_JRS.max((1, 2)) == 0] = 0  # what no round sees is an error of one readout
        return JointErrors(np.array([p for p, _, _ in rows]), events_JRS, last_JKS, label_JK, frame_JKL)


def _joined(errors: Iterable[tuple[Shown, float]]) -> dict[Shown, float]:
    """Errors that show the same as one: an odd number of them."""
    found: dict[Shown, float] = {}
    for shown, p in errors:
        if shown[0]:
            before = found.get(shown, 0.0)
            found[shown] = p + before - 2 * p * before
    return found


def _alike(one: dict[Shown, float], other: dict[Shown, float]) -> bool:
    """Whether two slices have the same errors, to a thousandth of each."""
    return one.keys() == other.keys() and all(abs(p - other[shown]) <= 1e-3 * other[shown] for shown, p in one.items())
