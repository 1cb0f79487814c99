"""What is no array of the right type and shape is refused in one line everywhere; odd arrays of bits are taken."""

import inspect
import warnings
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import sinter
import stim
import torch

from syndistill.circuits.experiment import Experiment
from syndistill.circuits.layout import Layout
from syndistill.circuits.placement import Placement, place
from syndistill.decoders.contract import MoreRoundsThanTrained
from syndistill.decoders.engines import Engine
from syndistill.decoders.kernel_engine import KernelEngine
from syndistill.decoders.network import NetworkDecoder, StreamingDecoder
from syndistill.decoders.onnx_engine import OnnxEngine, OnnxExperiment
from syndistill.decoders.registry import build_decoder
from syndistill.decoders.runtime import load
from syndistill.decoders.torch_engine import TorchEngine, network_decoder
from syndistill.deploy.export import export_onnx
from syndistill.errors import SyndistillError
from syndistill.evaluation.subject import Subject
from syndistill.models.networks import load_network
from syndistill.sampling.shots import shots_from_detectors
from syndistill.sampling.stored import StoredShots
from syndistill.sinter_plugin import SinterDecoder, SinterSampler

pytest.importorskip("llvmlite")
pytest.importorskip("onnxruntime")
ENGINES = ("flat", "local", "transformer", "onnx")
B, R, S = 6, 3, 8
OF_Z = Placement.of_lines(Layout(3), "z")


@pytest.fixture(scope="module")
def circuit():
    return Experiment(3, R, "z", "si1000", 0.02).circuit()


@pytest.fixture(scope="module")
def shots(circuit):
    return StoredShots.sample(circuit, B, 1)


@pytest.fixture(scope="module")
def engines(network_file, circuit, tmp_path_factory) -> dict[str, Engine]:
    flat = network_file()
    folder = export_onnx(flat, circuit, "t", tmp_path_factory.mktemp("exported") / "out")
    return {
        "flat": KernelEngine(flat), "local": KernelEngine(network_file("local_gru")),
        "transformer": TorchEngine(str(network_file("transformer"))), "onnx": OnnxEngine(folder),
        "experiment": OnnxExperiment(folder),
    }  # fmt: skip


def refused(call, *arguments, **named):
    with pytest.raises(SyndistillError) as caught:
        call(*arguments, **named)
    assert "\n" not in str(caught.value)


def wrong_arrays(good):
    """What is none, of another kind, type or shape, or holds what it can't."""
    yield from (None, 3, "bits", good.tolist(), [], (), {}, b"\0" * 9, torch.from_numpy(good.copy()), object())
    for dtype in (np.float32, np.float64, np.int64, np.int8, np.uint16, object, "U1"):
        yield good.astype(dtype)
    yield from (good[..., :-1], np.concatenate([good, good], -1), good[None], good.ravel(), good[..., None])
    yield from (np.uint8(1), np.zeros((0,), np.uint8))


def odd_arrays(good):
    """The same numbers in arrays of another making."""
    read_only = good.copy()
    read_only.flags.writeable = False
    wide = np.zeros((*good.shape[:-1], 2 * good.shape[-1]), good.dtype)
    wide[..., ::2] = good
    yield from (read_only, wide[..., ::2], np.asfortranarray(good), good[::-1].copy()[::-1])


@pytest.mark.parametrize("name", ENGINES)
def test_whole_shots(engines, circuit, shots, name):
    decoder = NetworkDecoder(engines[name], place(circuit))
    good = shots.detectors_packed.copy()
    expected = decoder.probabilities(good)
    for wrong in wrong_arrays(good):
        refused(decoder.probabilities, wrong)
        refused(engines[name].on(place(circuit)), wrong)
        refused(decoder.decode, wrong)
    for odd in odd_arrays(good):
        np.testing.assert_array_equal(decoder.probabilities(odd), expected)
    assert decoder.probabilities(good[:0]).shape == (0, 1)


@pytest.mark.parametrize("name", ENGINES)
def test_streams(engines, name):
    good = (np.random.default_rng(1).random((R, B, S)) < 0.2).astype(np.uint8)

    def finished(events):
        stream = StreamingDecoder(engines[name], OF_Z, batch=B)
        for one in events[:-1]:
            stream.push(one)
        return stream.finish(events[-1])

    expected = finished(good)
    stream = StreamingDecoder(engines[name], OF_Z, batch=B)
    for wrong in wrong_arrays(good):
        refused(stream.push_rounds, wrong)
        refused(engines[name].stream("z", B).push, wrong)
    stream.push(good[0])
    for wrong in wrong_arrays(good[0]):
        refused(stream.push, wrong)
        refused(stream.finish, wrong)
    assert stream.rounds_done == 1
    stream.push(good[1])
    np.testing.assert_array_equal(stream.finish(good[2]), expected)
    for odd in odd_arrays(good):
        np.testing.assert_array_equal(finished(odd), expected)
    np.testing.assert_array_equal(finished(good.astype(bool)), expected)
    stream.restart()
    stream.push_rounds(good[:0])
    assert stream.rounds_done == 0
    refused(stream.posterior)


@pytest.mark.parametrize("name", ENGINES)
def test_what_streams_are_made_of(engines, name):
    for batch in (0, -1, None, "2", 1.5, 10**12, [3], float("nan")):
        refused(StreamingDecoder, engines[name], OF_Z, batch)
        refused(engines[name].stream, "z", batch)
    for basis in ("y", None, 3, ["z"], ""):
        refused(Placement.of_lines, OF_Z.layout, basis)
        refused(engines[name].stream, basis, 1)
    for lines in ([3], [-1], [0, 0], [], 0, "0", [None], [0.5], {0}):
        refused(Placement.of_lines, OF_Z.layout, "z", lines)
    for engine in (None, "student-d3", object()):
        refused(StreamingDecoder, engine, OF_Z)


@pytest.mark.parametrize("name", ENGINES)
def test_placements(engines, circuit, name):
    """Compiled code writes where a placement says."""
    engine, good = engines[name], place(circuit)
    refused(NetworkDecoder, None, good)
    other = place(Experiment(5, 2, "z", "si1000", 0.02).circuit())
    damaged = [
        replace(good, **changed)
        for changed in (
            {"stabiliser_N": good.stabiliser_N + 1}, {"stabiliser_N": good.stabiliser_N - 1}, {"rounds": R - 1},
            {"rounds": 0}, {"slice_N": good.slice_N[:-1]}, {"slice_N": good.slice_N - 1}, {"basis": "y"},
            {"turn_OS": good.turn_OS[:, 1:]}, {"turn_OS": good.turn_OS[:0]}, {"holds_O2": good.holds_O2[:, :1]},
            {"holds_O2": good.holds_O2[0]},
        )
    ]  # fmt: skip
    for wrong in (None, "z", circuit, other, *damaged):
        refused(engine.on, wrong)
        refused(NetworkDecoder, engine, wrong)
        refused(StreamingDecoder, engine, wrong)
    for decoder in (engine.on, partial(NetworkDecoder, engine)):
        refused(decoder, OF_Z)  # of no circuit, so for streams alone


def test_every_decoder_takes_stored_shots_alone(engines, circuit, shots, network_file):
    pytorch = network_decoder(load_network(network_file())[0], circuit, "n", {})
    names = ("pymatching", "pymatching-correlated", "optimal")
    for decoder in (pytorch, engines["experiment"], *(build_decoder(name, shots.dem) for name in names)):
        for wrong in (None, 3, shots.detectors(), shots.detectors_packed, [shots], "shots"):
            refused(decoder.decode, wrong)
        assert decoder.decode(shots).shape == (B, 1)
        assert decoder.decode(shots.take(0, 0)).shape == (0, 1)


def test_shots_from_arrays(circuit, shots):
    placement = place(circuit)
    good, flips = shots.detectors(), shots.observables()
    assert len(shots_from_detectors(good.astype(np.uint8), placement, flips.astype(np.uint8))) == B
    expected = shots_from_detectors(good, placement)
    for odd in odd_arrays(good):
        assert torch.equal(shots_from_detectors(odd, placement).events_BRS, expected.events_BRS)
    for wrong in (*wrong_arrays(good), good * np.uint8(2), good.astype(np.uint8) - np.uint8(1)):
        refused(shots_from_detectors, wrong, placement)
    for wrong in (*wrong_arrays(flips), flips[:-1]):
        if wrong is not None:
            refused(shots_from_detectors, good, placement, wrong)


def test_sinter(network_file, circuit, shots):
    path, dem = str(network_file()), shots.dem
    nothing = stim.DetectorErrorModel("error(0.6) L0\nerror(0.2) D11")
    for of in (dem, nothing):
        compiled = SinterDecoder(path).compile_decoder_for_dem(dem=of)
        good = np.zeros((4, -(-of.num_detectors // 8)), np.uint8)
        assert compiled.decode_shots_bit_packed(bit_packed_detection_event_data=good).shape == (4, 1)
        for wrong in wrong_arrays(good):
            refused(compiled.decode_shots_bit_packed, bit_packed_detection_event_data=wrong)
    for discard in (-1, 2, "0.9", [0.9], float("nan")):
        refused(SinterDecoder, path, discard_below=discard)
    for precision in ("int4", None, 8):
        refused(SinterDecoder, path, precision=precision)
    for batch in (0, -5, None, "9", 2.5):
        refused(SinterSampler, path, batch=batch)
    task = sinter.Task(circuit=circuit)
    refused(SinterSampler(path, device="cuda:77").compiled_sampler_for_task, task)
    for network in (None, 3, "nobody", ["student-d3"], b"student-d3", ""):
        refused(partial(SinterDecoder(network).compile_decoder_for_dem, dem=dem))


@pytest.mark.parametrize("kind", [load, KernelEngine, OnnxEngine, OnnxExperiment, TorchEngine])
def test_what_engines_are_made_of(kind, tmp_path):
    for name in (None, 3, "nobody", ["student-d3"], b"student-d3", "", "n" * 5000, "nul\0l", tmp_path, object()):
        refused(kind, name)
    if kind is TorchEngine:
        for device in ("cuda:77", "tpu", "meta", None, 3.5, ""):
            refused(kind, "student-d3", device)
    if "precision" in inspect.signature(kind).parameters:
        for precision in ("int4", None, 8):
            refused(lambda p=precision: kind("student-d3", p).stream("z", 1))


def test_evaluate_warns_of_more_rounds_than_trained(network_file, circuit):
    path = network_file(metadata={"curriculum": {"rounds": [{"from_shots": 0, "rounds": [R - 1]}]}})
    with pytest.warns(MoreRoundsThanTrained, match="trained on at most 2 rounds, the circuit has 3"):
        Subject.of_circuit(circuit, "c").decoder(str(path))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        short = Experiment(3, R - 1, "z", "si1000", 0.02)
        Subject.from_experiment(str(short)).decoder(str(path))
