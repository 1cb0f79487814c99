"""Networks on disk come back whole, or with one line that says why not."""

import json

import pytest
import torch
from safetensors.torch import save_file

from syndistill.errors import SyndistillError
from syndistill.files.network_file import network_path, read_header, read_network, shipped_names
from syndistill.models.networks import FAMILIES, build, card, load_network, save_network, weights_hash
from syndistill.models.tensors_file import load_tensors, save_tensors
from syndistill.safe_files import file_sha256

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
    assert "no file" in refused(tmp_path / ("n" * 5000))
    whole = saved.read_bytes()
    saved.write_bytes(whole[:-1])
    assert "damaged: its tensors are not those" in refused(saved)
    save_file({"a": torch.zeros(2)}, saved)
    assert "has no content hash" in refused(saved)
    save_tensors(saved, {"a": torch.zeros(2)}, {"what": "syndistill fusion"})
    assert "no network of this project" in refused(saved)


def test_configs_that_do_not_fit(saved):
    rewrite(saved, lambda _, header: header["config"].update(witdh=3))
    assert "witdh" in refused(saved)
    rewrite(saved, lambda _, header: header["config"].pop("witdh") and header["config"].update(family="lstm"))
    assert "family 'lstm' is unknown" in refused(saved)
    rewrite(saved, lambda _, header: header["config"].update(family="flat_gru", distance=4))
    assert "distance 4" in refused(saved)
    rewrite(saved, lambda _, header: header.update(format=2))
    assert "network format 2, this version reads 1" in refused(saved)
    rewrite(saved, lambda _, header: header.update(format=1, extra=3))
    assert "network format 1 with extra" in refused(saved)


def test_weights_that_do_not_fit(saved):
    name, whole = "decide.0.weight", saved.read_bytes()
    for change, message in (
        (lambda t, _: t.pop(name), "lacks weights decide.0.weight"),
        (lambda t, _: t.update(extra=torch.zeros(1)), "has foreign weights extra"),
        (lambda t, _: t.update({name: t[name][:, :-1]}), r"\(8, 27\) where its config asks for F32 \(8, 28\)"),
        (lambda t, _: t.update({name: t[name].half()}), "F16"),
        (lambda t, _: t[name].view(-1)[3:4].fill_(float("nan")), "NaN or infinity in decide.0.weight"),
        (lambda t, _: t[name].view(-1)[3:4].fill_(float("inf")), "NaN or infinity in decide.0.weight"),
        (lambda t, _: t[name].view(-1)[3:4].fill_(-1e30), r"weights above 10000 in decide\.0\.weight"),
        (lambda _, header: header["config"].update(width=16), "where its config asks for"),
    ):
        saved.write_bytes(whole)
        rewrite(saved, change)
        with pytest.raises(SyndistillError, match=message):
            load_network(saved)


def test_a_diverged_network_is_not_saved(tmp_path):
    network = build("flat-gru-5k", 3)
    for value, said in ((float("nan"), "NaN or infinity in"), (1e9, "weights above 10000 in")):
        with torch.no_grad():
            network.start["x"][0] = value
        with pytest.raises(SyndistillError, match=rf"{said} start\.x"):
            save_network(tmp_path / "n.safetensors", network, {})
    assert list(tmp_path.iterdir()) == []


def test_the_header_is_plain_json(saved):
    size = int.from_bytes(saved.read_bytes()[:8], "little")
    header = json.loads(saved.read_bytes()[8 : 8 + size])["__metadata__"]
    assert json.loads(header["config"])["family"] == "flat_gru"
    assert json.loads(header["metadata"]) == CARD


def test_shipped_networks_are_what_their_cards_say():
    assert len(shipped_names()) >= 5
    for name in shipped_names():
        said, path = card(name), network_path(name)
        assert said["file_sha256"] == file_sha256(path)
        assert said["weights_sha256"] == read_network(name).sha256
        assert read_header(name).dials.distance == said["config"]["distance"]


def test_names_that_are_no_networks():
    for name in ("nobody", "nobody.safetensors", "", "/", "n" * 5000, "nul\0l"):
        with pytest.raises(SyndistillError, match=r"there is no file .* or take a shipped network: student-d3"):
            read_network(name)
