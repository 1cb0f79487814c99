"""Recordings made of simulated shots, in the layouts of published ones."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import stim

from syndistill.errors import SyndistillError
from syndistill.sampling.recorded import WILLOW, Recording


def make_recording(
    folder: Path, shots: int = 40, moved: int = 0, flip: float = 0.05, rounds: int = 2
) -> Path:
    """A folder in the Sycamore layout from a simulated experiment with random initial states; moved: to another patch
    of the chip; flip: how often measurements fail."""
    folder.mkdir(parents=True)
    generated = stim.Circuit.generated(
        "surface_code:rotated_memory_x", distance=3, rounds=rounds, before_measure_flip_probability=flip
    ).flattened()
    noisy = stim.Circuit(f"SHIFT_COORDS({moved}, {moved})")
    for instruction in generated:
        noisy.append(instruction)
        if instruction.name == "RX":  # random initial states, as in the experiment
            for k, t in enumerate(instruction.targets_copy()):
                noisy.append("CZ", [stim.target_sweep_bit(k), t.value])
    ideal = noisy.without_noise()
    sweep = np.random.default_rng(1).integers(0, 2, (shots, 9)).astype(bool)
    # the frames of a sweep bit are added by hand: Stim's sampler takes them for 0
    measurements = noisy.compile_sampler(seed=1).sample(shots)
    data = [t.value for i in generated if i.name == "RX" for t in i.targets_copy()]
    for k, q in enumerate(data):
        flipped = flips_of(ideal, q)
        measurements ^= sweep[:, [k]] & flipped
    converter = ideal.compile_m2d_converter()
    events, flips = converter.convert(measurements=measurements, sweep_bits=sweep, separate_observables=True)
    dem = noisy.detector_error_model(decompose_errors=True)
    files = {
        "properties.yml": f"type: surface_code_memory_experiment\nbasis: X\nrounds: {rounds}\ndistance: 3\n"
        f"shots: {shots}\ncenter_data_qubit_row: {3 + moved}\ncenter_data_qubit_col: {3 + moved}\n"
        f"circuit_measurements: {noisy.num_measurements}\ncircuit_sweep_bits: 9\n"
        f"circuit_detectors: {noisy.num_detectors}\ncircuit_observables: 1\n",
        "circuit_ideal.stim": str(ideal),
        "circuit_noisy.stim": str(noisy),
        "circuit_detector_error_model.dem": str(dem),
        "pij_from_even_for_odd.dem": str(dem),
    }
    for name, text in files.items():
        (folder / name).write_text(text)
    for name, bits in (("measurements", measurements), ("sweep", sweep), ("detection_events", events)):
        np.packbits(bits, axis=1, bitorder="little").tofile(folder / f"{name}.b8")
    (folder / "obs_flips_actual.01").write_text("".join(f"{int(f)}\n" for f in flips[:, 0]))
    return folder


def flips_of(ideal: stim.Circuit, qubit: int) -> np.ndarray:
    """Measurements that a Z on `qubit` after its reset flips, bool (1, M)."""
    circuit = stim.Circuit()
    for instruction in ideal:
        if instruction.name == "CZ" and any(t.is_sweep_bit_target for t in instruction.targets_copy()):
            continue
        circuit.append(instruction)
        if instruction.name == "RX":
            circuit.append("Z_ERROR", [qubit], 1.0)
    simulator = stim.FlipSimulator(batch_size=1, disable_stabilizer_randomization=True)
    simulator.do(circuit)
    return simulator.get_measurement_flips().T


def refused(folder: Path, *says: str) -> None:
    with pytest.raises(SyndistillError) as caught:
        Recording.load(folder)
    message = str(caught.value)
    assert "\n" not in message
    for words in says:
        assert words in message


def change(folder: Path, name: str, pattern: str, by: str) -> None:
    text = (folder / name).read_text()
    assert re.search(pattern, text)
    (folder / name).write_text(re.sub(pattern, by, text))


def make_plain(folder: Path, circuit: stim.Circuit, basis: str, rounds: int, shots: int = 25) -> Path:
    folder.mkdir(parents=True)
    row, col = np.mean(sorted({tuple(c[:2]) for c in circuit.get_detector_coordinates().values()}), axis=0)
    events, flips = circuit.compile_detector_sampler(seed=1).sample(shots, separate_observables=True)
    (folder / "circuit_noisy.stim").write_text(str(circuit))
    np.packbits(events, axis=1, bitorder="little").tofile(folder / "detection_events.b8")
    np.packbits(flips, axis=1, bitorder="little").tofile(folder / "obs_flips_actual.b8")
    (folder / "properties.yml").write_text(
        f"basis: {basis}\nrounds: {rounds}\ndistance: 3\nshots: {shots}\n"
        f"center_data_qubit_row: {row:.0f}\ncenter_data_qubit_col: {col:.0f}\n"
    )
    return folder


def as_willow(source: Path, folder: Path, basis: str = "X") -> Path:
    """The same experiment with the names of Google's later release."""
    shutil.copytree(source, folder)
    circuit = stim.Circuit.from_file(folder / "circuit_noisy.stim")
    (folder / "circuit_noisy.stim").rename(folder / WILLOW.noisy)
    (folder / "sweep.b8").rename(folder / "sweep_bits.b8")
    flips = [line == "1" for line in (folder / "obs_flips_actual.01").read_text().split()]
    np.array(flips, np.uint8).tofile(folder / "obs_flips_actual.b8")
    for name, old in (("circuit", "circuit_detector_error_model.dem"), ("rl", "pij_from_even_for_odd.dem")):
        (folder / WILLOW.models[name]).parent.mkdir(parents=True)
        (folder / old).rename(folder / WILLOW.models[name])
    for name in ("obs_flips_actual.01", "properties.yml"):
        (folder / name).unlink()
    points = circuit.get_final_qubit_coordinates()
    data = sorted(points[t.value] for i in circuit if i.name == "RX" for t in i.targets_copy())
    metadata = {"basis": basis, "rounds": 2, "shots": 40, "distance": 3, "data_qubit_coords": data}
    (folder / "metadata.json").write_text(json.dumps(metadata))
    return folder
