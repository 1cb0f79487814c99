"""A cache of the shots that a Student is not sure of: which are kept, what their answers are, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
import torch

from syndistill.decoders.kernel_engine import this_machine
from syndistill.distill.cache.source import (
    Recorded,
    StudentData,
    Unsure,
    UnsureShots,
    UnsureSource,
    cache_key,
    cached_source,
    simulated,
)
from syndistill.distill.cache.store import read_manifest
from syndistill.distill.student import StudentRun, train_student
from syndistill.distill.terms import FinalTerm, LabelTerm, Terms
from syndistill.errors import SyndistillError
from syndistill.files.families import dials_of
from syndistill.models.networks import save_network
from syndistill.sampling import chosen
from syndistill.training.config import Curriculum, DataConfig, OptimiserConfig, RoundsPhase, TrainingConfig
from syndistill.training.source import simulated_source

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


def fresh(path, labels, **changes):
    wanted = data_of(path).simulated.model_copy(update={"labels": labels})
    return data_of(path, cached_shots=0, cached_ends="every", simulated=wanted, **changes)


@pytest.mark.parametrize("labels", ["sampled", "exact", "revealed"])
def test_batches_of_fresh_shots_are_full_of_unsure_ones(chooser, labels):
    network, path = chooser
    data = fresh(path, labels)
    source = simulated(data, 64, 1)
    batches = source.chunk(0)
    assert [len(shots) for shots in batches] == [64] * 16
    assert all((shots.posterior_BKLP is not None) == (labels != "sampled") for shots in batches)
    for shots, again in zip(batches, simulated(data, 64, 1).chunk(0), strict=True):
        assert torch.equal(shots.events_BRS, again.events_BRS)
    # All of what every batch would be without a choice, so that the share of sure ones is known.
    everyone = simulated(data.model_copy(update={"unsure": None}), 1024, 1).chunk(0)

    def is_unsure(some):
        return torch.cat([network(s.only_last_end()).logits_BKLC[:, -1, 0, 0].abs() < BELOW for s in some]).numpy()

    share = is_unsure(everyone).mean()
    expected = share / (share + 0.1 * (1 - share))
    found = is_unsure(batches)
    # binomial, 6 standard deviations: false alarm below 1e-8; `share` itself is of 16 times as many shots
    assert abs(found.mean() - expected) < 6 * np.sqrt(expected * (1 - expected) / len(found)) * 1.1


@pytest.mark.parametrize("way", ["int8", "pytorch"])
def test_a_chooser_runs_in_the_way_behind_its_name(chooser, way):
    network, path = chooser
    try:
        this_machine("int8")
    except SyndistillError as error:
        if way == "int8":
            pytest.skip(str(error))
    chooses = UnsureShots(Unsure(network=f"{path}:{way}", below=BELOW, others=0.0), 3)
    shots = simulated(data_of(path), 4096, 1).chunk(0)[0]
    kept_B = chooses(shots, np.random.default_rng(0))
    size_B = network(shots.only_last_end()).logits_BKLC[:, -1, 0, 0].abs()
    clear_B = (size_B - BELOW).abs() > (0.1 if way == "int8" else 1e-4)
    assert clear_B.float().mean() > 0.5
    assert torch.equal(kept_B[clear_B], (size_B < BELOW)[clear_B])
    assert chooses.unsure.key() != data_of(path).unsure.key()


@pytest.mark.parametrize("labels", ["sampled", "revealed"])
def test_processes_share_a_chosen_batch(chooser, labels):
    _, path = chooser
    data = fresh(path, labels)
    options = {"labels": labels, "chooser": UnsureShots(data.unsure, 3)}
    whole, *parts = (simulated_source(data.simulated, 64, 1, share=share, **options).chunk(0)
                     for share in ((0, 1), (0, 2), (1, 2)))  # fmt: skip
    for shots, *halves in zip(whole, *parts, strict=True):
        assert torch.equal(shots.events_BRS, torch.cat([half.events_BRS for half in halves]))


@pytest.mark.parametrize(("ends", "found"), [(0, (1, 2, 3)), (2, None), (1, (3,))])
def test_revealed_labels_are_made_for_the_ends_that_are_learned_from(chooser, ends, found):
    source = simulated(fresh(chooser[1], "revealed"), 32, 1, ends)
    drawn = {shots.ends for index in range(4) for shots in source.chunk(index)}
    assert drawn == {found} if found else drawn == {(1, 3), (2, 3)}


def test_where_nobody_is_chosen_it_is_said(chooser, monkeypatch):
    monkeypatch.setattr(chosen, "BARREN", 3)
    for labels in ("sampled", "revealed"):
        data = fresh(chooser[1], labels, unsure=Unsure(network=chooser[1], below=1e-9, others=0.0))
        with pytest.raises(SyndistillError, match="choose less strictly"):
            simulated(data, 8, 1).chunk(0)


def test_a_student_learns_from_fresh_unsure_shots(chooser, small, tmp_path, teacher_file):
    _, path = chooser
    run = StudentRun(
        network=dials_of({"family": "flat_gru", "distance": 3, "width": 8, "readout_width": 8}),
        teacher=teacher_file(),
        data=fresh(path, "revealed"),
        terms=Terms(labels=LabelTerm(where="every"), final=FinalTerm(weight=0.0)),
        training=TrainingConfig(steps=3, batch_size=16, threads=1),
    )
    assert train_student(run, tmp_path / "run").is_file()
    (tmp_path / "run/student.safetensors").unlink()
    save_network(Path(path), small("flat_gru", seed=5), {})  # another network behind the same name
    with pytest.raises(SyndistillError, match="unsure"):
        train_student(run, tmp_path / "run")


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
        data_of(path, cached_shots=0)  # cached_ends=last
    parts = data_of(path).simulated.model_copy(update={"part_rounds": 1})
    with pytest.raises(ValueError, match="and unsure out"):
        data_of(path, cached_shots=0, cached_ends="every", simulated=parts)
    with pytest.raises(ValueError, match="leave unsure out"):
        data_of(path, cached_shots=0, cached_ends="every", recorded=Recorded(folders=("f",), shots=1))
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
