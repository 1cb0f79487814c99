"""A trained network as a decoder: detector events in Stim's order in, probabilities of the observables out.

Axes: B shots, N detectors, O observables, C logit channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import stim
import torch
from numpy.typing import NDArray

from syndistill.circuits.placement import Placement, place
from syndistill.circuits.training_noise import TrainingNoise, noise_in
from syndistill.decoders.answers import Answers, Question
from syndistill.decoders.contract import Decoder, warn_of_more_rounds, warn_of_other_noise
from syndistill.decoders.registry import DecoderFactory
from syndistill.errors import SyndistillError
from syndistill.files.network_file import network_path, trained_rounds
from syndistill.models.contract import DecoderNetwork
from syndistill.models.networks import load_network, weights_hash
from syndistill.sampling.shots import shots_from_detectors
from syndistill.sampling.stored import StoredShots

BATCH = 256  # of a forward; a Teacher of d=5 takes 2.9 ms a shot, with 1024 5.7: it leaves the cache


class NetworkDecoder(Decoder):
    """Teacher or Student on one circuit, placed by `home`, the noise that it was trained on.

    Raises SyndistillError for a circuit of another distance, and of bases that the network has no answer for. Warns of
    more rounds, and of other noise, than it was trained on.
    """

    gives_probabilities = True

    def __init__(
        self,
        network: DecoderNetwork,
        placement: Placement,
        name: str,
        *,
        home: TrainingNoise | None = None,
        trained_rounds: int | None = None,
    ) -> None:
        if placement.layout != network.layout:
            raise SyndistillError(
                f"{name} decodes distance {network.layout.distance}, the circuit has distance "
                f"{placement.layout.distance}; take a network of that distance"
            )
        self._answers = Answers(placement, network.config.output, home)
        for question in self._answers.questions:
            network.n_channels(question.placement.basis)
        warn_of_more_rounds(name, trained_rounds, placement.rounds)
        warn_of_other_noise(name, home, placement)
        self.network = network.eval().requires_grad_(False)
        self.placement = placement
        self.name = name
        self.n_parameters = network.n_parameters()
        self.n_detectors = len(placement.slice_N)
        self.n_observables = placement.n_observables
        self.content_id = weights_hash(network)

    def _probabilities(self, shots: StoredShots) -> NDArray[np.float64]:
        parts = []
        for start in range(0, shots.n_shots, BATCH):
            packed = shots.take(start, min(start + BATCH, shots.n_shots)).detectors_packed
            logits = [self._logits(question, question.packed(packed)) for question in self._answers.questions]
            parts.append(self._answers.flips(logits, packed))
        return np.concatenate(parts)

    @torch.inference_mode()
    def _logits(self, question: Question, packed: NDArray[np.uint8]) -> NDArray[np.float64]:
        """(B, C) of line 0, which every Student has learned."""
        placement = question.placement
        detectors_BN = np.unpackbits(packed, axis=1, bitorder="little", count=len(placement.slice_N))
        logits_BC = self.network(shots_from_detectors(detectors_BN, placement)).logits_BKLC[:, -1, 0]
        return np.asarray(logits_BC.double().numpy())


def network_lookup(name: str) -> DecoderFactory | None:
    """For the registry: shipped names and paths of saved networks, None for what is neither."""
    if network_path(name) is None:
        return None

    def factory(dem: stim.DetectorErrorModel, circuit: stim.Circuit | None) -> Decoder:
        network, metadata = load_network(name)
        return network_decoder(network, dem if circuit is None else circuit, name, metadata)

    return factory


def network_decoder(
    network: DecoderNetwork, source: stim.Circuit | stim.DetectorErrorModel, name: str, metadata: Mapping[str, Any]
) -> NetworkDecoder:
    """A network, with the metadata of its file, on a circuit or an error model alone."""
    home = noise_in(metadata)
    return NetworkDecoder(
        network, place(source, home), name, home=home, trained_rounds=trained_rounds(metadata)
    )
