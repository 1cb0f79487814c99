"""Matching with a confidence: the gap between the best correction that flips the observable and the best that does not.

Legend: B shots, N detectors.
"""

from __future__ import annotations

import numpy as np
import pymatching
import stim
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.special import expit

from syndistill.decoders.contract import require_graphlike
from syndistill.decoders.reference import ReferenceDecoder, package_errors
from syndistill.errors import SyndistillError
from syndistill.sampling.stored import StoredShots


class MatchingGapDecoder(ReferenceDecoder):
    """Two matchings a shot, of weight w0 without a flip and w1 with one: P(flip) = 1 / (1 + exp(w1 - w0)).

    The observable becomes one more detector, set to 0, then to 1; an error that flips it with one detector is then an
    edge between the two. Errors that flip it with two detectors have no such edge: SyndistillError for models that have
    them (an observable that does not run along a boundary), and for more than one observable. Decisions are those of
    plain matching; correlated matching has no such gap, its second pass was measured to decide worse when forced.
    """

    gives_probabilities = True

    def __init__(self, dem: stim.DetectorErrorModel) -> None:
        name = "matching-gap"
        if dem.num_observables != 1:
            raise SyndistillError(f"{name} is for one observable, the model has {dem.num_observables}")
        super().__init__(name, pymatching.__version__, "", dem)
        require_graphlike(self.model, name)
        changed = _observable_as_detector(self.model, name)
        with package_errors(f"{name} cannot take this error model"):
            self._matching = pymatching.Matching.from_detector_error_model(changed)
        self._closed_N = _closed_part(changed)

    def _unlikely_flips(self, shots: StoredShots) -> NDArray[np.float64]:
        bits_BN = np.zeros((shots.n_shots, self.n_detectors + 1), np.uint8)
        bits_BN[:, :-1] = shots.detectors()
        if self._closed_N is not None:  # events come in pairs there, so they say the flip
            bits_BN[:, -1] = bits_BN[:, :-1][:, self._closed_N].sum(axis=1) % 2
            self._matching.decode_batch(bits_BN)
            return bits_BN[:, -1:].astype(np.float64)
        weights = []
        for flip in (0, 1):
            bits_BN[:, -1] = flip
            _, found = self._matching.decode_batch(bits_BN, return_weights=True)
            weights.append(found)
        return expit(weights[0] - weights[1])[:, None]


def _observable_as_detector(dem: stim.DetectorErrorModel, name: str) -> stim.DetectorErrorModel:
    """The same errors with L0 as detector D(N)."""
    changed = stim.DetectorErrorModel()
    observable = stim.DemTarget.relative_detector_id(dem.num_detectors)
    for instruction in dem.flattened():
        if instruction.type != "error":
            continue
        targets = [observable if t.is_logical_observable_id() else t for t in instruction.targets_copy()]
        changed.append("error", instruction.args_copy(), targets)
    changed.append("detector", [], [observable])
    try:
        require_graphlike(changed, name)
    except SyndistillError as error:
        raise SyndistillError(
            f"{name} needs an observable along a boundary, where no error flips it with two detectors ({error})"
        ) from None
    return changed


def _closed_part(dem: stim.DetectorErrorModel) -> NDArray[np.bool_] | None:
    """The detectors connected with the last one (the observable), bool (N,); None where the boundary is too."""
    observable, boundary = dem.num_detectors - 1, dem.num_detectors
    edges = [(observable, observable)]
    for instruction in dem.flattened():
        if instruction.type == "error":
            edge: list[int] = []
            for target in [*instruction.targets_copy(), stim.target_separator()]:
                if not target.is_separator():
                    edge.append(target.val)
                    continue
                edges.append((edge[0], edge[1] if len(edge) == 2 else boundary))
                edge = []
    rows, columns = np.array(edges).T
    graph = coo_array((np.ones(len(edges)), (rows, columns)), (boundary + 1, boundary + 1))
    _, part_of = connected_components(graph, directed=False)
    if part_of[boundary] == part_of[observable]:
        return None
    return np.asarray(part_of[:observable] == part_of[observable])
