"""syndistill networks as sinter decoders and samplers.

    sinter collect --custom_decoders_module_function syndistill.sinter_plugin:decoders --decoders syndistill-d3 ...

Everything here is picklable and light; a worker loads a network when it gets its first task.

Legend: B shots, N detectors, O observables; packed: little-endian bits, 8 to a byte.
"""

from __future__ import annotations

import collections
import multiprocessing
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import sinter
import stim
from numpy.typing import NDArray

from syndistill.decoders.contract import decisions
from syndistill.decoders.engine_for import engine_for
from syndistill.decoders.engines import PRECISIONS, Engine, packed_bits
from syndistill.decoders.network import NetworkDecoder, named_on_circuit
from syndistill.decoders.registry import decoder_names, decoders_in
from syndistill.errors import SyndistillError
from syndistill.files.network_file import network_path, read_header, shipped_names

if TYPE_CHECKING:
    from syndistill.decoders.ensemble import PackedEnsemble

Packed = NDArray[np.uint8]
VARIABLE = "SYNDISTILL_DECODERS"
SAMPLER_BATCH = 16_384


def decoders() -> dict[str, sinter.Decoder | sinter.Sampler]:
    """By name, as sinter's --custom_decoders_module_function wants them.

    Every shipped network as "syndistill-NAME", with "-batched" as a sampler; "syndistill-d3" is the Student of distance
    3. The environment variable SYNDISTILL_DECODERS adds networks by path: "mine=runs/a/student.safetensors other=...",
    and ensembles: "both=student-d5,pymatching-correlated".
    """
    paths = {f"syndistill-{name}": name for name in shipped_names()}
    paths |= {name.replace("student-", ""): path for name, path in paths.items() if "-student-" in name}
    paths |= _named_by_user(os.environ.get(VARIABLE, ""))
    found: dict[str, sinter.Decoder | sinter.Sampler] = {}
    for name, path in paths.items():
        found[name] = SinterDecoder(path)
        found[f"{name}-batched"] = SinterSampler(path)
    return found


def _named_by_user(text: str) -> dict[str, str]:
    found = {}
    for item in text.split():
        name, equals, path = item.partition("=")
        if not name or not equals or not path:
            raise SyndistillError(f"{VARIABLE} has {item!r}; write NAME=PATH, several of them with spaces between")
        members = decoders_in(path)
        for member in members:  # a wrong path is said here and not by every worker
            if len(members) == 1 or member not in decoder_names():
                read_header(member)
        found[name] = path
    return found


class SinterDecoder(sinter.Decoder):
    """A network by shipped name or path; or several decoders between commas, an ensemble (`decoders.ensemble`).

    discard_below: discard shots of which an observable's decision is less certain than this probability (0.5 to 1);
    None discards nothing. precision: "int8" for the quantised kernel (flat and local GRUs).
    """

    def __init__(
        self,
        network: str,
        *,
        discard_below: float | None = None,
        precision: str = "float32",
    ) -> None:
        is_number = isinstance(discard_below, int | float | np.number)
        if discard_below is not None and not (is_number and 0.5 <= discard_below <= 1):
            raise SyndistillError(f"discard_below {discard_below!r}; a decision's probability lies in [0.5, 1]")
        if precision not in PRECISIONS:
            raise SyndistillError(f"precision {precision!r} is unknown; pick one of {', '.join(PRECISIONS)}")
        self.network = network
        self.discard_below, self.precision = discard_below, precision

    def compile_decoder_for_dem(self, *, dem: stim.DetectorErrorModel) -> sinter.CompiledDecoder:
        """Raises SyndistillError where the model is no surface code memory that the network decodes."""
        constant = _constant_answer(dem)
        if constant is not None:
            return _Constant(constant, dem.num_detectors)
        return _Compiled(self.on_circuit(dem), self.discard_below)

    def on_circuit(self, source: stim.Circuit | stim.DetectorErrorModel) -> NetworkDecoder | PackedEnsemble:
        """The same decoder outside of sinter."""
        return _on_circuit(self.network, source, self.precision)


class SinterSampler(sinter.Sampler):
    """Samples and decodes `batch` shots at a time; `device` is for networks that PyTorch runs."""

    def __init__(self, network: str, *, batch: int = SAMPLER_BATCH, device: str = "cpu") -> None:
        if not isinstance(batch, int | np.integer) or batch < 1:
            raise SyndistillError(f"batch {batch!r}; take a whole number of shots from 1 on")
        self.network, self.batch, self.device = network, batch, device

    def compiled_sampler_for_task(self, task: sinter.Task) -> sinter.CompiledSampler:
        """Raises SyndistillError where the task's circuit is no surface code memory that the network decodes."""
        return _CompiledSampler(self, task)


class _Compiled(sinter.CompiledDecoder):
    def __init__(self, decoder: NetworkDecoder | PackedEnsemble, discard_below: float | None) -> None:
        self._decoder, self._discard_below = decoder, discard_below

    def decode_shots_bit_packed(self, *, bit_packed_detection_event_data: Packed) -> Packed:
        """Packed flips (B, ceil(O / 8)); with post-selection one more byte, not 0 for a shot to discard."""
        flips_BO = self._decoder.probabilities(bit_packed_detection_event_data)
        packed = np.packbits(decisions(flips_BO), axis=1, bitorder="little")
        if self._discard_below is None:
            return packed
        certainty_B = np.maximum(flips_BO, 1 - flips_BO).min(1)
        return np.column_stack([packed, (certainty_B < self._discard_below).astype(np.uint8)])


class _Constant(sinter.CompiledDecoder):
    """The best answer where no detector says anything about any observable."""

    def __init__(self, flips_O: NDArray[np.bool_], n_detectors: int) -> None:
        self._packed, self._n_detectors = np.packbits(flips_O, bitorder="little"), n_detectors

    def decode_shots_bit_packed(self, *, bit_packed_detection_event_data: Packed) -> Packed:
        events = packed_bits(bit_packed_detection_event_data, self._n_detectors, "the decoder")
        return np.tile(self._packed, (len(events), 1))


class _CompiledSampler(sinter.CompiledSampler):
    def __init__(self, sampler: SinterSampler, task: sinter.Task) -> None:
        self._decoder = _on_circuit(sampler.network, task.circuit, device=sampler.device)
        self._sampler = task.circuit.compile_detector_sampler()
        self._batch, self._postselect = sampler.batch, task.postselection_mask
        if task.postselected_observables_mask is not None:
            raise SyndistillError("this sampler does not post-select on observables; take the decoder of that name")

    def sample(self, suggested_shots: int) -> sinter.AnonTaskStats:
        """At most one batch."""
        start = time.monotonic()
        shots = max(1, min(suggested_shots, self._batch))
        detectors, observables = self._sampler.sample(shots, separate_observables=True, bit_packed=True)
        if self._postselect is not None:
            kept = ~np.any(detectors & self._postselect, axis=1)
            detectors, observables = detectors[kept], observables[kept]
        found = np.packbits(decisions(self._decoder.probabilities(detectors)), axis=1, bitorder="little")
        return sinter.AnonTaskStats(
            shots=shots,
            errors=int(np.any(found != observables, axis=1).sum()),
            discards=shots - len(detectors),
            seconds=time.monotonic() - start,
            custom_counts=collections.Counter(),
        )

    def handles_throttling(self) -> bool:
        """A ramp up from single shots would only slow it down."""
        return True


def _on_circuit(
    name: str, source: stim.Circuit | stim.DetectorErrorModel, precision: str = "float32", device: str = "cpu"
) -> NetworkDecoder | PackedEnsemble:
    return named_on_circuit(name, source, lambda member: _engine(member, precision, device))


_engines: dict[tuple[str | Path, str, str], Engine] = {}
"""One process decodes many tasks with one network."""


def _engine(network: str | Path, precision: str, device: str = "cpu") -> Engine:
    network_path(network)  # refuses what is no name
    key = (network, precision, device)
    if key not in _engines:
        _engines[key] = engine_for(network, precision, device)
        if multiprocessing.parent_process() is not None and "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(1)  # sinter starts a worker for each core
    return _engines[key]


def _constant_answer(dem: stim.DetectorErrorModel) -> NDArray[np.bool_] | None:
    """What to answer always, where no error that flips an observable sets off a detector; else None."""
    keeps_O = np.ones(dem.num_observables)  # 1 - 2 P(flip)
    for instruction in dem.flattened():
        if instruction.type != "error":
            continue
        observables = [t.val for t in instruction.targets_copy() if t.is_logical_observable_id()]
        if observables and any(t.is_relative_detector_id() for t in instruction.targets_copy()):
            return None
        for observable in observables:
            keeps_O[observable] *= 1 - 2 * instruction.args_copy()[0]
    return keeps_O < 0
