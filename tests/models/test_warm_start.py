"""A network of distance 3 as the beginning of one of distance 5."""

import pytest
import torch

from syndistill.circuits.layout import Layout
from syndistill.errors import SyndistillError
from syndistill.models.warm_start import alike, can_begin, carried_over


@pytest.mark.parametrize("family", ["transformer"])
def test_all_that_does_not_depend_on_the_distance_carries_over(make_network, family):
    source, target = make_network(family), make_network(family, distance=5)
    target.load_state_dict(carried_over(source, target))
    per_stabiliser = 0
    for name, value in target.state_dict().items():
        known = source.state_dict()[name]
        if value.shape == known.shape:
            assert torch.equal(value, known), name
        else:
            per_stabiliser += 1
            assert all((row == known).all(-1).any() for row in value), name
    assert per_stabiliser == 2  # of the rounds' and of the last slice's embedder


def test_alike_keeps_type_and_border():
    large, small = Layout(7), Layout(3)
    nearest_S = alike(large, small)
    assert (large.is_x_S == small.is_x_S[nearest_S]).all()
    for end_large, end_small in ((0, 0), (7, 3)):
        assert ((large.cells_S2 == end_large) == (small.cells_S2[nearest_S] == end_small)).all()
    assert (alike(small, small) == range(8)).all()


def test_a_flat_network_does_not_carry_over(make_network):
    with pytest.raises(SyndistillError, match="does not carry over to distance 5; a flat_gru network"):
        carried_over(make_network("flat_gru"), make_network("flat_gru", distance=5))


@pytest.mark.parametrize("distance", [3, 5])
def test_a_network_that_is_not_turned_begins_one_that_is(make_network, distance):
    source, target = make_network("transformer"), make_network("transformer", distance=distance, turn_x=True)
    assert can_begin(source, target)
    assert not can_begin(target, source)
    torch.nn.init.ones_(target.turned_D)
    target.load_state_dict(carried_over(source, target))
    assert torch.equal(target.turned_D, torch.zeros_like(target.turned_D))
    assert torch.equal(target.embedder.index_SD[0], source.embedder.index_SD[0])
    assert not can_begin(make_network("transformer", width=24), target)


def test_a_network_of_lines_that_answer_alone_begins_one_whose_lines_agree(make_network):
    source, target = make_network("transformer"), make_network("transformer", distance=5, agree_lines=True)
    assert can_begin(source, target)
    target.load_state_dict(carried_over(source, target))
    assert torch.equal(target.line_readout.logit.weight, source.line_readout.logit.weight)


def test_a_network_of_two_channels_begins_a_joint_one_but_for_the_joint_answer(make_network):
    source, target = make_network("transformer"), make_network("transformer", output="joint4", agree_lines=True)
    assert can_begin(source, target)
    assert not can_begin(target, source)
    fresh = {name: value.clone() for name, value in target.state_dict().items()}
    target.load_state_dict(carried_over(source, target))
    known = source.state_dict()
    joint = {name for name in fresh if name.startswith(("line_readout.merge.", "line_readout.logit."))}
    assert joint
    assert all(torch.equal(target.state_dict()[name], fresh[name]) for name in joint)
    assert all(torch.equal(target.state_dict()[name], known[name]) for name in fresh.keys() - joint)
