"""PyTorch as an engine: every family of network.

Axes: B logical qubits, R rounds, S stabilisers, L lines, O outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from syndistill.circuits.placement import Placement
from syndistill.circuits.training_noise import noise_in
from syndistill.deploy.engines import Bits, Engine, Floats, Stream, slices_of
from syndistill.errors import SyndistillError
from syndistill.files.families import n_channels
from syndistill.files.network_file import trained_rounds
from syndistill.models.contract import DecoderNetwork, State
from syndistill.models.device import usable_device
from syndistill.models.networks import load_network, weights_hash
from syndistill.sampling.shots import Shots

BATCH = 1024
"""Of a forward; larger ones leave the cache."""


class TorchEngine(Engine):
    """A network by shipped name or path; `device` as PyTorch names them."""

    def __init__(self, name_or_path: str, device: str = "cpu") -> None:
        self.device = usable_device(device)
        self.network, metadata = load_network(name_or_path)
        self.network.requires_grad_(False).to(self.device)
        self.name = name_or_path
        self.layout = self.network.layout
        self.output = self.network.config.output
        self.n_parameters = self.network.n_parameters()
        self.content_id = weights_hash(self.network)
        self.trained_rounds = trained_rounds(metadata)
        self.home = noise_in(metadata)

    def stream(self, basis: str, batch: int) -> Stream:
        n_channels(self.output, basis)
        return _TorchStream(self.network, basis, batch, self.device)

    def _on(self, placement: Placement) -> Callable[[Bits], Floats]:
        return partial(self._logits, placement)

    @torch.inference_mode()
    def _logits(self, placement: Placement, detectors_packed: Bits) -> Floats:
        parts = [torch.zeros(0, self.n_outputs(placement.basis))]
        for start in range(0, len(detectors_packed), BATCH):
            slices = torch.from_numpy(slices_of(detectors_packed[start : start + BATCH], placement)).to(self.device)
            shots = Shots(
                self.layout, placement.basis, slices[:-1].transpose(0, 1), slices[-1:].transpose(0, 1), None,
                (placement.rounds,),
            )  # fmt: skip
            parts.append(self.network(shots).logits_BKLC[:, -1, 0].float().cpu())
        return torch.cat(parts).numpy()


class _TorchStream(Stream):
    def __init__(self, network: DecoderNetwork, basis: str, batch: int, device: torch.device) -> None:
        super().__init__(network.layout, basis, batch)
        self._network, self._device = network, device
        self._state: State = network.init_state(batch, basis)

    def _bits(self, events: Bits) -> torch.Tensor:
        bits = torch.from_numpy(events.copy())
        if bits.numel() and int(bits.max()) > 1:
            raise SyndistillError("an event is neither 0 nor 1; give detection events, not counts or probabilities")
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
