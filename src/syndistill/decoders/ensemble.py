"""Several decoders as one: the mean of their log odds, so that an ensemble is judged as it would teach.

Axes: B shots, O observables.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from syndistill.decoders.confidence import ConfidentDecoder
from syndistill.decoders.contract import Decoder
from syndistill.decoders.reference import ReferenceDecoder
from syndistill.errors import SyndistillError
from syndistill.sampling.stored import StoredShots
from syndistill.statistics.calibration import log_odds


class EnsembleDecoder(Decoder):
    """Of decoders that are made for the same circuit; of each observable by itself.

    A reference that says flips alone, as matching does, counts as much as it is sure by how often it is wrong on shots
    of its own error model (`confidence`). SyndistillError for another member of flips alone, and for members of
    different circuits.
    """

    gives_probabilities = True

    def __init__(self, members: Sequence[Decoder], name: str) -> None:
        self.members = tuple(
            ConfidentDecoder(one, one.dem) if isinstance(one, ReferenceDecoder) and not one.gives_probabilities else one
            for one in members
        )
        self.name = name
        if hard := [member.name for member in self.members if not member.gives_probabilities]:
            raise SyndistillError(f"{hard[0]} says flips, not probabilities; leave it out of the ensemble {name}")
        for one, other in pairwise(self.members):
            if (one.n_detectors, one.n_observables) != (other.n_detectors, other.n_observables):
                raise SyndistillError(f"{one.name} and {other.name} are made for different circuits; make both for one")
        self.n_detectors, self.n_observables = self.members[0].n_detectors, self.members[0].n_observables
        sizes = [member.n_parameters for member in self.members if member.n_parameters is not None]
        self.n_parameters = sum(sizes) if sizes else None
        ids = "\n".join(["mean of log odds", *(member.content_id for member in self.members)])
        self.content_id = hashlib.sha256(ids.encode()).hexdigest()

    def _probabilities(self, shots: StoredShots) -> NDArray[np.float64]:
        return np.asarray(expit(np.mean([log_odds(member.decode(shots)) for member in self.members], axis=0)))
