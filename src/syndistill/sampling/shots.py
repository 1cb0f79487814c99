"""Shots as networks see them, from detection events or simulated with every line's label after every round.

Axes: B shots, R measured rounds, S stabilisers, K ends, L lines, O observables; M measurements of a round, Q data
qubits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import stim
import torch
from numpy.typing import NDArray

from syndistill.circuits.experiment import Experiment, every_end
from syndistill.circuits.layout import Layout, answered
from syndistill.circuits.placement import Placement
from syndistill.errors import SyndistillError

Change = Callable[[torch.Tensor], torch.Tensor]


class Part(NamedTuple):
    """Which rounds of a longer experiment a batch holds: those from `first_round` on, counted from 0. The batches of
    one lane follow each other, each the same shots some rounds later, until one begins at round 0 again.

    told: the network is told the logical frame before `first_round`. With `Shots.known_BLO` it is that one; with
    `posterior_BKLP` the posterior is that of somebody who was told it, as far as it was settled by then, up to a sign
    of each shot, since nobody's frame is the right one.
    """

    lane: int
    first_round: int
    told: bool = False


@dataclass(frozen=True, eq=False)
class Shots:
    """A batch of shots of one basis and one number of rounds, in canonical layout order.

    events_BRS: uint8, detection events of the measured rounds; 0 where undefined (off-basis in round 0).
    last_BKS: uint8, the slice computed from the data readout, had the experiment ended after `ends[k]`
        rounds; 0 where undefined (off-basis).
    labels_BKLO: uint8, whether each line's observable flipped, for the same ends; O is 1 for bases x and
        z, 2 (x line, z line) for "both". None when unknown.
    posterior_BKLP: float32, the probability of each joint pattern of a line's observables (P = 2^O, bit o =
        observable o), for the same ends, given the events (`sampling.exact_labels`) or more than them
        (`sampling.revealed_labels`); None unless asked for.
    ends: 1..R in simulation, (R,) for stored and recorded shots.
    frames_BKLO: uint8, the labels that a readout without errors would have given; None where nobody knows.
    known_BLO: uint8, of a part that is told: the frame that its network begins with, as `frames_BKLO` counts it; None
        where none is known.
    part: of a longer experiment (`sampling.parts`), R being the part's rounds and `ends` counted within it; None where
        the experiment is whole.
    """

    layout: Layout
    basis: str
    events_BRS: torch.Tensor
    last_BKS: torch.Tensor
    labels_BKLO: torch.Tensor | None
    ends: tuple[int, ...]
    posterior_BKLP: torch.Tensor | None = None
    part: Part | None = None
    frames_BKLO: torch.Tensor | None = None
    known_BLO: torch.Tensor | None = None

    def __post_init__(self) -> None:
        b, r, s = self.events_BRS.shape
        if s != self.layout.n_stabilisers or self.last_BKS.shape != (b, len(self.ends), s):
            raise SyndistillError(
                f"shots of shapes events {tuple(self.events_BRS.shape)}, last {tuple(self.last_BKS.shape)} do not "
                f"fit distance {self.layout.distance} with {len(self.ends)} ends; axes are (B, R, S) and (B, K, S)"
            )
        if not self.ends or self.ends[-1] > r:
            raise SyndistillError(f"ends {self.ends} do not fit {r} rounds")

    def __len__(self) -> int:
        return int(self.events_BRS.shape[0])

    @property
    def rounds(self) -> int:
        return int(self.events_BRS.shape[1])

    @property
    def first_round(self) -> int:
        """How many rounds of the experiment were before these."""
        return 0 if self.part is None else self.part.first_round

    def take(self, index: slice | torch.Tensor) -> Shots:
        """The chosen shots."""
        return self._each(lambda tensor: tensor[index], lambda tensor: tensor[index])

    def only_last_end(self) -> Shots:
        """The same shots without the alternative ends."""
        return self.at_ends([len(self.ends) - 1])

    def at_ends(self, kept: list[int]) -> Shots:
        """The same shots with the ends at these positions alone."""
        ends = tuple(self.ends[k] for k in kept)
        return self._each(lambda events_BRS: events_BRS, lambda tensor: tensor[:, kept], ends)

    def cut_at(self, kept: list[int]) -> Shots:
        """The experiment as it was after the last of these ends, with these alone."""
        shorter = self.at_ends(kept)
        return replace(shorter, events_BRS=self.events_BRS[:, : shorter.ends[-1]])

    def to(self, device: torch.device | str) -> Shots:
        return self._each(lambda tensor: tensor.to(device), lambda tensor: tensor.to(device))

    def _each(self, of_rounds: Change, of_ends: Change, ends: tuple[int, ...] | None = None) -> Shots:
        labels, posterior = self.labels_BKLO, self.posterior_BKLP
        return replace(
            self,
            events_BRS=of_rounds(self.events_BRS),
            last_BKS=of_ends(self.last_BKS),
            labels_BKLO=None if labels is None else of_ends(labels),
            posterior_BKLP=None if posterior is None else of_ends(posterior),
            frames_BKLO=None if self.frames_BKLO is None else of_ends(self.frames_BKLO),
            known_BLO=None if self.known_BLO is None else of_rounds(self.known_BLO),
            ends=self.ends if ends is None else ends,
        )


def detectors_of(shots: Shots, placement: Placement) -> NDArray[np.bool_]:
    """Those of the whole experiment, (B, N), as the placed circuit counts them."""
    slices_BTS = torch.cat([shots.events_BRS, shots.last_BKS[:, -1:]], 1).cpu().numpy().astype(bool)
    return slices_BTS[:, placement.slice_N, placement.stabiliser_N]


def concatenate(parts: list[Shots]) -> Shots:
    """Shots of equal basis, rounds and ends, one after the other."""
    return replace(
        parts[0],
        events_BRS=torch.cat([p.events_BRS for p in parts]),
        last_BKS=torch.cat([p.last_BKS for p in parts]),
        labels_BKLO=_joined([p.labels_BKLO for p in parts]),
        posterior_BKLP=_joined([p.posterior_BKLP for p in parts]),
        frames_BKLO=_joined([p.frames_BKLO for p in parts]),
        known_BLO=_joined([p.known_BLO for p in parts]),
    )


def ends_of_one(parts: list[Shots], events_BRS: torch.Tensor) -> Shots:
    """The ends of the same shots, each given with its own rounds, as one; `events_BRS` are of all rounds."""
    return replace(
        parts[0],
        events_BRS=events_BRS,
        last_BKS=torch.cat([p.last_BKS for p in parts], 1),
        labels_BKLO=_joined([p.labels_BKLO for p in parts], 1),
        posterior_BKLP=_joined([p.posterior_BKLP for p in parts], 1),
        ends=tuple(end for p in parts for end in p.ends),
    )


def _joined(parts: list[torch.Tensor | None], axis: int = 0) -> torch.Tensor | None:
    there = [part for part in parts if part is not None]
    return torch.cat(there, axis) if len(there) == len(parts) else None


def with_posterior(shots: Shots, posterior_BKP: torch.Tensor, lines: tuple[int, ...]) -> Shots:
    """The same shots with `posterior_BKLP` of every line, from that of the experiment's observables.

    posterior_BKP: float32, P(pattern of the observables of `lines`). A line's label differs from the experiment's by a
    stabiliser value, which the shot shows: no luck in it.
    """
    assert shots.labels_BKLO is not None
    labels_BKLO = shots.labels_BKLO
    reference_BK1O = torch.stack([labels_BKLO[:, :, line, o] for o, line in enumerate(lines)], -1)[:, :, None]
    weights_O = 1 << torch.arange(len(lines))
    turned_BKL = ((labels_BKLO ^ reference_BK1O).long() * weights_O).sum(-1)
    pattern_BKLP = turned_BKL[..., None] ^ torch.arange(posterior_BKP.shape[-1])
    wide_BKLP = posterior_BKP[:, :, None].expand(pattern_BKLP.shape)
    return replace(shots, posterior_BKLP=torch.gather(wide_BKLP, -1, pattern_BKLP))


def shots_from_detectors(
    detectors_BN: np.ndarray, placement: Placement, observables_BO: np.ndarray | None = None
) -> Shots:
    """Shots from detection events in Stim's order; the trap of a plain reshape is what `placement` is for.

    detectors_BN: bool or uint8 (B, N). observables_BO: (B, O) flips of the circuit's observables; the labels
    of all lines follow from the final stabiliser values; SyndistillError where no observable is a line of one basis.
    """
    n = len(placement.slice_N)
    check_bits(detectors_BN, n, "detection events")
    if observables_BO is not None:
        check_bits(observables_BO, placement.n_observables, "observable flips")
        if len(observables_BO) != len(detectors_BN):
            raise SyndistillError(f"{len(detectors_BN)} shots of events, {len(observables_BO)} of flips; give as many")
    b = len(detectors_BN)
    rounds, layout = placement.rounds, placement.layout
    slices_BTS = np.zeros((b, rounds + 1, layout.n_stabilisers), dtype=np.uint8)
    slices_BTS[:, placement.slice_N, placement.stabiliser_N] = detectors_BN
    labels = None
    if observables_BO is not None:
        labels = torch.from_numpy(_line_labels(slices_BTS, placement, observables_BO)[:, None])
    return Shots(
        layout,
        placement.basis,
        torch.from_numpy(slices_BTS[:, :-1]),
        torch.from_numpy(slices_BTS[:, -1:]),
        labels,
        (rounds,),
    )


def check_bits(bits: np.ndarray, n_bits: int, what: str) -> None:
    """SyndistillError for anything but bool, or uint8 of 0 and 1, of shape (B, n_bits)."""
    if not isinstance(bits, np.ndarray) or bits.dtype not in (np.bool_, np.uint8):
        kind = bits.dtype if isinstance(bits, np.ndarray) else type(bits).__name__
        raise SyndistillError(f"{what} are of type {kind}; give a numpy array of bool or uint8")
    if bits.ndim != 2 or bits.shape[1] != n_bits:
        raise SyndistillError(f"{what} are of shape {bits.shape}; the circuit's are (shots, {n_bits})")
    if bits.dtype == np.uint8 and bits.size and bits.max() > 1:
        raise SyndistillError(f"{what} hold {bits.max()}; each is 0 or 1 (bits that are packed must be unpacked first)")


def _line_labels(slices_BTS: np.ndarray, placement: Placement, observables_BO: np.ndarray) -> np.ndarray:
    """uint8 (B, L, O): every line's label from one line's and the final stabiliser values."""
    final_BS = np.bitwise_xor.reduce(slices_BTS, axis=1).astype(np.int64)  # uint8 would wrap above 255 stabilisers
    labels = []
    for b, basis in enumerate(("x", "z")):
        if placement.basis not in (basis, "both"):
            continue
        alone_O = (placement.holds_O2 == (np.arange(2) == b)).all(1)
        if not alone_O.any():
            raise SyndistillError(f"no observable is a line of basis {basis} times checks; add the logical qubit's own")
        o = int(alone_O.argmax())
        line_0_B1 = (observables_BO[:, [o]] + final_BS @ placement.turn_OS[[o]].T.astype(np.int64)) % 2
        labels.append((final_BS @ placement.layout.line_matrix(basis).astype(np.int64) + line_0_B1) % 2)
    return np.stack(labels, axis=-1).astype(np.uint8)


def simulate(experiment: Experiment, n_shots: int, seed: int) -> Shots:
    """Fresh shots whose ends are 1..rounds. Same arguments, Stim version and SIMD width: same shots."""
    return shots_from_flips(experiment, _flips(every_end(experiment), experiment.rounds, n_shots, seed))


def shots_from_flips(experiment: Experiment, flips_RMB: np.ndarray) -> Shots:
    """Shots from how the measurements M of each round of `every_end` differ from the noiseless ones."""
    layout = Layout(experiment.distance)
    measured_RSB, data_RMB = np.split(flips_RMB, [layout.n_stabilisers], axis=1)
    events_RSB = measured_RSB.copy()
    events_RSB[1:] ^= measured_RSB[:-1]
    # An off-basis first value is random in the lab; relative to Stim's reference it would leak noise.
    events_RSB[0, ~layout.on_basis_S(experiment.basis)] = 0
    last_RSB = np.zeros_like(measured_RSB)
    labels: list[np.ndarray] = []
    bases = answered(experiment.basis)
    data_RMB, true_RMB = np.split(data_RMB, [len(bases) * layout.distance**2], axis=1)
    frames_BKLO = None
    if true_RMB.shape[1]:
        frames_BKLO = _shots_first(_line_values(true_RMB, layout, experiment.basis))[..., None]
    for basis, data_RQB in zip(bases, np.split(data_RMB, len(bases), axis=1), strict=True):
        values_RSB = _stabiliser_values(data_RQB, layout) ^ measured_RSB
        last_RSB |= values_RSB * layout.on_basis_S(basis)[:, None]
        labels.append(_line_values(data_RQB, layout, basis))
    return Shots(
        layout,
        experiment.basis,
        _shots_first(events_RSB),
        _shots_first(last_RSB),
        torch.stack([_shots_first(labels_RLB) for labels_RLB in labels], dim=-1),
        tuple(range(1, experiment.rounds + 1)),
        frames_BKLO=frames_BKLO,
    )


def _flips(circuit: stim.Circuit, rounds: int, n_shots: int, seed: int) -> np.ndarray:
    """uint8 (R, records per round, B): how each measurement differs from the noiseless one."""
    simulator = stim.FlipSimulator(batch_size=n_shots, disable_stabilizer_randomization=True, seed=seed)
    simulator.do(circuit)
    flips = simulator.get_measurement_flips()
    return np.ascontiguousarray(flips).view(np.uint8).reshape(rounds, -1, n_shots)


def _stabiliser_values(data_RQB: np.ndarray, layout: Layout) -> np.ndarray:
    """Parity of the data qubits around each grid cell, uint8 (R, S, B)."""
    d = layout.distance
    grid = np.zeros((data_RQB.shape[0], d + 2, d + 2, data_RQB.shape[2]), dtype=np.uint8)
    grid[:, 1:-1, 1:-1] = data_RQB.reshape(-1, d, d, data_RQB.shape[2])
    corners = grid[:, :-1, :-1] ^ grid[:, 1:, :-1] ^ grid[:, :-1, 1:] ^ grid[:, 1:, 1:]
    return corners[:, layout.cells_S2[:, 0], layout.cells_S2[:, 1]]


def _line_values(data_RQB: np.ndarray, layout: Layout, basis: str) -> np.ndarray:
    """Parity of the data qubits of each line, uint8 (R, L, B)."""
    d = layout.distance
    grid = data_RQB.reshape(-1, d, d, data_RQB.shape[2])
    return np.bitwise_xor.reduce(grid, axis=2 if basis == "x" else 1)


def _shots_first(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(array, -1, 0)))
