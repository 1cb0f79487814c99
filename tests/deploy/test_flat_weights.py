"""Weights read without PyTorch are the weights that PyTorch reads, and broken files are refused."""

import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from syndistill.deploy.flat_weights import load_flat_weights, n_outputs, read_header, shipped_names, shipped_path
from syndistill.errors import SyndistillError
from syndistill.models import zoo
from syndistill.models.saving import load_network, weights_hash


@pytest.mark.parametrize("next_events", [False, True])
def test_the_same_tensors_config_and_hash(network_file, next_events):
    path = network_file(width=20, readout_layers=2, next_events=next_events)
    network, _ = load_network(path)
    found = load_flat_weights(path)
    state = network.state_dict()
    assert set(found.tensors) == set(state)
    for name, tensor in state.items():
        np.testing.assert_array_equal(found.tensors[name], tensor.numpy())
    assert found.n_parameters == network.n_parameters()
    assert found.sha256 == weights_hash(network)
    assert (found.distance, found.width, found.readout_width, found.readout_layers) == (3, 20, 8, 2)


def test_shipped_names_and_paths_are_the_zoos():
    assert shipped_names() == zoo.shipped_names()
    for name in shipped_names():
        assert shipped_path(name) == zoo.network_path(name)


def rewritten(path, target, change_tensors=None, change_header=None):
    with safe_open(path, "pt") as file:
        tensors, header = {k: file.get_tensor(k) for k in file.keys()}, dict(file.metadata())  # noqa: SIM118
    if change_tensors:
        change_tensors(tensors)
    if change_header:
        change_header(header)
    save_file(tensors, target, metadata=header)
    return target


def nan(tensors):
    tensors["gru.bias_ih_l0"][3] = float("nan")


def foreign(tensors):
    tensors["adapter.weight"] = torch.zeros(2)


def lacking(tensors):
    del tensors["heads.z.bias"]


def reshaped(tensors):
    tensors["decide.0.bias"] = torch.zeros(9)


@pytest.mark.parametrize(
    ("change", "said"),
    [(nan, "gru.bias_ih_l0"), (foreign, "adapter.weight"), (lacking, "heads.z.bias"), (reshaped, "decide.0.bias")],
)
def test_weights_that_do_not_fit(network_file, tmp_path, change, said):
    with pytest.raises(SyndistillError, match=f"{said} does not fit the config or is not finite"):
        load_flat_weights(rewritten(network_file(), tmp_path / "a.safetensors", change))


def test_files_that_are_no_networks(network_file, tmp_path):
    good = network_file()
    with pytest.raises(SyndistillError, match="there is no file"):
        load_flat_weights(tmp_path / "nowhere.safetensors")
    short = tmp_path / "short.safetensors"
    short.write_bytes(good.read_bytes()[:-50])
    with pytest.raises(SyndistillError, match="no whole safetensors file"):
        load_flat_weights(short)
    other = rewritten(good, tmp_path / "other.safetensors", None, lambda h: h.update(what=json.dumps("cache")))
    with pytest.raises(SyndistillError, match="no network of this project"):
        read_header(other)
    with pytest.raises(SyndistillError, match="of family conv_gru"):
        load_flat_weights(network_file("conv_gru"))


def test_outputs_of_a_basis():
    assert [n_outputs("two_channel", b) for b in ("x", "z", "both")] == [1, 1, 2]
    assert n_outputs("joint4", "both") == 4
    with pytest.raises(SyndistillError, match="joint4 network decodes two-observable shots"):
        n_outputs("joint4", "z")
