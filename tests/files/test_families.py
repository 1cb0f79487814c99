"""What the dials of a network can be, and that its tensors are those that they ask for."""

import subprocess
import sys

import pytest
import torch

from syndistill.errors import SyndistillError
from syndistill.files.families import FAMILIES, LIMITS, MOST_PARAMETERS, dials_of
from syndistill.models import networks as presets
from syndistill.models.networks import PRESETS, build, preset

SMALL = {
    "transformer": {"width": 6, "layers": 2, "heads": 3, "key_size": 2, "widening": 3, "conv_channels": 4,
                    "embedder_layers": 1, "bias_width": 5, "bias_layers": 2, "readout_width": 7, "readout_layers": 1,
                    "max_rounds": 4},
    "flat_gru": {"width": 7, "readout_width": 5, "readout_layers": 2},
    "local_gru": {"width": 4, "readout_width": 3, "readout_layers": 0},
}  # fmt: skip
SWITCHES = ("turn_x", "next_events", "attention_bias", "agree_lines", "events_alone")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("output", ["two_channel", "joint4"])
@pytest.mark.parametrize("distance", [3, 5])
@pytest.mark.parametrize("switched", [False, True])
def test_shapes_are_those_of_the_network(family, output, distance, switched):
    config = {"family": family, "distance": distance, "output": output, **SMALL[family]}
    config |= {name: switched for name in SWITCHES if name in vars(dials_of(config))}
    if (family, output) == ("flat_gru", "two_channel"):
        config |= {"frame_memory": switched}
    network = build(dials_of(config))
    dials = dials_of(config)
    assert dials.shapes() == {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    assert {tensor.dtype for tensor in network.state_dict().values()} == {torch.float32}
    assert dials.n_parameters == network.n_parameters()


def test_the_same_families_and_defaults():
    assert FAMILIES.keys() == presets.FAMILIES.keys()
    for family, kind in FAMILIES.items():
        assert kind(distance=3) == dials_of({"family": family, "distance": 3}) == build(kind(distance=3)).config


def test_every_preset_is_within_the_limits():
    for name in PRESETS:
        for distance in (3, 11):
            assert preset(name, distance).n_parameters < MOST_PARAMETERS / 10


def hostile():
    for family, kind in FAMILIES.items():
        for name in sorted(vars(kind(distance=3)).keys() - {"family"}):
            numbers = [LIMITS[name][0] - 1, LIMITS[name][1] + 1, 10**9, -(10**30), 1e400] if name in LIMITS else [2, -1]
            for value in [*numbers, None, "3", 3.5, [3], {}, True if name in LIMITS else "yes"]:
                yield family, name, value
        yield from ((family, "distance", value) for value in (4, 1, 0, 10**6 + 1, -3))
        yield family, "witdh", 3
    yield from (("transformer", "family", value) for value in ("lstm", None, 3, ["flat_gru"]))


@pytest.mark.parametrize(("family", "name", "value"), list(hostile()))
def test_what_no_network_can_be(family, name, value):
    with pytest.raises(SyndistillError, match=name):
        dials_of({"family": family, "distance": 3, name: value})


@pytest.mark.parametrize("change", [
    {"width": 4096}, {"width": 2048, "layers": 64}, {"heads": 64, "key_size": 4096, "layers": 8},
    {"readout_width": 4096, "readout_layers": 64}, {"max_rounds": 100_000, "readout_width": 2000},
])  # fmt: skip
def test_too_large_together(change):
    with pytest.raises(SyndistillError, match="are the most; lower widths or layers"):
        dials_of({"family": "transformer", "distance": 3, **change})


def test_other_things_that_do_not_fit_together():
    with pytest.raises(SyndistillError, match="widening=3 times width=7 is odd"):
        dials_of({"family": "transformer", "distance": 3, "widening": 3, "width": 7})
    with pytest.raises(SyndistillError, match="the distance is missing"):
        dials_of({"family": "flat_gru"})


HOSTILE = """
import sys, time
from pathlib import Path
from syndistill.files.families import dials_of
from syndistill.errors import SyndistillError
start = time.monotonic()
for name, value in [("width", 20_000), ("layers", 10**9), ("distance", 10**6 + 1), ("readout_layers", 10**9)]:
    try:
        dials_of({"family": "transformer", "distance": 3, name: value})
    except SyndistillError:
        continue
    sys.exit(f"{name}={value} passed")
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(time.monotonic() - start, int(peak.split()[1]) / 1024)
"""


def test_hostile_dials_cost_nothing():
    done = subprocess.run([sys.executable, "-c", HOSTILE], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    seconds, megabytes = map(float, done.stdout.split())
    assert seconds < 0.1
    assert megabytes < 100
