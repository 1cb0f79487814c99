"""The cache of Teacher logits: precision, resume, refusals, order; and the cut to fewer rounds."""

import json

import numpy as np
import pymatching
import pytest
import torch
from scipy.stats import fisher_exact

from syndistill.circuits.experiment import Experiment
from syndistill.circuits.placement import place
from syndistill.distill.cache.source import CachedSource, LiveSource, cache_key, simulated
from syndistill.distill.cache.store import CacheKey, write_cache
from syndistill.distill.signals.teacher import FrozenTeacher, TaughtShots, cut
from syndistill.errors import SyndistillError
from syndistill.models.networks import weights_hash
from syndistill.recipes import recipe
from syndistill.safe_files import unsealed
from syndistill.sampling.shots import simulate
from syndistill.sampling.stored import StoredShots, dem_of_circuit
from syndistill.sampling.stream import SimulatedSource
from syndistill.training.config import Curriculum, RoundsPhase

from ..reporting import Stopping

BATCH, BATCHES, CHUNKS = 16, 4, 3


def source(bases=("x", "z"), rounds=3):
    curriculum = Curriculum(p_min=0.004, p_max=0.01, rounds=(RoundsPhase(from_shots=0, rounds=(rounds,)),))
    return SimulatedSource(3, "si1000", bases, curriculum, BATCH, seed=5, batches_per_chunk=BATCHES)


def key_of(frozen, **changes):
    return CacheKey(**{"teacher": weights_hash(frozen.network), "shots": {"seed": 5}, "circuits": "c"} | changes)


@pytest.fixture
def cache(tmp_path, teacher):
    write_cache(tmp_path / "cache", key_of(teacher), teacher, source(), CHUNKS)
    return tmp_path / "cache"


def batches(folder, teacher, seed=1, count=12, **options):
    stream = CachedSource(folder, key_of(teacher), BATCH, seed, **options)
    per = stream.batches_per_chunk
    return [t for i in range(-(-count // per)) for t in stream.chunk(i)][:count]


def events_of(taught):
    return taught.shots.events_BRS.flatten(1).numpy()


@pytest.mark.parametrize("output", ["two_channel", "joint4"])
def test_round_trip(tmp_path, small, output):
    teacher = FrozenTeacher(small("transformer", output, seed=7))
    bases = ("both",) if output == "joint4" else ("x", "z")
    write_cache(tmp_path / "cache", key_of(teacher), teacher, source(bases), CHUNKS)
    found = batches(tmp_path / "cache", teacher)
    assert {t.shots.basis for t in found} == set(bases)
    for taught in found:
        live = teacher.logits(taught.shots)
        # float16: a relative step of 2^-11
        torch.testing.assert_close(taught.teacher_BKLC, live, rtol=2**-11, atol=1e-6)
        assert taught.teacher_BKLC.dtype == torch.float32

    def rows(all_shots):
        parts = [
            torch.cat([s.events_BRS.flatten(1), s.last_BKS.flatten(1), s.labels_BKLO.flatten(1)], 1) for s in all_shots
        ]
        return sorted(map(bytes, torch.cat(parts).numpy()))

    written = [shots for i in range(CHUNKS) for shots in source(bases).chunk(i)]
    # one epoch holds exactly the shots of the source, labels and last slices included
    assert rows([t.shots for t in found]) == rows(written)


def test_a_half_written_cache_goes_on(tmp_path, teacher, cache):
    class Killed(Exception):
        pass

    folder = tmp_path / "half"
    with pytest.raises(Killed):
        write_cache(folder, key_of(teacher), teacher, source(), CHUNKS, Stopping("Teacher's answers", 2, Killed))
    with pytest.raises(SyndistillError, match="no finished cache"):
        batches(folder, teacher)
    with pytest.raises(SyndistillError, match="half-written cache of something else"):
        write_cache(folder, key_of(teacher, circuits="other"), teacher, source(), CHUNKS)
    asked = []
    real = source()

    class Counting:
        batches_per_chunk = real.batches_per_chunk

        def chunk(self, index):
            asked.append(index)
            return real.chunk(index)

    write_cache(folder, key_of(teacher), teacher, Counting(), CHUNKS)
    assert asked == [2]
    for a, b in zip(batches(folder, teacher), batches(cache, teacher), strict=True):
        assert torch.equal(a.teacher_BKLC, b.teacher_BKLC)
        assert torch.equal(a.shots.events_BRS, b.shots.events_BRS)


@pytest.mark.parametrize("change", [{"teacher": "0" * 64}, {"circuits": "other"}, {"shots": {"seed": 6}}])
def test_a_cache_of_something_else_is_refused(cache, teacher, change):
    (name,) = change
    with pytest.raises(SyndistillError, match=f"another {name}"):
        CachedSource(cache, key_of(teacher, **change), BATCH, 1)


def test_a_damaged_cache_is_refused(cache, teacher):
    shard = sorted(cache.glob("shard-*"))[0]
    whole = shard.read_bytes()
    for broken in (whole[:-8], whole[:-1] + bytes([whole[-1] ^ 1])):
        shard.write_bytes(broken)
        with pytest.raises(SyndistillError, match="damaged"):
            CachedSource(cache, key_of(teacher), BATCH, 1)
    shard.unlink()
    with pytest.raises(SyndistillError, match="missing"):
        CachedSource(cache, key_of(teacher), BATCH, 1)
    shard.write_bytes(whole)
    CachedSource(cache, key_of(teacher), BATCH, 1)
    manifest = cache / "manifest.json"
    text = manifest.read_text()
    other = json.dumps(unsealed(json.loads(text)) | {"shards": [{"name": "../x"}]})
    for damage in (text[:-20], text.replace('"rounds": 3', '"rounds": 2'), "[]", other, ""):
        manifest.write_text(damage)
        with pytest.raises(SyndistillError, match="damaged"):
            CachedSource(cache, key_of(teacher), BATCH, 1)


def test_another_format_and_too_few_shots_are_refused(cache, teacher):
    with pytest.raises(SyndistillError, match="fewer shots than one batch"):
        CachedSource(cache, key_of(teacher), 10_000, 1)
    manifest = cache / "manifest.json"
    manifest.write_text(json.dumps(unsealed(json.loads(manifest.read_text())) | {"format": 99}))
    with pytest.raises(SyndistillError, match="format 99"):
        CachedSource(cache, key_of(teacher), BATCH, 1)


def test_foreign_files_are_left_alone(tmp_path, teacher):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")
    with pytest.raises(SyndistillError, match="not empty"):
        write_cache(folder, key_of(teacher), teacher, source(), CHUNKS)
    assert [p.name for p in folder.iterdir()] == ["thesis.txt"]


def test_the_seed_fixes_the_batches(cache, teacher):
    once, again, other = (batches(cache, teacher, seed=s, count=20) for s in (1, 1, 2))
    for a, b in zip(once, again, strict=True):
        assert np.array_equal(events_of(a), events_of(b))
        assert torch.equal(a.teacher_BKLC, b.teacher_BKLC)
    assert any(not np.array_equal(events_of(a), events_of(b)) for a, b in zip(once, other, strict=True))
    # a resumed run begins at a later chunk and sees what it would have seen; the second epoch has another order
    resumed = CachedSource(cache, key_of(teacher), BATCH, 1)
    late = resumed.chunk(1)[0]
    assert np.array_equal(events_of(late), events_of(batches(cache, teacher, count=17)[16]))
    assert not np.array_equal(events_of(once[0]), events_of(once[12]))


def test_batches_are_cut_to_drawn_rounds(cache, teacher):
    found = batches(cache, teacher, count=48, cut_rounds=(1, 3))
    assert {t.shots.rounds for t in found} == {1, 3}
    assert all(t.shots.ends == (t.shots.rounds,) and t.teacher_BKLC.shape[1] == 1 for t in found)


@pytest.mark.parametrize("basis", ["x", "z", "both"])
def test_a_cut_shot_says_what_that_end_said(small, basis):
    """A network that reads the cut shot gives the full history's logits of that end."""
    network = small("transformer", seed=7).eval()
    shots = simulate(Experiment(3, 5, basis, "si1000", 0.01), 64, seed=2)
    full = network(shots).logits_BKLC
    for rounds in (1, 3, 5):
        shorter = cut(TaughtShots(shots, full), rounds)
        torch.testing.assert_close(network(shorter.shots).logits_BKLC, full[:, [rounds - 1]], atol=1e-5, rtol=1e-4)
        assert torch.equal(shorter.teacher_BKLC, full[:, [rounds - 1]])
        assert torch.equal(shorter.shots.labels_BKLO, shots.labels_BKLO[:, [rounds - 1]])


def test_a_cut_shot_is_a_shot_of_the_shorter_circuit():
    """PyMatching for the 2-round circuit errs equally often on its own shots and on cut ones.

    Fisher's exact test at 1e-7, detection rates at 5.5 standard deviations for 16 detectors: false alarm < 1e-6 in all.
    """
    n = 20_000
    circuit = Experiment(3, 2, "z", "si1000", 0.006).circuit()
    matching = pymatching.Matching.from_detector_error_model(dem_of_circuit(circuit))
    placement = place(circuit)
    shots = cut(TaughtShots(simulate(Experiment(3, 5, "z", "si1000", 0.006), n, seed=4), None), 2).shots
    slices_BTS = torch.cat([shots.events_BRS, shots.last_BKS], 1).numpy()
    cut_BN = slices_BTS[:, placement.slice_N, placement.stabiliser_N].astype(bool)
    real = StoredShots.sample(circuit, n, seed=9)
    (line,) = placement.lines
    errors = [
        int((matching.decode_batch(bits)[:, 0].astype(bool) != labels.astype(bool)).sum())
        for bits, labels in (
            (cut_BN, shots.labels_BKLO[:, 0, line, 0].numpy()),
            (real.detectors(), real.observables()[:, 0]),
        )
    ]
    assert fisher_exact([[errors[0], n - errors[0]], [errors[1], n - errors[1]]]).pvalue > 1e-7
    rates = np.stack([cut_BN.mean(0), real.detectors().mean(0)])
    spread = np.sqrt(2 * rates.mean(0) * (1 - rates.mean(0)) / n)
    assert (np.abs(rates[0] - rates[1]) < 5.5 * spread).all()


def test_the_key_of_named_noise_knows_no_later_option(teacher):
    """Caches from before an option would be thrown away for its default."""
    said = cache_key(recipe("baseline-tiny").data, teacher).shots["simulated"]
    assert said.keys() == {"distance", "noise", "bases", "labels", "ends", "end_spacing", "curriculum"}
    assert said["curriculum"].keys() == {
        "p_min", "p_max", "rounds", "tilt", "noise_weight", "noise_width", "noise_midpoint", "rates_per_chunk",
        "n_rates",
    }  # fmt: skip


def test_live_batches_are_numbered_on(stage1_run):
    """From chunk to chunk: weights that fade go by the number."""
    source = LiveSource(simulated(stage1_run().data, 32, 1), ())
    numbers = [taught.number for index in range(2) for taught in source.chunk(index)]
    assert numbers == list(range(2 * source.batches_per_chunk))
