"""What decoders are judged on: a circuit (from a file or by an experiment's parameters), or a recording.

A decoder's name may end in @circuit or @pij on a recording, which says the error model that it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import stim

from syndistill.circuits.experiment import Experiment
from syndistill.circuits.files import load_memory
from syndistill.circuits.placement import place, si1000_noise
from syndistill.circuits.shown import summary
from syndistill.circuits.training_noise import noise_in
from syndistill.decoders.contract import Decoder
from syndistill.decoders.engine_for import engine_named, way_in
from syndistill.decoders.ensemble import EnsembleDecoder
from syndistill.decoders.network import on_circuit
from syndistill.decoders.registry import build_decoder, decoder_names, decoders_in
from syndistill.errors import SyndistillError, did_you_mean
from syndistill.evaluation.compare import DEFAULT_BATCH, Comparison, LeftOut, compare, compare_recorded
from syndistill.files.network_file import members_in, network_path, read_header, shipped_names
from syndistill.reporter import SILENT, Reporter
from syndistill.sampling.recorded import Recording, shots_seen
from syndistill.sampling.stored import StoredShots, dem_of_circuit


@dataclass(frozen=True, eq=False)
class Subject:
    """One circuit with its error models, or an error model alone; `recording` holds the shots where they are not to be
    sampled."""

    label: str
    circuit: stim.Circuit | stim.DetectorErrorModel
    recording: Recording | None = None
    _dems: dict[str, stim.DetectorErrorModel] = field(default_factory=dict)  # those that were asked for

    @classmethod
    def of_circuit(cls, circuit: stim.Circuit, label: str) -> Subject:
        if circuit.num_observables == 0:
            raise SyndistillError(f"{label} has no OBSERVABLE_INCLUDE, so nothing to decode; add one")
        dem = dem_of_circuit(circuit)
        if dem.num_errors == 0:
            raise SyndistillError(f"{label} has no noise, so no shot has an error; add it, or name the noisy circuit")
        return cls(label, circuit, _dems={"circuit": dem})

    @classmethod
    def from_file(cls, path: str | Path) -> Subject:
        """A circuit, or an error model (.dem)."""
        found = load_memory(path)
        if isinstance(found, stim.Circuit):
            return cls.of_circuit(found, str(path))
        if found.num_observables == 0:
            raise SyndistillError(f"{path} has no logical_observable, so nothing to decode; add one")
        return cls(str(path), found, _dems={"circuit": found})

    @classmethod
    def from_experiment(cls, text: str) -> Subject:
        experiment = Experiment.parse(text)
        return cls.of_circuit(experiment.circuit(), str(experiment))

    @classmethod
    def from_recording(cls, folder: str | Path) -> Subject:
        recording = Recording.load(folder)
        return cls(recording.properties.label, recording.circuit, recording)

    def dem(self, name: str = "circuit") -> stim.DetectorErrorModel:
        """The model of that name, read when it is first asked for."""
        if name not in self._dems:
            assert self.recording is not None
            self._dems[name] = self.recording.dem(name)
        return self._dems[name]

    def decoder(self, name: str) -> Decoder:
        """A reference, a shipped network or a saved one, made for this circuit and named as it was asked for. A network
        runs the fastest way that keeps float32, or that of `decoders.engine_for.WAYS` behind its name and a colon."""
        return self._maker(name)()

    def _maker(self, name: str) -> Callable[[], Decoder]:
        """What makes the decoder; SyndistillError where the name means none, whatever the circuit."""
        members = decoders_in(name)
        if len(members) > 1:
            makers = [self._maker(member) for member in members]
            return lambda: EnsembleDecoder([make() for make in makers], name)
        plain, at, model = name.rpartition("@")
        if not at or name in decoder_names():
            plain, at, model = name, "", "circuit"
        if plain not in decoder_names():
            return self._network_maker(name)
        if at and self.recording is None:
            raise SyndistillError(f"decoder {name!r}: @{model} is for recorded shots only; write {plain!r}")
        if self.recording is not None and model not in (models := self.recording.models):
            raise SyndistillError(f"decoder {name!r}: error model {model!r} is unknown; pick {', '.join(models)}")
        return lambda: _named(build_decoder(plain, self.dem(model)), name)

    def _network_maker(self, name: str) -> Callable[[], Decoder]:
        if network_path(way_in(name)[0]) is not None:
            return lambda: self._network(name)
        plain, at, _ = name.rpartition("@")
        if at and network_path(plain) is not None:
            raise SyndistillError(f"decoder {name!r}: a network takes no error model; write {plain!r}")
        raise SyndistillError(_unknown(plain if at else name))

    def _network(self, name: str) -> Decoder:
        usual, way = on_circuit(engine_named(name), self.circuit), way_in(name)[1]
        if not way:
            return usual
        decoder = _named(usual, name)
        if way != "compiled":  # the usual one. To tell apart two ways to run the same weights
            decoder.content_id = f"{decoder.content_id.removesuffix(f'-{way}')}-{way}"
        return decoder

    def understood(self, names: Sequence[str]) -> list[str]:
        """How the first network among the decoders reads the circuit, line by line; nothing where none of them is one,
        or can't read it."""
        members = [way_in(member)[0] for name in names for member in members_in(name)]
        network = next((name for name in members if name not in decoder_names() and network_path(name)), None)
        if network is None:
            return []
        try:
            home = noise_in(read_header(network).metadata)
            placement = place(self.circuit, home)
        except SyndistillError:
            return []
        return summary(self.circuit, placement, home or si1000_noise(placement.layout.distance))

    def _decoders(self, names: Sequence[str], left_out: LeftOut) -> list[Decoder]:
        """Those that can serve the circuit."""
        makers = {name: self._maker(name) for name in names}
        decoders: list[Decoder] = []
        for k, (name, make) in enumerate(makers.items(), 1):
            try:
                decoders.append(make())
            except SyndistillError as error:
                left_out.add(name, error, len(decoders) + len(makers) - k)
        return decoders

    def compare(
        self,
        names: Sequence[str],
        shots: int | None,
        seed: int,
        *,
        skip: int = 0,
        batch: int = DEFAULT_BATCH,
        rows_file: Path | None = None,
        leave_out: bool = False,
        reporter: Reporter = SILENT,
    ) -> Comparison:
        """Judge the named decoders on the same shots: sampled ones, or the first of the recording (None: all)
        after `skip`.

        leave_out: a decoder that cannot serve the circuit or its shots, or whose package is missing, is left out and
        the reporter told. Without it, or where it was the last one, SyndistillError.
        """
        if batch <= 0 or (shots is not None and shots <= 0):
            raise SyndistillError(f"{shots} shots in batches of {batch}: both must be positive")
        if len(set(names)) != len(names):
            raise SyndistillError(f"a decoder is named twice in {', '.join(names)}; name each once")
        left_out = LeftOut(reporter if leave_out else None)
        if self.recording is None:
            if skip:
                raise SyndistillError("sampled shots are none that a network has seen; leave skip out")
            if shots is None:
                raise SyndistillError("no shots: say how many to sample, for example --shots 100000")
            decoders = self._decoders(names, left_out)
            bar = reporter.bar("shots", shots * len(decoders))
            return compare(
                decoders, self.circuit, shots, seed, batch=batch, rows_file=rows_file, bar=bar, experiment=self.label,
                left_out=left_out,
            )  # fmt: skip
        pieces = self._recorded(self.recording, shots, skip, batch)
        for name in names:
            if (seen := most_seen(name, self.recording)) > skip:
                reporter.say(f"warning: {name} has seen the first {seen:,} of these shots; judge it with --skip {seen}")
        decoders = self._decoders(names, left_out)
        bar = reporter.bar("shots", sum(piece.n_shots for piece in pieces) * len(decoders))
        return compare_recorded(
            decoders, pieces, rows_file=rows_file, bar=bar, experiment=self.label, left_out=left_out
        )

    def _recorded(self, recording: Recording, shots: int | None, skip: int, batch: int) -> list[StoredShots]:
        if len(recording) == 0:
            raise SyndistillError(f"the recording {self.label} has no shots, so nothing to judge on; take another one")
        n_shots = len(recording) - skip if shots is None else shots
        if n_shots <= 0 or skip + n_shots > len(recording):
            after = f" after the first {skip}" if skip else ""
            raise SyndistillError(
                f"{max(n_shots, 0)} shots{after} asked of {self.label}, which has {len(recording)}; ask for fewer"
            )
        stored = StoredShots(self.circuit, self.dem(), recording.detectors_packed, recording.observables_packed)
        end = skip + n_shots
        return [stored.take(start, min(start + batch, end)) for start in range(skip, end, batch)]


def most_seen(name: str, recording: Recording) -> int:
    """How many of the recording's first shots a network, or one of a list, learned from or chose its weights on."""
    networks = [network for member in members_in(name) if network_path(network := way_in(member)[0]) is not None]
    seen = [shots_seen(read_header(network).metadata) for network in networks]
    return max((of.get(recording.properties.label, 0) for of in seen), default=0)


def _named(decoder: Decoder, name: str) -> Decoder:
    decoder.name = name
    return decoder


def _unknown(name: str) -> str:
    known = [*decoder_names(), *shipped_names()]
    hint = did_you_mean(name, known)
    return f"unknown decoder {name!r}{hint}; take {', '.join(known)}, or the path of a .safetensors file"
