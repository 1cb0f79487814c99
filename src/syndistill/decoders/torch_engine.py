"""PyTorch as an engine: every family of network.

Axes: B shots or logical qubits, R rounds, S stabilisers, L lines, O outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import stim
import torch

from syndistill.circuits.placement import Placement
from syndistill.circuits.training_noise import noise_in
from syndistill.decoders.engines import NOT_BITS, Bits, Engine, Floats, Stream
from syndistill.decoders.network import NetworkDecoder, on_circuit
from syndistill.errors import SyndistillError
from syndistill.files.families import n_channels
from syndistill.files.network_file import trained_rounds
from syndistill.models.contract import DecoderNetwork, State
from syndistill.models.device import usable_device
from syndistill.models.networks import load_network, weights_hash
from syndistill.sampling.shots import shots_from_detectors

BATCH = {"cpu": 256}
"""Of a forward; elsewhere 1024. On a CPU a Teacher of d=5 takes 2.9 ms a shot, with 1024 5.7: it leaves the cache."""


class TorchEngine(Engine):
    """A network: by shipped name or path, or itself, with the metadata of its file and a name.

    device: as PyTorch names them.
    """

    def __init__(
        self,
        network: str | Path | DecoderNetwork,
        device: str = "cpu",
        metadata: Mapping[str, Any] | None = None,
        name: str | None = None,
    ) -> None:
        self.device = usable_device(device)
        if isinstance(network, DecoderNetwork):
            self.network, self.name = network.eval(), name or "network"
        else:
            self.name = str(network)
            self.network, metadata = load_network(network)
        self.network.requires_grad_(False).to(self.device)
        self.layout = self.network.layout
        self.output = self.network.config.output
        self.n_parameters = self.network.n_parameters()
        self.content_id = weights_hash(self.network)
        self.trained_rounds = trained_rounds(metadata or {})
        self.home = noise_in(metadata or {})

    def stream(self, basis: str, batch: int) -> Stream:
        n_channels(self.output, basis)
        return _TorchStream(self.network, basis, batch, self.device)

    def _on(self, placement: Placement) -> Callable[[Bits], Floats]:
        return partial(self._logits, placement)

    @torch.inference_mode()
    def _logits(self, placement: Placement, detectors_packed: Bits) -> Floats:
        parts = [torch.zeros(0, self.n_outputs(placement.basis))]
        size = BATCH.get(self.device.type, 1024)
        for start in range(0, len(detectors_packed), size):
            packed, n_detectors = detectors_packed[start : start + size], len(placement.slice_N)
            bits_BN = np.unpackbits(packed, axis=1, bitorder="little", count=n_detectors)
            shots = shots_from_detectors(bits_BN, placement).to(self.device)
            parts.append(self.network(shots).logits_BKLC[:, -1, 0].float().cpu())
        return torch.cat(parts).numpy()


def network_decoder(
    network: DecoderNetwork, source: stim.Circuit | stim.DetectorErrorModel, name: str, metadata: Mapping[str, Any]
) -> NetworkDecoder:
    """A network, with the metadata of its file, on a circuit or an error model alone."""
    return on_circuit(TorchEngine(network, metadata=metadata, name=name), source)


class _TorchStream(Stream):
    def __init__(self, network: DecoderNetwork, basis: str, batch: int, device: torch.device) -> None:
        super().__init__(network.layout, basis, batch)
        self._network, self._device = network, device
        self._state: State = network.init_state(batch, basis)

    def _bits(self, events: Bits) -> torch.Tensor:
        bits = torch.from_numpy(events.copy())
        if bits.numel() and int(bits.max()) > 1:
            raise SyndistillError(NOT_BITS)
        return bits.to(self._device)

    @torch.inference_mode()
    def _push(self, events_RBS: Bits) -> None:
        for events_BS in self._bits(events_RBS):
            self._state = self._network.step(self._state, events_BS)

    @torch.inference_mode()
    def _logits(self, last_BS: Bits) -> Floats:
        logits_BC: Any = self._network.readout(self._state, self._bits(last_BS))[:, 0]
        return logits_BC.float().cpu().numpy()

    @torch.inference_mode()
    def _restart(self) -> None:
        self._state = self._network.init_state(self.batch, self.basis)
