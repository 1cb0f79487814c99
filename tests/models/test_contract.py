"""The contract of every network, checked on every family and the Teacher with its attention bias."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from syndistill.errors import SyndistillError
from syndistill.models.networks import FAMILIES, build
from syndistill.training.objective import GroundTruth

CASES = [("two_channel", "x", 1), ("two_channel", "z", 1), ("two_channel", "both", 2), ("joint4", "both", 4)]
"""Families with an embedder of slices."""
SPREAD_LEAST, SPREAD_MOST = 1e-4, 1e3

every_family = pytest.mark.parametrize("family", FAMILIES)
every_case = pytest.mark.parametrize(("output", "basis", "channels"), CASES)


def stream(network, shots):
    """Logits of every end, round by round, (B, K, L, C)."""
    state = network.init_state(len(shots), shots.basis)
    logits = []
    for t in range(shots.rounds):
        state = network.step(state, shots.events_BRS[:, t])
        if t + 1 in shots.ends:
            logits.append(network.readout(state, shots.last_BKS[:, shots.ends.index(t + 1)]))
    return torch.stack(logits, 1)


@every_family
@every_case
@pytest.mark.parametrize("rounds", [1, 2, 5])
def test_streaming_is_whole_history(make_network, make_shots, family, output, basis, channels, rounds):
    network, shots = make_network(family, output), make_shots(basis, rounds)
    with torch.no_grad():
        outputs = network(shots)
        streamed = stream(network, shots)
    assert outputs.logits_BKLC.shape == (len(shots), rounds, 3, channels)
    assert outputs.next_BRS.shape == shots.events_BRS.shape
    assert outputs.signals == {}
    assert outputs.logits_BKLC.std() > 1e-3  # equality of nothing but zeros would prove nothing
    torch.testing.assert_close(streamed, outputs.logits_BKLC, rtol=1e-5, atol=1e-5)


@every_family
def test_streaming_is_whole_history_at_distance_5_with_one_end(make_network, make_shots, family):
    network, shots = make_network(family, distance=5), make_shots("x", 3, distance=5).only_last_end()
    with torch.no_grad():
        outputs = network(shots)
        torch.testing.assert_close(stream(network, shots), outputs.logits_BKLC, rtol=1e-5, atol=1e-5)
    assert outputs.logits_BKLC.shape == (len(shots), 1, 5, 1)


def test_streaming_is_whole_history_without_attention_bias(make_network, make_shots):
    network, shots = make_network("transformer", attention_bias=False), make_shots(rounds=3)
    with torch.no_grad():
        torch.testing.assert_close(stream(network, shots), network(shots).logits_BKLC, rtol=1e-5, atol=1e-5)


@every_family
def test_a_longer_history_does_not_change_an_earlier_end(make_network, make_shots, family):
    network, shots = make_network(family), make_shots(rounds=4)
    short = replace(
        shots, events_BRS=shots.events_BRS[:, :2], last_BKS=shots.last_BKS[:, :2], labels_BKLO=None, ends=(1, 2)
    )
    with torch.no_grad():
        torch.testing.assert_close(
            network(short).logits_BKLC, network(shots).logits_BKLC[:, :2], rtol=1e-5, atol=1e-5
        )


@every_family
def test_train_and_eval_agree_without_batchnorm(make_network, make_shots, family):
    network, shots = make_network(family), make_shots()
    assert not [m for m in network.modules() if "batchnorm" in type(m).__name__.lower()]
    with torch.no_grad():
        trained = network.train()(shots).logits_BKLC
        evaluated = network.eval()(shots).logits_BKLC
        alone = torch.cat([network(shots.take(slice(i, i + 1))).logits_BKLC for i in range(len(shots))])
    assert torch.equal(trained, evaluated)
    torch.testing.assert_close(alone, evaluated, rtol=1e-5, atol=1e-5)  # a shot does not see its batch


@every_family
@pytest.mark.parametrize("output", ["two_channel", "joint4"])
def test_gradients_reach_every_parameter(make_network, make_shots, family, output):
    network = make_network(family, output, **({"max_rounds": 2} if family == "transformer" else {}))
    for basis in ("both",) if output == "joint4" else ("x", "z", "both"):
        loss, _ = GroundTruth()(network, make_shots(basis, n_shots=64))
        loss.backward()
    silent = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    # Two-observable shots define everything: there the vector for undefined stabilisers is idle.
    embedded = output == "joint4" and family == "transformer"
    idle = ["embedder.undefined_D", "last_embedder.undefined_D"] if embedded else []
    assert silent == idle


@every_family
@pytest.mark.parametrize("basis", ["x", "z"])
def test_undefined_entries_do_not_matter(make_network, make_shots, family, basis):
    network, shots = make_network(family), make_shots(basis)
    undefined_S = torch.from_numpy(~shots.layout.on_basis_S(basis))
    events_BRS, last_BKS = shots.events_BRS.clone(), shots.last_BKS.clone()
    assert not events_BRS[:, 0, undefined_S].any()
    assert not last_BKS[..., undefined_S].any()
    events_BRS[:, 0, undefined_S] = 1
    last_BKS[..., undefined_S] = 1
    garbage = replace(shots, events_BRS=events_BRS, last_BKS=last_BKS)
    with torch.no_grad():
        expected = network(shots).logits_BKLC
        assert torch.equal(network(garbage).logits_BKLC, expected)
        torch.testing.assert_close(stream(network, garbage), expected, rtol=1e-5, atol=1e-5)


@every_family
def test_every_defined_entry_matters(make_network, make_shots, family):
    """No event of the history and no entry of the last slice is lost on the way to the lines."""
    network, shots = make_network(family), make_shots("z", 2, n_shots=1).only_last_end()
    defined_S = shots.layout.on_basis_S("z")
    with torch.no_grad():
        before = network(shots).logits_BKLC
        for s in range(8):
            for t in range(3):
                if t != 1 and not defined_S[s]:
                    continue
                events_BRS, last_BKS = shots.events_BRS.clone(), shots.last_BKS.clone()
                (events_BRS if t < 2 else last_BKS)[0, t % 2, s] ^= 1
                after = network(replace(shots, events_BRS=events_BRS, last_BKS=last_BKS)).logits_BKLC
                assert (after - before).abs().max() > 1e-5, (t, s)


@every_family
def test_activations_stay_finite_and_alive_at_every_stage(make_shots, family):
    torch.manual_seed(0)
    network = build({"transformer": "teacher-tiny"}.get(family, f"{family.replace('_', '-')}-20k"), 3)
    spreads = {}

    def record(name, _module, _inputs, output):
        spreads[name] = float((output[0] if isinstance(output, tuple) else output).std())

    for name, module in network.named_modules():
        if not list(module.children()):
            module.register_forward_hook(partial(record, name))
    with torch.no_grad():
        network(make_shots(rounds=25, n_shots=64))
    assert len(spreads) >= 4
    assert {name: s for name, s in spreads.items() if not SPREAD_LEAST < s < SPREAD_MOST} == {}


@every_family
def test_signals_are_those_offered_and_differ(make_network, make_shots, family):
    network, shots = make_network(family), make_shots(rounds=3)
    with torch.no_grad():
        outputs = network(shots, network.signals_offered)
        plain = network(shots)
    assert set(outputs.signals) == network.signals_offered
    assert torch.equal(plain.logits_BKLC, outputs.logits_BKLC)
    for signal in outputs.signals.values():
        assert signal.shape[:2] == (len(shots), 3)
    if "spatial" in outputs.signals:
        spatial, temporal = outputs.signals["spatial"], outputs.signals["temporal"]
        assert spatial.shape == temporal.shape
        assert spatial.shape[2] == 8
        assert (spatial - temporal).abs().mean() > 0.01
    with pytest.raises(SyndistillError, match="has no signal telepathy; it offers"):
        network(shots, ["telepathy"])


@every_family
def test_temporal_is_the_state_that_crosses_the_boundary(make_network, make_shots, family):
    network, shots = make_network(family), make_shots(rounds=3)
    with torch.no_grad():
        temporal = network(shots, ["temporal"]).signals["temporal"]
        state = network.init_state(len(shots), shots.basis)
        for t in range(3):
            state = network.step(state, shots.events_BRS[:, t])
            expected = temporal[:, t].reshape(state.memory_BX.shape)
            torch.testing.assert_close(state.memory_BX, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "local_gru"])  # test_local_gru has it
@pytest.mark.parametrize("distance", [3, 7])
@pytest.mark.parametrize("output", ["two_channel", "joint4"])
def test_multiply_adds_are_those_of_streaming(make_network, make_shots, family, distance, output):
    """The cost of one more shot in the batch: weights-only work cancels. Both sides of the matrix distance."""
    network = make_network(family, output, distance, **({"readout_layers": 2}))
    rounds, costs = 3, []
    for n_shots in (1, 2):
        shots = make_shots("both" if output == "joint4" else "z", rounds, n_shots, distance).only_last_end()
        with FlopCounterMode(display=False) as counter:
            stream(network, shots)
        costs.append(counter.get_total_flops() / 2)
    assert network.multiply_adds(rounds) * rounds == pytest.approx(costs[1] - costs[0], rel=0.1)


@every_family
def test_joint4_refuses_memory_experiments(make_network, make_shots, family):
    network, shots = make_network(family, "joint4"), make_shots("x")
    with pytest.raises(SyndistillError, match="two-observable shots, these are of basis x"):
        network(shots)
    with pytest.raises(SyndistillError, match="two-observable shots, these are of basis x"):
        network.init_state(2, "x")


@pytest.mark.parametrize("family", ["flat_gru", "local_gru", "transformer"])
def test_a_turned_network_reads_x_shots_as_z_shots(make_network, make_shots, family):
    network, shots = make_network(family, turn_x=True), make_shots("x")
    with torch.no_grad():  # so that nothing but the order of the inputs tells the bases apart
        if family == "transformer":
            network.turned_D.zero_()
            network.line_readout.basis.weight[0] = network.line_readout.basis.weight[1]
        else:
            for kind in ("start", "heads", *(("line",) if family == "local_gru" else ())):
                part = getattr(network, kind).state_dict()
                getattr(network, kind).load_state_dict({key: part[key.replace("x", "z", 1)] for key in part})
    turned_S = network.layout.turned_S
    as_z = replace(
        shots, basis="z", events_BRS=shots.events_BRS[..., turned_S], last_BKS=shots.last_BKS[..., turned_S]
    )
    wanted = network.signals_offered & {"spatial"}
    with torch.no_grad():
        seen, expected = network(shots, wanted), network(as_z, wanted)
        torch.testing.assert_close(seen.logits_BKLC, expected.logits_BKLC)
        torch.testing.assert_close(seen.next_BRS[..., turned_S], expected.next_BRS)
        for name in wanted:
            torch.testing.assert_close(seen.signals[name][..., turned_S, :], expected.signals[name])
        torch.testing.assert_close(stream(network, shots), seen.logits_BKLC, rtol=1e-5, atol=1e-5)
        plain = make_network(family, turn_x=False)
        plain.load_state_dict(network.state_dict(), strict=False)
        assert not torch.allclose(plain(shots).logits_BKLC, expected.logits_BKLC)
