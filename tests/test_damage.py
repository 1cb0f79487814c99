"""One change of a network file or of an exported folder: every engine answers as before, or refuses in one line."""

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from syndistill.circuits.experiment import Experiment
from syndistill.decoders.kernel_engine import KernelEngine
from syndistill.decoders.onnx_engine import OnnxEngine, OnnxExperiment
from syndistill.decoders.runtime import on_circuit
from syndistill.decoders.torch_engine import network_decoder
from syndistill.deploy.export import export_onnx
from syndistill.errors import SyndistillError
from syndistill.files.families import dials_of
from syndistill.models.networks import build, load_network, save_network
from syndistill.models.tensors_file import load_tensors, save_tensors
from syndistill.sampling.stored import StoredShots
from syndistill.sinter_plugin import SinterDecoder

llvm = pytest.importorskip("llvmlite.binding")
pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
SHOTS = 100
SMALL = {
    "flat_gru": {"width": 12, "readout_width": 8, "turn_x": True},
    "local_gru": {"width": 5, "readout_width": 8, "turn_x": True},
    "transformer": {"width": 8, "layers": 1, "heads": 2, "key_size": 4, "widening": 2, "conv_channels": 4,
                    "embedder_layers": 1, "bias_width": 8, "bias_layers": 1, "readout_width": 8, "readout_layers": 1},
}  # fmt: skip
HAS_VNNI = llvm.get_host_cpu_features().get("avx512vnni", False)


class Trial:
    """A network on a circuit, and what each engine answers of it, whole."""

    def __init__(self, distance=3):
        self.circuit = Experiment(distance, 3, "z", "si1000", 0.006).circuit()
        self.shots = StoredShots.sample(self.circuit, SHOTS, 3)

    def evaluate(self, path):
        return network_decoder(load_network(str(path))[0], self.circuit, "n", {}).decode(self.shots)

    def compiled(self, path):
        return on_circuit(KernelEngine(path), self.circuit).decode(self.shots)

    def int8(self, path):
        return on_circuit(KernelEngine(path, "int8"), self.circuit).decode(self.shots)

    def onnx(self, path):
        folder = Path(f"{path}.onnx")
        try:
            return OnnxExperiment(export_onnx(path, self.circuit, "t", folder)).decode(self.shots)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def sinter(self, path):
        compiled = SinterDecoder(str(path)).compile_decoder_for_dem(dem=self.shots.dem)
        return compiled.decode_shots_bit_packed(bit_packed_detection_event_data=self.shots.detectors_packed) / 1.0

    def engines(self, path):
        if load_network(str(path))[0].config.family == "transformer":
            return (self.evaluate, self.sinter)
        return (self.evaluate, self.compiled, self.onnx, self.sinter, *((self.int8,) if HAS_VNNI else ()))

    def experiment_graph(self, folder):
        return OnnxExperiment(folder).decode(self.shots)

    def step_graphs(self, folder):
        return on_circuit(OnnxEngine(folder), self.circuit).decode(self.shots)


def outcome(engine, path, expected):
    try:
        found = engine(path)
    except SyndistillError as error:
        return "refused" if "\n" not in str(error) else "several lines"
    except Exception as error:
        return f"traceback ({type(error).__name__})"
    return "same" if found.shape == expected.shape and np.abs(found - expected).max() < 1e-6 else "silently other"


def flipped(whole, places):
    for place in places:
        changed = bytearray(whole)
        changed[place // 8] ^= 1 << place % 8
        yield f"bit {place}", bytes(changed)


def raw_changes(path, n_each, rng):
    """(what, bytes): bits of the header's length, of the header and of the tensors; cut, longer, replaced text."""
    whole = path.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    for start, end, n in ((0, 8, 8), (8, header, n_each), (header, len(whole), n_each)):
        yield from flipped(whole, rng.integers(8 * start, 8 * end, n).tolist())
    for size in (0, 7, 8, 100, header - 1, header, header + 9, len(whole) - 1):
        yield f"cut to {size}", whole[:size]
    yield "longer", whole + bytes(8)
    for change in ("true null", "32 16", "3 5", "channel chamnel", "rounds Rounds", "start.x start.y", "sha256 sha257"):
        old, new = change.encode().split()
        if old in whole[:header]:
            yield change, whole[:header].replace(old, new, 1) + whole[header:]


def _filled(name, value):
    def change(tensors, _):
        tensors[name].view(-1)[0] = value

    return change


def resaved_changes(path):
    """(what, change of tensors and header), saved by `save_tensors`: with hashes that are right."""
    tensors, header = load_tensors(path)
    for name in list(tensors)[:: max(1, len(tensors) // 4)]:
        for value in (float("nan"), float("inf"), -float("inf"), 1e30, -1e38):
            yield f"{name} holds {value}", _filled(name, value)
        for dtype in (torch.float16, torch.float64, torch.bfloat16, torch.int32, torch.bool):
            yield f"{name} is {dtype}", lambda t, _, n=name, d=dtype: t.update({n: t[n].to(d)})
        yield f"{name} is cut", lambda t, _, n=name: t.update({n: t[n][:-1]})
        yield f"{name} is wider", lambda t, _, n=name: t.update({n: t[n][None]})
        yield f"{name} is gone", lambda t, _, n=name: t.pop(n)
        yield f"{name} is renamed", lambda t, _, n=name: t.update({f"{n}s": t.pop(n)})
    yield "a foreign weight", lambda t, _: t.update(adapter=torch.zeros(3))
    yield "all 1e30", lambda t, _: [x.fill_(1e30) for x in t.values()]
    for key in header["config"]:
        if key != "turn_x":  # another network of the same weights, and nobody can know
            for value in (None, -1, 0, 4, 10**9, 2.5, "7", [3], {}):
                if value != header["config"][key]:
                    yield f"{key}={value}", lambda _, h, k=key, v=value: h["config"].update({k: v})
        if key in ("distance", "family", "width"):
            yield f"no {key}", lambda _, h, k=key: h["config"].pop(k)
    yield "an unknown dial", lambda _, h: h["config"].update(depth=3)
    for key in header:
        yield f"no {key}", lambda _, h, k=key: h.pop(k)
        yield f"{key} is 3", lambda _, h, k=key: h.update({k: 3})


def network_trials(path, folder, n_each, seed=0, distance=3):
    """Counter of (engine, outcome), and what was not as it must be."""
    trial, rng = Trial(distance), np.random.default_rng(seed)
    engines = trial.engines(path)
    expected = {engine: engine(path) for engine in engines}
    counts, wrong = Counter(), []
    for number, (what, change) in enumerate([*raw_changes(path, n_each, rng), *resaved_changes(path)]):
        changed = folder / f"{number}.safetensors"
        if isinstance(change, bytes):
            changed.write_bytes(change)
        else:
            tensors, header = load_tensors(path)
            change(tensors, header)
            save_tensors(changed, tensors, header)
        for engine in engines:
            said = outcome(engine, changed, expected[engine])
            counts[engine.__name__, said] += 1
            if said not in ("same", "refused"):
                wrong.append((what, engine.__name__, said))
        changed.unlink()
    return counts, wrong


def manifest_changes(content):
    """(what, changed content): every leaf, every key, one at a time."""
    def walk(value, keys):
        if isinstance(value, dict):
            for key in value:
                yield from walk(value[key], (*keys, key))
        elif isinstance(value, list) and len(value) > 2:
            for i in (0, len(value) // 2):
                yield from walk(value[i], (*keys, i))
        else:
            yield keys, value

    def changed(keys, value, remove=False):
        copy = json.loads(json.dumps(content))
        inner = copy
        for key in keys[:-1]:
            inner = inner[key]
        if remove:
            del inner[keys[-1]]
        else:
            inner[keys[-1]] = value
        return json.dumps(copy, indent=1).encode()

    for keys, value in walk(content, ()):
        for other in (None, {}, -1, 10**9, 0.25, "other", value + 1 if isinstance(value, int) else 1):
            if other != value:
                yield f"{keys} is {other}", changed(keys, other)
        yield f"{keys} is gone", changed(keys, None, remove=True)


def folder_trials(whole, folder, n_each, seed=0):
    trial, rng = Trial(), np.random.default_rng(seed)
    engines = (trial.experiment_graph, trial.step_graphs)
    expected = {engine: engine(whole) for engine in engines}
    manifest = json.loads((whole / "manifest.json").read_text())
    changes = [("manifest.json", *change) for change in manifest_changes(manifest)]
    for path in sorted(whole.iterdir()):
        content = path.read_bytes()
        changes += [(path.name, *c) for c in flipped(content, rng.integers(0, 8 * len(content), n_each).tolist())]
        changes += [(path.name, f"cut to {size}", content[:size]) for size in (0, 9, len(content) - 1)]
        changes += [(path.name, "of another", (whole / name).read_bytes()) for name in ("step.onnx", "readout.onnx")]
    counts, wrong = Counter(), []
    for name, what, content in changes:
        if content == (whole / name).read_bytes():
            continue
        shutil.copytree(whole, folder)
        (folder / name).write_bytes(content)
        for engine in engines:
            said = outcome(engine, folder, expected[engine])
            counts[engine.__name__, said] += 1
            if said not in ("same", "refused"):
                wrong.append((name, what, engine.__name__, said))
        shutil.rmtree(folder)
    return counts, wrong


def small_network(family, path):
    torch.manual_seed(5)
    network = build(dials_of({"family": family, "distance": 3, **SMALL[family]}))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    save_network(path, network, {"curriculum": {"rounds": [{"from_shots": 0, "rounds": [9]}]}})
    return path


def show(counts, wrong):
    print(f"\n{sum(counts.values())} trials: {dict(sorted(counts.items()))}; not as it must be: {len(wrong)}")
    for line in wrong[:40]:
        print("  ", line)


@pytest.mark.parametrize("family", SMALL)
def test_changed_network_files(tmp_path, family):
    (tmp_path / "changed").mkdir()
    counts, wrong = network_trials(small_network(family, tmp_path / "n.safetensors"), tmp_path / "changed", 12)
    show(counts, wrong)
    assert wrong == []
    assert min(sum(n for (e, _), n in counts.items() if e == engine) for engine, _ in counts) > 150


@pytest.mark.parametrize("family", ["flat_gru", "local_gru"])
def test_changed_exported_folders(tmp_path, family):
    whole = export_onnx(small_network(family, tmp_path / "n.safetensors"), Trial().circuit, "t", tmp_path / "whole")
    counts, wrong = folder_trials(whole, tmp_path / "changed", 12)
    show(counts, wrong)
    assert wrong == []
    assert sum(counts.values()) > 300


@pytest.mark.slow("some 1,500 changes of each shipped network, by every engine")
@pytest.mark.parametrize(("name", "distance"), [
    ("student-d3", 3), ("teacher-d3", 3), ("student-d5", 5), ("student-d5-82k", 5), ("teacher-d5", 5),
])  # fmt: skip
def test_changed_shipped_networks(tmp_path, name, distance):
    from syndistill.files.network_file import network_path

    (tmp_path / "changed").mkdir()
    counts, wrong = network_trials(network_path(name), tmp_path / "changed", 600, 1, distance)
    show(counts, wrong)
    assert wrong == []


@pytest.mark.slow("some 1,000 changes of an exported folder")
def test_changed_exported_students(tmp_path):
    whole = export_onnx("student-d3", Trial().circuit, "t", tmp_path / "whole")
    counts, wrong = folder_trials(whole, tmp_path / "changed", 150, 1)
    show(counts, wrong)
    assert wrong == []
