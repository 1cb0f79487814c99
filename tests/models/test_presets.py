"""Named sizes are of the size that they promise."""

import pytest

from syndistill.errors import SyndistillError
from syndistill.files.families import dials_of
from syndistill.models.networks import PRESETS, build, preset

STUDENTS = [name for name in PRESETS if name.endswith("k")]


@pytest.mark.parametrize("name", STUDENTS)
@pytest.mark.parametrize("output", ["two_channel", "joint4"])
def test_student_sizes(name, output):
    promised = 1000 * int(name.rsplit("-", 1)[1].removesuffix("k"))
    found = build(name, 3, output).n_parameters()
    assert 0.9 * promised <= found <= 1.1 * promised
    if promised == 20_000:
        assert found <= promised


def test_there_are_three_students_of_each_family():
    assert len(STUDENTS) == 6
    assert {preset(name, 3).family for name in STUDENTS} == {"flat_gru", "local_gru"}


@pytest.mark.parametrize(
    ("name", "published", "own_last_embedder"), [("scaling", 5.4e6, 263_168), ("sycamore", 8.4e6, 410_880)]
)
def test_paper_sizes(name, published, own_last_embedder):
    """Without the second residual network of the embedder both come within 2 % of the paper's count."""
    network = build(name, 5)
    second = sum(p.numel() for p in network.last_embedder.network.parameters())
    assert second == pytest.approx(own_last_embedder, rel=0.01)
    assert network.n_parameters() == pytest.approx(1.06 * published, rel=0.02)
    assert network.n_parameters() - second == pytest.approx(published, rel=0.025)


def test_teacher_small_is_the_default_config():
    assert preset("teacher-small", 3) == dials_of({"family": "transformer", "distance": 3})


@pytest.mark.parametrize(
    ("dials", "message"),
    [
        ({"family": "resnet"}, "'resnet' is unknown; pick one of transformer, flat_gru, local_gru"),
        ({"distance": 3}, "None is unknown"),
        ({"family": "flat_gru", "distance": 3, "witdh": 8}, "key 'witdh' is unknown; those of flat_gru are distance"),
        ({"family": "flat_gru"}, "the distance is missing; keys of flat_gru are distance"),
        ({"family": "flat_gru", "distance": 3, "output": "three"}, "output='three' is unknown; pick one of two_ch"),
        ({"family": "flat_gru", "distance": 3, "width": 0}, "width=0 must be from 1 to 4096"),
    ],
)
def test_bad_configs_are_one_line(dials, message):
    with pytest.raises(SyndistillError, match=message) as caught:
        dials_of(dials)
    assert "\n" not in str(caught.value)


def test_build_refuses_what_it_cannot_mean():
    with pytest.raises(SyndistillError, match="'tiny' is unknown; pick one of teacher-tiny"):
        build("tiny", 3)
    with pytest.raises(SyndistillError, match="needs a distance"):
        build("teacher-tiny")
    with pytest.raises(SyndistillError, match="distance 4 is not an odd number"):
        build("teacher-tiny", 4)
    with pytest.raises(SyndistillError, match="the config is of distance 3"):
        build(preset("teacher-tiny", 3), 5)
    with pytest.raises(SyndistillError, match="output two_channel, not 3 and joint4"):
        build(preset("teacher-tiny", 3), 3, "joint4")
