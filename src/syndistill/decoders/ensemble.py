"""Several decoders as one: the mean of their log odds, so that an ensemble is judged as it would teach; or a weighted
sum, where one of them says flips alone and so has a vote.

Axes: M members, B shots, O observables.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import stim
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

from syndistill.decoders.contract import Decoder, decisions
from syndistill.decoders.engines import packed_bits
from syndistill.decoders.reference import ReferenceDecoder
from syndistill.decoders.registry import build_decoder, decoder_names, decoders_in
from syndistill.errors import SyndistillError
from syndistill.sampling.seeds import derived_seed
from syndistill.sampling.stored import StoredShots, dem_of_circuit
from syndistill.statistics.calibration import log_odds

FIT_SHOTS = 10_000
"""Of a reference's own error model, always the same ones. With 5,000 weights are off by .4 % of NLL, with these .2."""


class EnsembleDecoder(Decoder):
    """Of decoders that are made for the same circuit; of each observable by itself.

    A reference that says flips alone, as matching does, has a vote: log odds of +1 or -1. Weights are then fitted, of
    the least NLL on `FIT_SHOTS` shots of its error model. (How many detectors fired says how sure matching is, but
    nothing that the network beside it does not know: at d=5 it made NLL worse.) Without such a member every weight is
    one over their number. SyndistillError for another member of flips alone, and for members of different circuits.
    """

    gives_probabilities = True

    def __init__(self, members: Sequence[Decoder], name: str) -> None:
        self.members, self.name = tuple(members), name
        voters = [member for member in self.members if not member.gives_probabilities]
        if unknown := [member.name for member in voters if not isinstance(member, ReferenceDecoder)]:
            raise SyndistillError(f"{unknown[0]} says flips, not probabilities; leave it out of the ensemble {name}")
        for one, other in pairwise(self.members):
            if (one.n_detectors, one.n_observables) != (other.n_detectors, other.n_observables):
                raise SyndistillError(f"{one.name} and {other.name} are made for different circuits; make both for one")
        self.n_detectors, self.n_observables = self.members[0].n_detectors, self.members[0].n_observables
        sizes = [member.n_parameters for member in self.members if member.n_parameters is not None]
        self.n_parameters = sum(sizes) if sizes else None
        how = "mean of log odds"
        self.weights_M: NDArray[np.float64] = np.full(len(self.members), 1 / len(self.members))
        if voters:
            assert isinstance(voters[0], ReferenceDecoder)
            how = f"log odds and votes, their weights fitted on {FIT_SHOTS} shots"
            shots = StoredShots.sample(voters[0].dem, FIT_SHOTS, derived_seed("ensemble", 0))
            self.weights_M = fitted_weights(self._log_odds(shots), shots.observables())
        ids = "\n".join([how, *(member.content_id for member in self.members)])
        self.content_id = hashlib.sha256(ids.encode()).hexdigest()

    def _log_odds(self, shots: StoredShots) -> NDArray[np.float64]:
        return np.stack([_said(member, member.decode(shots)) for member in self.members])

    def _probabilities(self, shots: StoredShots) -> NDArray[np.float64]:
        return np.asarray(expit(np.tensordot(self.weights_M, self._log_odds(shots), 1)))


class PackedEnsemble:
    """An ensemble by its name, "student-d5,pymatching-correlated", made for a circuit or an error model, that takes
    Stim's packed bits as a network's decoder does. network: makes the decoder of a member that is none of the
    references, for the same source."""

    def __init__(
        self, name: str, source: stim.Circuit | stim.DetectorErrorModel, network: Callable[[str], Decoder]
    ) -> None:
        self._dem = source if isinstance(source, stim.DetectorErrorModel) else dem_of_circuit(source)
        known = decoder_names()
        made = [build_decoder(one, self._dem) if one in known else network(one) for one in decoders_in(name)]
        self.decoder = EnsembleDecoder(made, name)

    def probabilities(self, detectors_packed: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Float64 (B, O), of bits packed in Stim's order, uint8 (B, ceil(N / 8)). SyndistillError for another shape."""
        packed = packed_bits(detectors_packed, self._dem.num_detectors, self.decoder.name)
        unknown = np.zeros((len(packed), (self._dem.num_observables + 7) // 8), np.uint8)
        return self.decoder.decode(StoredShots(None, self._dem, packed, unknown))


def _said(member: Decoder, found_BO: NDArray[np.float64]) -> NDArray[np.float64]:
    return log_odds(found_BO) if member.gives_probabilities else votes(found_BO)


def votes(flips_BO: NDArray[np.float64]) -> NDArray[np.float64]:
    """+1 where a decoder of flips alone says that there is one, else -1."""
    return np.where(decisions(flips_BO), 1.0, -1.0)


def fitted_weights(logits_MBO: NDArray[np.float64], flipped_BO: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The weights, none below 0, of the least NLL. Half a shot that contradicts each vote and half a one that agrees
    are believed beside these, so that a decoder that made no mistake is not certain."""
    sign_BO = np.where(flipped_BO, -1.0, 1.0)
    start_M = np.full(len(logits_MBO), 1 / len(logits_MBO))

    def loss(weights_M: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        wrong_BO = sign_BO * np.tensordot(weights_M, logits_MBO, 1)
        slope_M = np.tensordot(logits_MBO, sign_BO * expit(wrong_BO), 2) + expit(weights_M) - 0.5
        believed = np.logaddexp(weights_M / 2, -weights_M / 2).sum()
        return float(np.logaddexp(0.0, wrong_BO).sum() + believed) / sign_BO.size, slope_M / sign_BO.size

    bounds = [(0.0, None)] * len(start_M)
    return np.asarray(minimize(loss, start_M, jac=True, method="L-BFGS-B", bounds=bounds).x)
