"""A probability for a decoder that says flips alone, so that it can be a member of an ensemble.

How often it is wrong is learned from shots of its own error model, by how many detectors fired: a shot of few events is
decoded more surely than one of many.

Axes: B shots, O observables, F what the confidence goes by.
"""

from __future__ import annotations

import hashlib

import numpy as np
import stim
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

from syndistill.decoders.contract import Decoder, decisions
from syndistill.sampling.seeds import derived_seed
from syndistill.sampling.stored import StoredShots

SHOTS = 5_000
"""Beside them half an error and half a success are believed, so that a decoder that made no mistake is not certain; and
slopes are of order one (a Gaussian prior)."""


class ConfidentDecoder(Decoder):
    """`decoder` with its own confidence. The decisions stay the decoder's.

    Log odds of an observable's decision being right: a + b n + c n^2 + d f, never below 0, with n the number of
    detectors that fired over its root mean square and f whether the decision is "flipped".

    dem: the error model that it was made for; the fit takes `SHOTS` shots of it, always the same ones (`fitted_on`).
    """

    gives_probabilities = True

    def __init__(self, decoder: Decoder, dem: stim.DetectorErrorModel) -> None:
        self.decoder, self.name = decoder, decoder.name
        self.n_detectors, self.n_observables = decoder.n_detectors, decoder.n_observables
        self.content_id = hashlib.sha256(f"confident by {SHOTS} shots\n{decoder.content_id}".encode()).hexdigest()
        self.fitted_on = shots = StoredShots.sample(dem, SHOTS, derived_seed("confidence", 0))
        self._scale = max(float(np.sqrt(np.mean(_fired(shots) ** 2))), 1.0)
        self._flipped_there_BO = flipped_BO = decisions(decoder.decode(shots))
        wrong_BO = flipped_BO != shots.observables()
        said_OBF = self._said(shots, flipped_BO)
        self._terms_OF = np.stack([_fitted(*of) for of in zip(said_OBF, wrong_BO.T, strict=True)])

    def _said(self, shots: StoredShots, flipped_BO: NDArray[np.bool_]) -> NDArray[np.float64]:
        powers_BP = np.vander(_fired(shots) / self._scale, 3, increasing=True)
        return np.stack([np.column_stack([powers_BP, flipped_B]) for flipped_B in flipped_BO.T])

    def _probabilities(self, shots: StoredShots) -> NDArray[np.float64]:
        # An ensemble asks about the shots of the fit again; belief matching takes a minute for them.
        there = shots is self.fitted_on
        flipped_BO = self._flipped_there_BO if there else decisions(self.decoder.decode(shots))
        surely_BO = np.einsum("obf,of->bo", self._said(shots, flipped_BO), self._terms_OF)
        return np.asarray(expit(np.where(flipped_BO, 1.0, -1.0) * np.maximum(surely_BO, 0.0)))


def _fired(shots: StoredShots) -> NDArray[np.float64]:
    return np.bitwise_count(shots.detectors_packed).sum(1).astype(np.float64)


def _fitted(said_BF: NDArray[np.float64], wrong_B: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Terms of the log odds of being right."""
    sign_B = np.where(wrong_B, 1.0, -1.0)

    def loss(terms_F: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        right_B = said_BF @ terms_F
        ends = np.logaddexp(0.0, [terms_F[0], -terms_F[0]]).sum() / 2
        value = np.logaddexp(0.0, sign_B * right_B).sum() + ends + (terms_F[1:] ** 2).sum() / 2
        slope_F = said_BF.T @ (sign_B * expit(sign_B * right_B))
        slope_F[0] += expit(terms_F[0]) - 0.5
        slope_F[1:] += terms_F[1:]
        return float(value), slope_F

    return np.asarray(minimize(loss, np.zeros(said_BF.shape[1]), jac=True, method="BFGS").x)
