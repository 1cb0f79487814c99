"""Frames of neighbouring lines that agree where the checks between them are quiet: by hand, streamed, carried."""

import math
from dataclasses import replace

import pytest
import torch

from syndistill.circuits.experiment import Experiment
from syndistill.errors import SyndistillError
from syndistill.files.families import dials_of
from syndistill.models.networks import build
from syndistill.models.warm_start import can_gain_frame, with_frame
from syndistill.sampling.parts import parts_of
from syndistill.sampling.shots import simulate
from syndistill.training.carried import CarriedStates

from .test_contract import stream

DIALS = {"family": "local_gru", "width": 6, "readout_width": 8, "frame_memory": True, "agree_after": 2}


def network(distance=3, **dials):
    torch.manual_seed(5)
    made = build(dials_of(DIALS | {"distance": distance} | dials)).eval()
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if name.startswith(("frame_weight", "frame_bias")):
                parameter.normal_(2.0 if "bias" in name else 0.0, 0.7)
            if name.startswith("frame_agrees"):
                parameter.fill_(0.4)
    return made.requires_grad_(False)


def by_hand(made, shots):
    """The frames of a Z experiment after its last round, a shot, a round and a line after the other."""
    layout, lines = made.layout, made.layout.n_lines
    turns_BRL = made(shots).turns_BRFC[..., 0].double()
    between = layout.line_stabilisers("z")
    share = torch.sigmoid(made.frame_agrees["z"]).item()
    found = torch.ones(len(shots), lines, dtype=torch.float64)
    for shot, events_RS in enumerate(shots.events_BRS.tolist()):
        frames, parity, quiet = [1.0] * lines, [0] * layout.n_stabilisers, [0] * (lines - 1)
        for r, events_S in enumerate(events_RS):
            frames = [f * t for f, t in zip(frames, turns_BRL[shot, r].tolist(), strict=True)]
            parity = [p ^ e for p, e in zip(parity, events_S, strict=True)]
            busy = [any(events_S[s] for s in members) for members in between]
            quiet = [0 if b else n + 1 for n, b in zip(quiet, busy, strict=True)]
            first = 0
            for line in range(1, lines + 1):
                if line < lines and quiet[line - 1] >= made.config.agree_after:
                    continue  # joined to the line before
                group = range(first, line)
                signs = [(-1) ** sum(parity[s] for k in range(m) for s in between[k]) for m in group]
                odds = [2 * math.atanh(frames[m]) * sign for m, sign in zip(group, signs, strict=True)]
                mean = sum(odds) / len(odds)
                for m, sign, own in zip(group, signs, odds, strict=True):
                    frames[m] = math.tanh(sign * (own + share * (mean - own)) / 2)
                first = line
        found[shot] = torch.tensor(frames)
    return found


@pytest.mark.parametrize("distance", [3, 5])
def test_lines_are_drawn_to_the_mean_of_those_that_quiet_checks_join(distance):
    made, shots = network(distance), simulate(Experiment(distance, 7, "z", "si1000", 0.01), 60, 3).only_last_end()
    behind = made(shots).state.memory_BX[:, made.n_states :]
    frames_BL, counted_BK = behind[:, :distance], behind[:, distance:]
    torch.testing.assert_close(frames_BL.double(), by_hand(made, shots), rtol=1e-4, atol=1e-5)
    assert counted_BK.shape == (60, distance - 1)
    assert set(counted_BK.unique().tolist()) == {0.0, 1.0, 2.0}  # not counted beyond what is asked for
    alone = build(replace(made.config, agree_after=0)).eval()
    alone.load_state_dict({n: x for n, x in made.state_dict().items() if "agrees" not in n})
    assert (alone(shots).state.memory_BX[:, made.n_states :] - frames_BL).abs().max() > 0.1


@pytest.mark.parametrize(("basis", "turn_x"), [("z", False), ("x", True), ("both", True), ("x", False)])
def test_streaming_is_whole_history(basis, turn_x):
    made, shots = network(turn_x=turn_x), simulate(Experiment(3, 7, basis, "si1000", 0.01), 40, 3)
    torch.testing.assert_close(stream(made, shots), made(shots).logits_BKLC, rtol=1e-5, atol=1e-5)


def test_what_is_counted_is_carried_into_the_next_part():
    made, whole = network(turn_x=True), simulate(Experiment(3, 8, "x", "si1000", 0.01), 40, 3)
    carried = CarriedStates()
    parts = [carried.outputs(made, part) for part in parts_of(whole, 4, lane=0)]
    torch.testing.assert_close(parts[1].logits_BKLC, made(whole).logits_BKLC[:, 4:], rtol=1e-5, atol=1e-5)
    first = parts[0].state
    known = made.with_known_frame(first, torch.zeros(40, 3, 1, dtype=torch.uint8))
    assert torch.equal(known.memory_BX[:, -2:], first.memory_BX[:, -2:])
    assert (known.memory_BX[:, made.n_states : -2] == 1).all()


def test_a_network_with_frames_begins_to_let_them_agree():
    made = network()
    before = build(replace(made.config, agree_after=0))
    plain = build(replace(before.config, frame_memory=False))
    assert can_gain_frame(before, made)
    assert can_gain_frame(plain, made)
    assert not can_gain_frame(made, before)
    assert not can_gain_frame(before, build(replace(made.config, width=7)))
    assert not can_gain_frame(made, build(replace(made.config, agree_after=3)))
    weights = with_frame(before, made)
    assert all(torch.equal(weights[name], value) for name, value in before.state_dict().items())
    with pytest.raises(SyndistillError, match="set frame_memory too"):
        dials_of(DIALS | {"distance": 3, "frame_memory": False})


def test_how_far_they_agree_is_learned():
    made = network().requires_grad_(True)
    shots = simulate(Experiment(3, 7, "z", "si1000", 0.01), 60, 3)
    made(shots).logits_BKLC.square().sum().backward()
    assert made.frame_agrees["z"].grad.abs().item() > 1e-4
    assert made.cell.recurrent[0].grad.abs().max() > 0
