"""A reference decoder as a member of a Teacher: matching knows the noise of the shots, which a network only learned.

Axes: B shots, K ends, S stabilisers, L lines, N detectors in Stim's order, O observables.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection

import numpy as np
import stim
import torch

from syndistill.circuits.experiment import Experiment
from syndistill.circuits.layout import BASES
from syndistill.circuits.placement import Placement, place_experiment
from syndistill.decoders.contract import Decoder
from syndistill.decoders.ensemble import votes
from syndistill.decoders.registry import build_decoder
from syndistill.distill.signals.teacher import OUTPUTS, Answer, Teacher
from syndistill.errors import SyndistillError
from syndistill.sampling.shots import Shots, concatenate, detectors_of
from syndistill.sampling.stored import StoredShots, dem_of_circuit
from syndistill.statistics.calibration import log_odds
from syndistill.training.config import DataConfig, RoundsPhase
from syndistill.training.source import noise_texts, own_files, statistics_shots

FIT_SHOTS = 8_192
"""Of each basis and number of rounds, at the error rates of the data: what members weigh."""
FIT_SEED = 0  # of role "select"


class ReferenceTeacher(Teacher):
    """Answers about the shots of `data`, by a decoder of that name for each basis and end.

    It is made for the middle one of the data's error rates, or for a user's file as it is (for ends without a file, for
    what follows from the next longer one): shots do not say their rate, and a common factor of all errors hardly
    changes a matching. A decoder of flips alone says +1 or -1 (`votes`), and what that weighs is fitted by the ensemble
    on `fit_shots`. Raises SyndistillError for files of several patches, which shots do not say either, and where it
    cannot serve the noise.
    """

    offers = OUTPUTS
    output = "two_channel"

    def __init__(self, name: str, data: DataConfig) -> None:
        self.name, self.data = name, data
        own = own_files(data)
        if own is not None and len(own.patches) > 1:
            raise SyndistillError(f"{name} as a Teacher is made for one patch, these files are of several; name one's")
        if "both" in data.bases:
            raise SyndistillError(f"{name} as a Teacher answers for bases x and z; take those, or leave it out")
        self._made: dict[tuple[str, int], tuple[Decoder, stim.DetectorErrorModel, Placement]] = {}
        shortest = min(r for phase in data.curriculum.rounds for r in phase.rounds)
        decoder, _, placement = self._decoder(data.bases[0], shortest)
        self.layout = placement.layout
        self.votes = not decoder.gives_probabilities

    def key(self) -> str:
        c = self.data.curriculum
        said = [self.name, f"{c.p_min} to {c.p_max}, tilt {c.tilt}", str(FIT_SHOTS), *noise_texts(self.data)]
        return hashlib.sha256("\n".join(["a reference as Teacher, at every end", *said]).encode()).hexdigest()

    @torch.no_grad()
    def answer(self, shots: Shots, want: Collection[str] = ()) -> Answer:
        self.require(want, "this question")
        ends = [self._at_last_end(shots.cut_at([k])) for k in range(len(shots.ends))]
        return Answer(torch.stack(ends, 1)[..., None])

    def _at_last_end(self, shots: Shots) -> torch.Tensor:
        """Of every line, float32 (B, L): they differ from the observable by final values, which the shot shows."""
        decoder, dem, placement = self._decoder(shots.basis, shots.rounds)
        found_BO = decoder.decode(_stored(shots, dem, placement))
        logits_BO = votes(found_BO) if self.votes else log_odds(found_BO)
        held = int(placement.holds_O2[:, BASES.index(shots.basis)].argmax())
        turn_SL = placement.turn_OS[[held]].T.astype(np.int64) + self.layout.line_matrix(shots.basis)
        final_BS = (shots.events_BRS.sum(1) + shots.last_BKS[:, -1]).cpu().numpy().astype(np.int64)
        sign_BL = 1.0 - 2.0 * (final_BS @ turn_SL % 2)
        return torch.from_numpy(sign_BL * logits_BO[:, [held]]).float()

    def fit_shots(self, basis: str, rounds: int) -> Shots:
        """Simulated for fits, with the labels of every end, at the data's error rates."""
        phases = (RoundsPhase(from_shots=0, rounds=(rounds,)),)
        curriculum = self.data.curriculum.model_copy(update={"rounds": phases, "informative": None})
        like = {"bases": (basis,), "curriculum": curriculum, "labels": "sampled", "part_rounds": None}
        found = statistics_shots(self.data.model_copy(update=like | {"tell_frame": False}), FIT_SEED, FIT_SHOTS)
        return concatenate(found)

    def _decoder(self, basis: str, rounds: int) -> tuple[Decoder, stim.DetectorErrorModel, Placement]:
        if (basis, rounds) not in self._made:
            dem, placement = self._model(basis, rounds)
            self._made[basis, rounds] = build_decoder(self.name, dem), dem, placement
        return self._made[basis, rounds]

    def _model(self, basis: str, rounds: int) -> tuple[stim.DetectorErrorModel, Placement]:
        own = own_files(self.data)
        if own is None:
            c = self.data.curriculum
            experiment = Experiment(self.data.distance, rounds, basis, self.data.noise, (c.p_min + c.p_max) / 2)
            return dem_of_circuit(experiment.circuit()), place_experiment(experiment)
        if (0, basis, rounds) in own.dems:
            return own.dems[0, basis, rounds]
        model = own.memory(basis, rounds).model()
        return model.dem(decomposed=True), model.placement()


def _stored(shots: Shots, dem: stim.DetectorErrorModel, placement: Placement) -> StoredShots:
    """As the error model counts them; the observables are left unknown."""
    return StoredShots.from_bits(detectors_of(shots, placement), np.zeros((len(shots), dem.num_observables), bool), dem)

