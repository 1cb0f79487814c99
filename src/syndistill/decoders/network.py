"""A trained network as a decoder: detector events in Stim's order in, probabilities of the observables out.

Axes: B shots, N detectors, O observables, L lines, C logit channels.
"""

from __future__ import annotations

import numpy as np
import stim
import torch
from numpy.typing import NDArray

from syndistill.circuits.placement import Placement, place_circuit, place_dem
from syndistill.decoders.contract import Decoder, warn_of_more_rounds
from syndistill.decoders.registry import DecoderFactory, Lookup
from syndistill.errors import SyndistillError
from syndistill.files.network_file import network_path, trained_rounds
from syndistill.models.contract import DecoderNetwork
from syndistill.models.saving import weights_hash
from syndistill.models.zoo import load_any
from syndistill.sampling.shots import Shots, shots_from_detectors
from syndistill.sampling.stored import StoredShots

BATCH = 256  # of a forward; a Teacher of d=5 takes 2.9 ms a shot, with 1024 5.7: it leaves the cache


class NetworkDecoder(Decoder):
    """Teacher or Student on one circuit; geometry from the detectors' coordinates.

    The line that the circuit's observable is decides how line 0's answer is turned. Raises SyndistillError for a
    circuit of another distance, of a shape that is no surface code, or with observables that are no lines.
    """

    gives_probabilities = True

    def __init__(
        self, network: DecoderNetwork, placement: Placement, name: str, trained_rounds: int | None = None
    ) -> None:
        if placement.layout != network.layout:
            raise SyndistillError(
                f"{name} decodes distance {network.layout.distance}, the circuit has distance "
                f"{placement.layout.distance}; take a network of that distance"
            )
        if any(line is None for line in placement.lines):
            raise SyndistillError(
                f"{name} cannot see which line of data qubits the observable is; give the circuit, not only its DEM"
            )
        if placement.basis == "both" and len(placement.lines) != 2:
            raise SyndistillError(
                f"{name} answers for one X and one Z observable of a circuit in both bases, this one has "
                f"{len(placement.lines)}; give a circuit with two"
            )
        network.n_channels(placement.basis)
        warn_of_more_rounds(name, trained_rounds, placement.rounds)
        self.network = network.eval().requires_grad_(False)
        self.placement = placement
        self.name = name
        self.n_parameters = network.n_parameters()
        self.n_detectors = len(placement.slice_N)
        self.n_observables = len(placement.lines)
        self.content_id = weights_hash(network)

    @torch.inference_mode()
    def _probabilities(self, shots: StoredShots) -> NDArray[np.float64]:
        parts = []
        for start in range(0, shots.n_shots, BATCH):
            detectors_BN = shots.take(start, min(start + BATCH, shots.n_shots)).detectors()
            parts.append(self._of(shots_from_detectors(detectors_BN, self.placement)))
        return np.concatenate(parts)

    def _of(self, shots: Shots) -> NDArray[np.float64]:
        """Line 0 is asked, which every Student has learned; another line's flip differs from it by the parity of the
        final stabiliser values between the two, which the shot itself says."""
        logits_BC = self.network(shots).logits_BKLC[:, -1, 0].double()
        if logits_BC.shape[-1] == 4:
            classes = torch.softmax(logits_BC, -1)  # I, X, Z, Y; X flips the Z observable
            flips_BO = torch.stack([classes[:, 2] + classes[:, 3], classes[:, 1] + classes[:, 3]], -1).clamp(0, 1)
        else:
            flips_BO = torch.sigmoid(logits_BC)
        return torch.where(self._parity(shots), 1 - flips_BO, flips_BO).numpy()

    def _parity(self, shots: Shots) -> torch.Tensor:
        """bool (B, O): whether the asked line's flip is the opposite of line 0's."""
        final_BS = torch.cat([shots.events_BRS, shots.last_BKS], 1).sum(1) % 2
        basis = self.placement.basis
        bases = ("x", "z") if basis == "both" else (basis,) * len(self.placement.lines)
        columns = [
            self.placement.layout.line_matrix(b)[:, line]
            for b, line in zip(bases, self.placement.lines, strict=True)
        ]
        between_SO = torch.from_numpy(np.stack(columns, -1)).long()
        return (final_BS.long() @ between_SO) % 2 == 1


def network_decoder(
    network: DecoderNetwork,
    dem: stim.DetectorErrorModel,
    circuit: stim.Circuit | None,
    name: str,
    basis: str | None = None,
    trained_rounds: int | None = None,
) -> NetworkDecoder:
    """Place the network on a circuit (or, where the observables' lines need not be known, on a DEM).

    trained_rounds: as the network's file says it; more in the circuit are a warning (MoreRoundsThanTrained)."""
    placement = place_dem(dem, basis) if circuit is None else place_circuit(circuit, basis)
    return NetworkDecoder(network, placement, name, trained_rounds)


def network_lookup(basis: str | None = None) -> Lookup:
    """For the registry: shipped names and paths of saved networks."""

    def look_up(name: str) -> DecoderFactory | None:
        if network_path(name) is None:
            return None

        def factory(dem: stim.DetectorErrorModel, circuit: stim.Circuit | None) -> Decoder:
            network, metadata = load_any(name)
            return network_decoder(network, dem, circuit, name, basis, trained_rounds(metadata))

        return factory

    return look_up
