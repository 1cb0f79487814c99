"""Means of weights, and what is none."""

import mean_of_weights
import torch

from syndistill.models.networks import build, load_network, save_network, weights_hash


def test_the_mean_of_two_networks_says_whose_it_is(tmp_path, capsys):
    paths = []
    for k in range(2):
        torch.manual_seed(k)
        paths.append(str(tmp_path / f"{k}.safetensors"))
        said = {"leg": k, "seen": {"a": 10 - k, f"b{k}": 5}}
        save_network(tmp_path / f"{k}.safetensors", build("flat-gru-5k", 3), said)
    out = tmp_path / "mean.safetensors"
    assert mean_of_weights.main([*paths, "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    (a, _), (b, _), (mean, said) = map(load_network, [*paths, str(out)])
    for name, value in mean.state_dict().items():
        torch.testing.assert_close(value, (a.state_dict()[name] + b.state_dict()[name]) / 2)
    assert said.pop("seen") == {"a": 10, "b0": 5, "b1": 5}
    assert said == {"leg": 1, "mean_of": {paths[0]: weights_hash(a), paths[1]: weights_hash(b)}}


def test_networks_of_other_kinds_have_no_mean(tmp_path, capsys):
    out = tmp_path / "mean.safetensors"
    assert mean_of_weights.main(["student-d3", "student-d3-frame", "--out", str(out)]) == 2
    assert "of other configurations" in capsys.readouterr().err
    assert mean_of_weights.main(["student-d3", "--out", str(out)]) == 2
    assert mean_of_weights.main(["student-d3", "student-d3", "--out", str(out)]) == 2
    assert not out.exists()
