"""A cache of the shots that a Student is not sure of: which are kept, what their answers are, and what is refused."""

import numpy as np
import pytest
import torch

from syndistill.distill.cache.source import StudentData, Unsure, UnsureSource, cache_key, cached_source, simulated
from syndistill.distill.cache.store import read_manifest
from syndistill.distill.student import StudentRun, train_student
from syndistill.distill.terms import FinalTerm, LabelTerm, Terms
from syndistill.errors import SyndistillError
from syndistill.files.families import dials_of
from syndistill.models.networks import save_network
from syndistill.training.config import Curriculum, DataConfig, OptimiserConfig, RoundsPhase, TrainingConfig

from ..reporting import Heard

SHOTS = 16 * 256
BELOW = 0.5


@pytest.fixture
def chooser(small, tmp_path):
    network = small("flat_gru", seed=3).eval()
    save_network(tmp_path / "chooser.safetensors", network, {})
    return network, str(tmp_path / "chooser.safetensors")


def data_of(path, **changes):
    phases = (RoundsPhase(from_shots=0, rounds=(3,)),)
    curriculum = Curriculum(p_min=0.004, p_max=0.01, rounds=phases, rates_per_chunk=2)
    settings = {
        "simulated": DataConfig(distance=3, curriculum=curriculum), "cached_shots": SHOTS, "cached_ends": "last",
        "unsure": Unsure(network=path, below=BELOW, others=0.1),
    }  # fmt: skip
    return StudentData(**settings | changes)


def test_all_unsure_shots_are_kept_and_a_share_of_the_others(chooser):
    network, path = chooser
    source = simulated(data_of(path), 256, 1)
    kept = UnsureSource(source, data_of(path).unsure).chunk(0)
    unsure = sure = left = 0
    for all_shots, some in zip(source.chunk(0), kept, strict=True):
        size_of = [network(s.only_last_end()).logits_BKLC[:, -1, 0, 0].abs() for s in (all_shots, some)]
        assert (size_of[1] < BELOW).sum() == (size_of[0] < BELOW).sum()
        unsure += int((size_of[0] < BELOW).sum())
        sure += int((size_of[0] >= BELOW).sum())
        left += int((size_of[1] >= BELOW).sum())
    assert unsure > 100
    # binomial, 6 standard deviations: false alarm below 1e-8
    assert abs(left - 0.1 * sure) < 6 * np.sqrt(0.09 * sure)


def test_the_teacher_is_asked_for_the_last_end_alone(chooser, teacher, tmp_path):
    _, path = chooser
    data, training = data_of(path), TrainingConfig(steps=1, batch_size=16, optimiser=OptimiserConfig())
    heard = Heard()
    source = cached_source(data, training, teacher, tmp_path / "cache", [], False, heard)
    shards = read_manifest(tmp_path / "cache").shards
    kept = sum(shard.shots for shard in shards)
    assert f"cache of about {kept:,} shots" in heard.said[0]  # not all that were simulated
    for taught in source.chunk(0):
        assert taught.shots.ends == (3,)
        live = teacher.logits(taught.shots)
        torch.testing.assert_close(taught.teacher_BKLC, live, rtol=2**-11, atol=1e-6)


def test_a_student_learns_from_it(chooser, teacher_file, tmp_path):
    _, path = chooser
    run = StudentRun(
        network=dials_of({"family": "flat_gru", "distance": 3, "width": 8, "readout_width": 8}),
        teacher=teacher_file(),
        data=data_of(path),
        terms=Terms(labels=LabelTerm(weight=0.1), final=FinalTerm()),
        training=TrainingConfig(steps=3, batch_size=16, threads=1),
    )
    assert train_student(run, tmp_path / "run").is_file()
    other = run.model_copy(update={"data": data_of(path, unsure=Unsure(network=path, below=1.0))})
    with pytest.raises(SyndistillError, match="another shots"):
        train_student(other, tmp_path / "other", cache=tmp_path / "run" / "cache")


def test_the_key_knows_the_chooser_by_its_weights(chooser, small, teacher, tmp_path):
    _, path = chooser
    save_network(tmp_path / "same.safetensors", chooser[0], {"said": "else"})
    save_network(tmp_path / "other.safetensors", small("flat_gru", seed=4), {})
    keys = [
        cache_key(data_of(name), teacher)
        for name in (path, str(tmp_path / "same.safetensors"), str(tmp_path / "other.safetensors"))
    ]
    assert keys[0] == keys[1] != keys[2]


def test_what_cannot_be_is_refused(chooser, teacher_file):
    _, path = chooser
    with pytest.raises(ValueError, match="cached_shots above 0"):
        data_of(path, cached_shots=0)
    with pytest.raises(ValueError, match="cut_rounds needs"):
        data_of(path, cut_rounds=(2,))
    with pytest.raises(ValueError, match="cached_ends=last has no answers"):
        StudentRun(
            network=dials_of({"family": "flat_gru", "distance": 3}), teacher=teacher_file(), data=data_of(path),
            terms=Terms(labels=LabelTerm(where="every")), training=TrainingConfig(steps=1),
        )  # fmt: skip
    wide = data_of(path, simulated=data_of(path).simulated.model_copy(update={"distance": 5}))
    with pytest.raises(SyndistillError, match="of distance 3, the shots of 5"):
        UnsureSource(simulated(wide, 256, 1), wide.unsure)
