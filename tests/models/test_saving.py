"""Networks on disk come back whole, or with one line that says why not."""

import json

import pytest
import torch
from safetensors.torch import save_file

from syndistill.errors import SyndistillError
from syndistill.models.presets import FAMILIES, build
from syndistill.models.saving import load_network, save_network, weights_hash
from syndistill.models.tensors_file import load_tensors, save_tensors

CARD = {"recipe": "none", "shots": 12, "scores": [{"ler": 0.5}]}


@pytest.fixture
def saved(tmp_path, make_network):
    path = tmp_path / "student.safetensors"
    save_network(path, make_network("flat_gru"), CARD)
    return path


def rewrite(path, change):
    """The saved file again, after change(tensors, header)."""
    tensors, header = load_tensors(path)
    change(tensors, header)
    save_tensors(path, tensors, header)


def refused(path):
    with pytest.raises(SyndistillError) as caught:
        load_network(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("output", ["two_channel", "joint4"])
def test_there_and_back(tmp_path, make_network, make_shots, family, output):
    network, path = make_network(family, output), tmp_path / "new folder" / "n.safetensors"
    save_network(path, network, CARD)
    random = torch.get_rng_state()
    loaded, metadata = load_network(path)
    assert torch.equal(torch.get_rng_state(), random)
    assert metadata == CARD
    assert loaded.config == network.config
    assert not loaded.training
    assert weights_hash(loaded) == weights_hash(network)
    shots = make_shots("both")
    with torch.no_grad():
        assert torch.equal(loaded(shots).logits_BKLC, network(shots).logits_BKLC)
    assert [p.name for p in path.parent.iterdir()] == ["n.safetensors"]


def test_hash_sees_bytes_names_and_shapes(make_network):
    network = make_network("flat_gru")
    before = weights_hash(network)
    with torch.no_grad():
        network.heads["x"].bias[0] += 1e-3
    assert weights_hash(network) != before
    one, other = (torch.nn.Linear(*shape, bias=False) for shape in ((2, 3), (3, 2)))
    for layer in (one, other):
        torch.nn.init.ones_(layer.weight)
    assert weights_hash(one) != weights_hash(other)


def test_missing_truncated_and_foreign_files(tmp_path, saved):
    assert "no file" in refused(tmp_path / "none.safetensors")
    assert "no file" in refused(tmp_path)
    whole = saved.read_bytes()
    for size in (0, 5, 300, len(whole) - 1):
        saved.write_bytes(whole[:size])
        assert "no whole safetensors file" in refused(saved)
    saved.write_bytes(b"PK\x03\x04" + bytes(2000))
    assert "no whole safetensors file" in refused(saved)
    save_file({"a": torch.zeros(2)}, saved)
    assert "no network of this project" in refused(saved)
    save_file({"a": torch.zeros(2)}, saved, metadata={"format": "pt"})
    assert "no whole safetensors file of this project" in refused(saved)


def test_configs_that_do_not_fit(saved):
    rewrite(saved, lambda _, header: header["config"].update(witdh=3))
    assert "witdh" in refused(saved)
    rewrite(saved, lambda _, header: header["config"].pop("witdh") and header["config"].update(family="lstm"))
    assert "family 'lstm' is unknown" in refused(saved)
    rewrite(saved, lambda _, header: header["config"].update(family="flat_gru", distance=4))
    assert "distance 4" in refused(saved)
    rewrite(saved, lambda _, header: header.update(format=2))
    assert "network format 2, this version reads 1" in refused(saved)


def test_weights_that_do_not_fit(saved):
    name, whole = "decide.0.weight", saved.read_bytes()
    for change, message in (
        (lambda t, _: t.pop(name), "lacks weights decide.0.weight"),
        (lambda t, _: t.update(extra=torch.zeros(1)), "has foreign weights extra"),
        (lambda t, _: t.update({name: t[name][:, :-1]}), r"\(8, 27\) where its config asks for float32 \(8, 28\)"),
        (lambda t, _: t.update({name: t[name].half()}), "float16"),
        (lambda t, _: t[name].view(-1)[3:4].fill_(float("nan")), "NaN or infinity in decide.0.weight"),
        (lambda t, _: t[name].view(-1)[3:4].fill_(float("inf")), "NaN or infinity in decide.0.weight"),
        (lambda _, header: header["config"].update(width=16), "where its config asks for"),
    ):
        saved.write_bytes(whole)
        rewrite(saved, change)
        with pytest.raises(SyndistillError, match=message):
            load_network(saved)


def test_a_diverged_network_is_not_saved(tmp_path):
    network = build("flat-gru-5k", 3)
    with torch.no_grad():
        network.start["x"][0] = float("nan")
    with pytest.raises(SyndistillError, match=r"NaN or infinity in start\.x"):
        save_network(tmp_path / "n.safetensors", network, {})
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file(saved, make_network, monkeypatch):
    old = saved.read_bytes()
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(SyndistillError, match=r"cannot write .*No space left on device; nothing was changed"):
        save_network(saved, make_network("conv_gru"), {})
    assert saved.read_bytes() == old
    assert [p.name for p in saved.parent.iterdir()] == [saved.name]


def test_a_folder_that_cannot_be(saved):
    with pytest.raises(SyndistillError, match="cannot write"):
        save_network(saved / "below" / "n.safetensors", build("flat-gru-5k", 3), {})


def test_the_header_is_plain_json(saved):
    size = int.from_bytes(saved.read_bytes()[:8], "little")
    header = json.loads(saved.read_bytes()[8 : 8 + size])["__metadata__"]
    assert json.loads(header["config"])["family"] == "flat_gru"
    assert json.loads(header["metadata"]) == CARD
