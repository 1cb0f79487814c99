"""Shots of own circuits: their ends have the odds of circuits that end there, and their labels the exact posterior's.

Statistical bounds are 6 standard deviations, 2e-9 for each of fewer than 300 comparisons: a false alarm in less than
6e-7 of runs.
"""

import numpy as np
import pytest
import stim
from tests.circuits.test_memory_model import generated
from tests.sampling.recordings import make_recording

from syndistill.circuits.experiment import Experiment
from syndistill.circuits.placement import place
from syndistill.errors import SyndistillError
from syndistill.sampling.exact_labels import with_exact_labels
from syndistill.sampling.own_files import own_noise
from syndistill.sampling.own_noise import simulate_own
from syndistill.sampling.revealed_labels import revealed_shots
from syndistill.sampling.shots import shots_from_detectors
from syndistill.training.config import Curriculum, DataConfig, RoundsPhase
from syndistill.training.source import data_hashes, signature, simulated_source

SIGMAS = 6


def written(tmp_path, *rounds, basis="z", dem=False):
    paths = []
    for r in rounds:
        circuit = generated(basis, r)
        path = tmp_path / f"{basis}{r}.{'dem' if dem else 'stim'}"
        path.write_text(str(circuit.detector_error_model(decompose_errors=True) if dem else circuit))
        paths.append(str(path))
    return paths


def means(shots):
    """Rates of events, of the closing slice, of labels, and of labels that agree with a closing bit."""
    last = shots.last_BKS[:, -1].double()
    labels = shots.labels_BKLO[:, -1, :, 0].double()
    both = (labels[:, :, None] * last[:, None]).flatten(1)
    return np.concatenate([part.flatten(1).double().mean(0) for part in (shots.events_BRS, last, labels, both)])


@pytest.mark.parametrize("end", [1, 2, 5])
def test_every_end_has_the_odds_of_a_circuit_that_ends_there(tmp_path, end):
    memory = own_noise(written(tmp_path, 5)).memory("x", 5)
    n = 40_000
    shots = simulate_own(memory, n, 1).at_ends([end - 1])
    one = own_noise(written(tmp_path, end if end > 1 else 5)).memory("x", end)
    detectors_BN, flips_BO, _ = one.model().dem().compile_sampler(seed=2).sample(n)
    other = shots_from_detectors(detectors_BN, one.model().placement(), flips_BO)
    ours, theirs = means(shots), means(other)
    ours = np.concatenate([ours[: end * 8], ours[5 * 8 :]])  # its rounds alone
    spread = np.sqrt(2 * np.maximum(theirs * (1 - theirs), 1e-3) / n)
    assert (np.abs(ours - theirs) / spread).max() < SIGMAS


def test_exact_labels_are_the_odds_of_the_drawn_ones_at_every_end_and_line(tmp_path):
    for rounds, files in ((7, written(tmp_path, 7)), (4, written(tmp_path, 4, dem=True)), (9, written(tmp_path, 6))):
        memory = own_noise(files).memory("x", rounds)
        shots = with_exact_labels(simulate_own(memory, 20_000, 3), memory)
        soft, drawn = shots.posterior_BKLP[..., 1].double(), shots.labels_BKLO[..., 0].double()
        off = (drawn - soft).mean(0) / (soft * (1 - soft)).mean(0).div(len(shots)).sqrt()
        assert off.abs().max() < SIGMAS
        sure = (soft - 0.5).abs().mean()
        assert sure > 0.4  # odds of a decoder that sees the shot, not of one that guesses


def test_revealed_labels_are_unbiased_for_own_circuits(tmp_path):
    pytest.importorskip("numba")
    memory = own_noise(written(tmp_path, 5)).memory("x", 4)
    shots = revealed_shots(memory, 6_000, 5, ends=(1, 2, 4))
    soft, drawn = shots.posterior_BKLP[..., 1].double(), shots.labels_BKLO[..., 0].double()
    off = (drawn - soft).mean(0) / (soft * (1 - soft)).mean(0).div(len(shots)).sqrt()
    assert off.abs().max() < SIGMAS


def config(files, **changed):
    said = {
        "distance": 3, "noise": "files", "files": tuple(files), "bases": ("x",),
        "curriculum": Curriculum(p_min=0.8, p_max=1.25, rounds=(RoundsPhase(from_shots=0, rounds=(3,)),)),
    }  # fmt: skip
    return DataConfig(**(said | changed))


def test_a_source_of_own_shots_repeats_itself_and_knows_its_files(tmp_path):
    data = config(written(tmp_path, 5), labels="exact")
    first, again = (simulated_source(data, 16, 4).chunk(2)[1] for _ in range(2))
    assert first.events_BRS.equal(again.events_BRS)
    assert first.posterior_BKLP.equal(again.posterior_BKLP)
    before = data_hashes(data)
    assert before == data_hashes(config(written(tmp_path, 5)))
    path = tmp_path / "z6.stim"
    path.write_text(str(generated("z", 5, flip=0.03)))
    assert data_hashes(config([str(path)])) != before
    home = signature(data)
    assert (home.p_min, home.p_max, home.rounds, home.distance) == (0.8, 1.25, 3, 3)
    fit = place(generated("z", 7), home).fit
    assert fit is not None
    assert fit.share > 0.999
    assert fit.p == pytest.approx(1.0, rel=0.05)  # its own rates, once
    assert fit.nats < 0.15  # no cause for a warning


def test_patches_of_a_chip_take_turns(tmp_path):
    """Two patches of unlike noise, told apart by how often detectors fire: each has half of every batch."""
    files = [
        str(make_recording(tmp_path / f"surface_code_bX_d3_r02_center_{3 + m}_{3 + m}", moved=m, flip=flip))
        for m, flip in ((0, 0.01), (2, 0.2))
    ]
    own = own_noise(files)
    assert len(own.patches) == 2
    assert own.rounds == (2,)
    assert own.sha256 != own_noise(files[:1]).sha256
    own_curriculum = config(files).curriculum.model_copy(update={"rounds": (RoundsPhase(from_shots=0, rounds=(2,)),)})
    data = config(files, curriculum=own_curriculum, bases=own.bases, labels="exact")
    rates = [own.memory(own.bases[0], 2, patch=patch) for patch in range(2)]
    calm, loud = (float(simulate_own(memory, 4_000, 1).events_BRS.float().mean()) for memory in rates)
    assert loud > 5 * calm
    for batch in simulated_source(data, 256, 4).chunk(0)[:4]:
        assert float(batch.events_BRS.float().mean()) == pytest.approx((calm + loud) / 2, rel=0.25)
    assert place(own.dems[1, own.bases[0], 2][0], signature(data)).fit.share > 0.999


@pytest.mark.parametrize(("make", "said"), [
    (lambda t: [*written(t, 3), *written(t, 3, dem=True)], "second memory of basis"),
    (lambda t: [*written(t, 3), write(t / "five.stim", generated("z", 5, 5))], "distances 3 .*, 5"),
    (lambda t: [write(t / "r.stim", stim.Circuit.generated("repetition_code:memory", distance=3, rounds=3))], "r.stim"),
    (lambda t: [str(t / "absent.stim")], "absent.stim"),
    (lambda t: [write(t / "two.stim", Experiment(3, 2, "both", "si1000", 0.004).circuit())], "two.stim: .*two obs"),
])  # fmt: skip
def test_what_is_no_memory_is_told_by_name(tmp_path, make, said):
    with pytest.raises(SyndistillError, match=said):
        own_noise(make(tmp_path))


def write(path, circuit):
    path.write_text(str(circuit))
    return str(path)
