"""What decoders are judged on: a circuit (from a file or by an experiment's parameters), or a recording.

A decoder's name may end in @circuit or @pij on a recording, which says the error model that it is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import stim

from syndistill.circuits.experiment import Experiment
from syndistill.circuits.files import load_circuit
from syndistill.decoders.contract import Decoder
from syndistill.decoders.network import network_lookup
from syndistill.decoders.registry import build_decoder, decoder_names
from syndistill.errors import SyndistillError
from syndistill.evaluation.compare import DEFAULT_BATCH, Comparison, Progress, compare, compare_recorded
from syndistill.files.network_file import shipped_names
from syndistill.sampling.recorded import DEM_FILES, Recording
from syndistill.sampling.stored import StoredShots, dem_of_circuit


@dataclass(frozen=True, eq=False)
class Subject:
    """One circuit with its error models by name; `recording` holds the shots where they are not to be sampled.

    basis: "x" or "z" where something else than the circuit says it, None where the circuit does.
    """

    label: str
    circuit: stim.Circuit
    dems: dict[str, stim.DetectorErrorModel]
    basis: str | None = None
    recording: Recording | None = None

    @classmethod
    def of_circuit(cls, circuit: stim.Circuit, label: str) -> Subject:
        if circuit.num_observables == 0:
            raise SyndistillError(f"{label} has no OBSERVABLE_INCLUDE, so nothing to decode; add one")
        return cls(label, circuit, {"circuit": dem_of_circuit(circuit)})

    @classmethod
    def from_file(cls, path: str | Path) -> Subject:
        return cls.of_circuit(load_circuit(path), str(path))

    @classmethod
    def from_experiment(cls, text: str) -> Subject:
        experiment = Experiment.parse(text)
        return cls.of_circuit(experiment.circuit(), str(experiment))

    @classmethod
    def from_recording(cls, folder: str | Path) -> Subject:
        recording = Recording.load(folder)
        dems = {name: recording.dem(name) for name in DEM_FILES}
        return cls(Path(folder).name, recording.circuit, dems, recording.properties.basis, recording)

    def decoder(self, name: str) -> Decoder:
        """A reference, a shipped network or a saved one, made for this circuit and named as it was asked for."""
        plain, at, model = name.rpartition("@")
        if not at or Path(name).is_file():
            plain, at, model = name, "", "circuit"
        if at and self.recording is None:
            raise SyndistillError(f"decoder {name!r}: @{model} is for recorded shots only; write {plain!r}")
        if model not in self.dems:
            raise SyndistillError(f"decoder {name!r}: error model {model!r} is unknown; pick {', '.join(self.dems)}")
        dem = self.dems[model]
        if plain in decoder_names():
            decoder = build_decoder(plain, dem, self.circuit)
            decoder.name = name
            return decoder
        factory = network_lookup(self.basis)(plain)
        if factory is None:
            raise SyndistillError(_unknown(plain))
        if at:
            raise SyndistillError(f"decoder {name!r}: a network takes no error model; write {plain!r}")
        return factory(dem, self.circuit)

    def compare(
        self,
        names: Sequence[str],
        shots: int | None,
        seed: int,
        *,
        batch: int = DEFAULT_BATCH,
        rows_file: Path | None = None,
        progress: Progress | None = None,
    ) -> Comparison:
        """Judge the named decoders on the same shots: sampled ones, or the first of the recording (None: all)."""
        if batch <= 0 or (shots is not None and shots <= 0):
            raise SyndistillError(f"{shots} shots in batches of {batch}: both must be positive")
        if len(set(names)) != len(names):
            raise SyndistillError(f"a decoder is named twice in {', '.join(names)}; name each once")
        if self.recording is None:
            if shots is None:
                raise SyndistillError("no shots: say how many to sample, for example 100000")
            decoders = [self.decoder(name) for name in names]
            options = {"batch": batch, "rows_file": rows_file, "progress": progress}
            return compare(decoders, self.circuit, shots, seed, experiment=self.label, **options)  # type: ignore[arg-type]
        pieces = self._recorded(self.recording, shots, batch)
        decoders = [self.decoder(name) for name in names]
        return compare_recorded(decoders, pieces, rows_file=rows_file, progress=progress, experiment=self.label)

    def _recorded(self, recording: Recording, shots: int | None, batch: int) -> list[StoredShots]:
        n_shots = len(recording) if shots is None else shots
        if n_shots > len(recording):
            raise SyndistillError(f"{n_shots} shots asked of {self.label}, which has {len(recording)}; ask for fewer")
        stored = recording.stored_shots("circuit")
        return [stored.take(start, min(start + batch, n_shots)) for start in range(0, n_shots, batch)]


def _unknown(name: str) -> str:
    known = [*decoder_names(), *shipped_names()]
    close = get_close_matches(name, known, n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    return f"unknown decoder {name!r}{hint}; take {', '.join(known)}, or the path of a .safetensors file"
