"""The sinter plug-in: what sinter hands to it, through sinter's own machinery, and sinter's own test-suite."""

import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import sinter
import stim

from syndistill.circuits.experiment import Experiment
from syndistill.decoders.contract import decisions
from syndistill.decoders.torch_engine import network_decoder
from syndistill.errors import SyndistillError
from syndistill.models.networks import load_network, shipped_names
from syndistill.sampling.stored import StoredShots, dem_of_circuit
from syndistill.sinter_plugin import VARIABLE, SinterDecoder, SinterSampler, decoders

NAME = "syndistill-d3"


@pytest.fixture(scope="module")
def circuit():
    return Experiment(3, 3, "z", "si1000", 0.006).circuit()


def decoded(decoder, shots):
    compiled = decoder.compile_decoder_for_dem(dem=shots.dem)
    return compiled.decode_shots_bit_packed(bit_packed_detection_event_data=shots.detectors_packed)


def test_names(monkeypatch):
    found = decoders()
    for name in shipped_names():
        assert isinstance(found[f"syndistill-{name}"], sinter.Decoder)
        assert isinstance(found[f"syndistill-{name}-batched"], sinter.Sampler)
    assert found[NAME].network == "student-d3"
    monkeypatch.setenv(VARIABLE, "mine=student-d3 other=teacher-d3")
    assert decoders()["mine"].network == "student-d3"
    assert decoders()["other-batched"].network == "teacher-d3"
    for wrong, said in [("mine", "write NAME=PATH"), ("mine=nowhere.safetensors", "there is no file nowhere")]:
        monkeypatch.setenv(VARIABLE, wrong)
        with pytest.raises(SyndistillError, match=said):
            decoders()


@pytest.mark.parametrize(
    ("network", "distance"), [("student-d3", 3), ("teacher-d3", 3), ("student-d5", 5), ("student-d5-82k", 5)]
)
@pytest.mark.parametrize("basis", ["x", "z"])
def test_a_pickled_decoder_gives_the_networks_answers(network, distance, basis):
    """Compiled for Students, PyTorch for the Teacher."""
    circuit = Experiment(distance, 3, basis, "si1000", 0.006).circuit()
    shots = StoredShots.sample(circuit, 300, 2)
    expected = decisions(network_decoder(load_network(network)[0], circuit, "n", {}).decode(shots))
    found = decoded(pickle.loads(pickle.dumps(SinterDecoder(network))), shots)
    np.testing.assert_array_equal(found, expected.astype(np.uint8))


def test_two_observables():
    """Asked for one basis at a time: the network never saw both at once."""
    circuit = Experiment(3, 3, "both", "si1000", 0.004).circuit()
    shots = StoredShots.sample(circuit, 300, 2)
    expected = decisions(network_decoder(load_network("student-d3")[0], circuit, "n", {}).decode(shots))
    found = np.unpackbits(decoded(SinterDecoder("student-d3"), shots), axis=1, bitorder="little", count=2)
    np.testing.assert_array_equal(found, expected)


def test_post_selection_discards_the_least_certain(circuit):
    shots = StoredShots.sample(circuit, 2000, 2)
    flips = network_decoder(load_network("student-d3")[0], circuit, "n", {}).decode(shots)
    found = decoded(SinterDecoder("student-d3", discard_below=0.9), shots)
    assert found.shape == (2000, 2)
    np.testing.assert_array_equal(found[:, 1] != 0, np.maximum(flips, 1 - flips)[:, 0] < 0.9)
    assert 100 < (found[:, 1] != 0).sum() < 1500
    with pytest.raises(SyndistillError, match="lies in"):
        SinterDecoder("student-d3", discard_below=5)


def test_collect_counts_discards_and_fewer_errors(circuit):
    """Through sinter's own worker processes."""
    strict = {"strict": SinterDecoder("student-d3", discard_below=0.95), "plain": SinterDecoder("student-d3")}
    found = sinter.collect(
        num_workers=1, tasks=[sinter.Task(circuit=circuit)], decoders=list(strict), custom_decoders=strict,
        max_shots=4000, max_batch_size=1024,
    )  # fmt: skip
    by_name = {stats.decoder: stats for stats in found}
    assert by_name["plain"].discards == 0
    kept = {name: stats.errors / (stats.shots - stats.discards) for name, stats in by_name.items()}
    assert by_name["strict"].discards > 100
    assert kept["strict"] < 0.5 * kept["plain"]


def test_the_sampler_counts_what_the_decoder_does(circuit):
    sampler = pickle.loads(pickle.dumps(SinterSampler("student-d3", batch=3000)))
    compiled = sampler.compiled_sampler_for_task(sinter.Task(circuit=circuit))
    assert compiled.handles_throttling()
    stats = compiled.sample(10_000_000)
    assert (stats.shots, stats.discards) == (3000, 0)
    shots = StoredShots.sample(circuit, 3000, 1)
    errors = int((decoded(SinterDecoder("student-d3"), shots) != shots.observables_packed).any(1).sum())
    assert abs(stats.errors - errors) < 6 * errors**0.5
    assert compiled.sample(7).shots == 7


def test_the_sampler_post_selects_detectors(circuit):
    mask = np.zeros(-(-circuit.num_detectors // 8), np.uint8)
    mask[0] = 1
    task = sinter.Task(circuit=circuit, postselection_mask=mask)
    stats = SinterSampler("student-d3", batch=2000).compiled_sampler_for_task(task).sample(2000)
    assert 0 < stats.discards < 1000
    task = sinter.Task(circuit=circuit, postselected_observables_mask=np.ones(1, np.uint8))
    with pytest.raises(SyndistillError, match="does not post-select on observables"):
        SinterSampler("student-d3").compiled_sampler_for_task(task)


def stim_memory(task):
    return stim.Circuit.generated(task, distance=3, rounds=3, before_measure_flip_probability=0.1)


@pytest.mark.parametrize(
    ("circuit", "said"),
    [
        (Experiment(5, 2, "z", "si1000", 0.006).circuit(), "decodes distance 3, the circuit has distance 5"),
        (stim_memory("repetition_code:memory"), "D0 lacks coordinates"),
        (stim_memory("surface_code:unrotated_memory_z"), "rotated surface code"),
    ],
)
def test_circuits_of_another_shape(circuit, said):
    with pytest.raises(SyndistillError, match=said):
        SinterDecoder("student-d3").compile_decoder_for_dem(dem=dem_of_circuit(circuit))


def test_a_refused_task_ends_sinter_with_the_reason():
    """No hanging workers: sinter stops, and its message holds ours."""
    task = sinter.Task(circuit=Experiment(5, 2, "z", "si1000", 0.006).circuit())
    with pytest.raises(RuntimeError, match="decodes distance 3, the circuit has distance 5"):
        sinter.collect(
            num_workers=1, tasks=[task], decoders=[NAME], custom_decoders=decoders(), max_shots=100
        )


def test_without_information_the_likelier_answer():
    dem = stim.DetectorErrorModel("error(0.6) L0\nerror(0.1) L1\nerror(0.6) L2\nerror(0.6) L2\nerror(0.2) D0")
    compiled = SinterDecoder("student-d3").compile_decoder_for_dem(dem=dem)
    found = compiled.decode_shots_bit_packed(bit_packed_detection_event_data=np.zeros((3, 1), np.uint8))
    np.testing.assert_array_equal(found, [[1]] * 3)


# What sinter's suite asks of every decoder and no decoder of surface codes can do: codes without coordinates whose
# observables depend on their detectors.
NO_SURFACE_CODE = {"test_decode_repetition_code", "test_post_selection", "test_detector_counting"}


def test_sinters_own_suite(tmp_path):
    """Run as its users do (SINTER_PYTEST_CUSTOM_DECODERS), outside this project's settings. It imports a module without
    a dot in its name, so it gets one."""
    (tmp_path / "for_sinter.py").write_text(
        "from syndistill import sinter_plugin\n\n\n"
        f"def decoders():\n    return {{'{NAME}': sinter_plugin.decoders()['{NAME}']}}\n"
    )
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    suite = Path(sinter.__file__).parent / "_decoding" / "_decoding_test.py"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "SINTER_PYTEST_CUSTOM_DECODERS": "for_sinter:decoders"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rA", "-c", tmp_path / "pytest.ini", "--rootdir", tmp_path,
         "-p", "no:cacheprovider", suite, "-k", NAME],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    by_outcome = {
        outcome: re.findall(rf"^{outcome} \S*::(\w+)\[", done.stdout, re.MULTILINE)
        for outcome in ("PASSED", "FAILED", "ERROR", "SKIPPED")
    }
    assert set(by_outcome["FAILED"]) == NO_SURFACE_CODE, done.stdout
    assert by_outcome["ERROR"] == []
    assert not NO_SURFACE_CODE & set(by_outcome["PASSED"])
    assert by_outcome["PASSED"].count("test_decode_surface_code") == 2  # in memory and through files
    assert len(by_outcome["PASSED"]) >= 35
