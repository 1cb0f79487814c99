"""A reference decoder beside a network as one Teacher: its votes are matching's, its weights those of the least NLL."""

import json
from dataclasses import asdict

import numpy as np
import pytest
import stim
import torch

from syndistill.circuits.experiment import Experiment
from syndistill.circuits.placement import place_experiment
from syndistill.decoders.matching import MatchingDecoder
from syndistill.distill.cache.source import StudentData, cache_key, simulated
from syndistill.distill.signals.ensemble import teacher_named
from syndistill.distill.signals.reference import ReferenceTeacher
from syndistill.distill.student import StudentRun, train_student
from syndistill.distill.terms import FinalTerm, LabelTerm, Terms
from syndistill.errors import SyndistillError
from syndistill.evaluation.gate import decoder_of
from syndistill.models.networks import load_network, save_network
from syndistill.sampling.stored import dem_of_circuit
from syndistill.training.changes import validated
from syndistill.training.config import Curriculum, DataConfig, RoundsPhase

NAME = "student-d3,pymatching-correlated"


def data_of(rounds=(3, 5), **changes):
    curriculum = Curriculum(
        p_min=0.002, p_max=0.006, tilt=0.0, n_rates=5, rounds=(RoundsPhase(from_shots=0, rounds=rounds),)
    )
    return DataConfig(**{"distance": 3, "bases": ("x", "z"), "curriculum": curriculum, **changes})


def shots_of(data, chunk=0):
    return [s.only_last_end() for s in simulated(StudentData(simulated=data), 256, 5).chunk(chunk)]


def flips(dem, bits):
    """PyMatching by itself, on Stim's bits."""
    return MatchingDecoder(dem, correlated=True)._matching.decode_batch(bits, enable_correlations=True)[:, 0]


def test_its_vote_is_that_of_matching_made_for_the_middle_rate():
    data = data_of()
    teacher = ReferenceTeacher("pymatching-correlated", data)
    seen = set()
    for shots in shots_of(data)[:4] + shots_of(data, 1)[:4]:
        experiment = Experiment(3, shots.rounds, shots.basis, "si1000", 0.004)
        placed = place_experiment(experiment)
        slices = torch.cat([shots.events_BRS, shots.last_BKS], 1).numpy()
        expected = flips(dem_of_circuit(experiment.circuit()), slices[:, placed.slice_N, placed.stabiliser_N])
        found = teacher.logits(shots)
        assert found.shape == (256, 1, 3, 1)
        assert torch.equal(found[..., 0, 0].flatten(), 2.0 * torch.from_numpy(expected) - 1)
        wrong = (expected != shots.labels_BKLO[:, -1, 0, 0].numpy()).mean()
        assert wrong < 0.15  # 5 rounds at p=.006: .13; half where a label were of another line or basis
        seen.add((shots.basis, shots.rounds))
    assert len(seen) >= 2


@pytest.mark.parametrize("told", ["as it is", "mirrored", "another line"])
def test_an_own_file_s_observable_is_turned_to_line_0(told, tmp_path):
    """Where a file's observable is another line, or it lies the other way round, the vote is still of line 0: matching
    errs as often as on the file itself. 4,096 shots; 6 standard deviations are .026."""
    circuit = stim.Circuit.generated(
        "surface_code:rotated_memory_z", distance=3, rounds=3, after_clifford_depolarization=0.01,
        before_measure_flip_probability=0.02,
    )  # fmt: skip
    if told == "another line":
        *before, _ = str(circuit).splitlines()
        circuit = stim.Circuit("\n".join([*before, "OBSERVABLE_INCLUDE(0) rec[-4] rec[-5] rec[-6]"]))
    if told == "mirrored":
        circuit = _mirrored(circuit)
    file = tmp_path / "mine.stim"
    file.write_text(str(circuit))
    own = {"noise": "files", "files": (str(file),), "bases": ("x",)}  # Stim's z is the layout's x
    phases = (RoundsPhase(from_shots=0, rounds=(3,)),)
    curriculum = Curriculum(p_min=1.0, p_max=1.0, tilt=0.0, n_rates=2, rounds=phases)
    data = DataConfig(distance=3, curriculum=curriculum, **own)
    teacher = ReferenceTeacher("pymatching-correlated", data)
    shots = teacher.fit_shots("x", 3)
    said = teacher.logits(shots)[:, -1, 0, 0] > 0
    wrong = (said.numpy() != shots.labels_BKLO[:, -1, 0, 0].numpy()).mean()
    bits, label = circuit.compile_detector_sampler(seed=5).sample(4_096, separate_observables=True)
    alone = (flips(dem_of_circuit(circuit), bits.astype(np.uint8)) != label[:, 0]).mean()
    assert 0.02 < alone < 0.2
    assert abs(wrong - alone) < 0.026


def _mirrored(circuit):
    """Left for right: coordinates alone change."""
    text = []
    for line in str(circuit.flattened()).splitlines():
        if line.startswith(("QUBIT_COORDS", "DETECTOR")) and "(" in line:
            head, rest = line.split("(", 1)
            numbers, tail = rest.split(")", 1)
            x, *others = numbers.split(",")
            line = f"{head}({6 - float(x)},{','.join(others)}){tail}"
        text.append(line)
    return stim.Circuit("\n".join(text))


def test_weights_are_of_the_least_nll_and_of_each_kind_of_shots():
    data = data_of()
    teacher = teacher_named(NAME, data=data)
    shots = shots_of(data)[0]
    weights = teacher.weights(shots.basis, shots.rounds)
    network, matching = teacher.members
    expected = weights[0] * network.logits(shots) + weights[1] * matching.logits(shots)
    torch.testing.assert_close(teacher.logits(shots), expected)
    fit = teacher.members[1].fit_shots(shots.basis, 5)  # the longest, with every shorter experiment
    fit = fit.cut_at([shots.rounds - 1])
    label = fit.labels_BKLO[:, -1, 0, 0].double()
    logits = torch.stack([member.logits(fit)[:, -1, 0, 0].double() for member in teacher.members])

    def loss(by):
        return torch.nn.functional.softplus((1 - 2 * label) * torch.tensordot(by, logits, 1)).mean()

    best = loss(weights.double())
    for k in range(2):
        for step in (-0.1, 0.1):
            other = weights.double().clone()
            other[k] = max(0.0, other[k] + step)
            assert loss(other) >= best - 1e-6
    assert teacher.weights("x", 3) is not teacher.weights("z", 3)


def test_a_student_that_is_a_member_goes_on_and_no_other_one(tmp_path):
    network, header = load_network("student-d3")
    other = tmp_path / "other.safetensors"
    with torch.no_grad():
        next(network.parameters()).add_(0.01)
    save_network(other, network, header | {"teacher_hash": "0" * 64})
    terms = Terms(labels=LabelTerm(weight=0.1), final=FinalTerm())
    training = {"steps": 2, "batch_size": 64, "seed": 1, "threads": 1}
    run = {
        "network": asdict(network.config), "teacher": f"teacher-d3,{NAME}", "start_from": "student-d3",
        "data": {"simulated": data_of((3,)).model_dump(mode="json"), "cached_shots": 0}, "terms": terms.model_dump(),
        "training": training,
    }  # fmt: skip
    member = validated(StudentRun, run, "t")
    saved = load_network(train_student(member, tmp_path / "run"))[1]
    assert saved["teacher_hash"] == teacher_named(member.teacher, data=member.data.simulated).key()
    stranger = validated(StudentRun, run | {"start_from": str(other)}, "t")
    with pytest.raises(SyndistillError, match="the Student of another Teacher"):
        train_student(stranger, tmp_path / "stranger")


def test_the_key_is_of_the_noise_too():
    one, same, other = (teacher_named(NAME, data=d) for d in (data_of(), data_of(), data_of((3, 5, 9))))
    assert one.key() == same.key() != other.key()
    data = StudentData(simulated=data_of(), cached_shots=256)
    assert cache_key(data, one) != cache_key(data, teacher_named("student-d3"))


def test_it_is_judged_as_a_decoder():
    experiment = Experiment(3, 3, "z", "si1000", 0.004)
    dem = dem_of_circuit(experiment.circuit())
    decoder = decoder_of(teacher_named(NAME, data=data_of()), place_experiment(experiment), dem)
    assert decoder.gives_probabilities
    assert len(decoder.weights_M) == 2


@pytest.mark.parametrize(("name", "data", "said"), [
    (NAME, None, "is made for its shots' noise"),
    ("pymatching,student-d3", data_of(), "begins with pymatching; name a network first"),
    ("student-d3,pymatching", data_of(bases=("both",)), "answers for bases x and z"),
])  # fmt: skip
def test_what_cannot_teach_is_refused_in_one_line(name, data, said):
    with pytest.raises(SyndistillError, match=said) as error:
        teacher_named(name, data=data)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("noise", ["named", "own"])
def test_every_end_is_the_experiment_that_ended_there(noise, tmp_path):
    """Of every line: as often wrong as matching on that shorter experiment's own circuit. 8,192 shots; 6 standard
    deviations of a difference are at most .03."""
    file = tmp_path / "mine.stim"  # its model of 5 rounds alone says what 1, 2, 3 and 4 have
    file.write_text(str(Experiment(3, 5, "x", "si1000", 0.004).circuit()))
    p, own = (1.0, {"noise": "files", "files": (str(file),)}) if noise == "own" else (0.004, {})
    phases = (RoundsPhase(from_shots=0, rounds=(5,)),)
    curriculum = Curriculum(p_min=p, p_max=p, tilt=0.0, n_rates=2, rounds=phases)
    data = data_of(curriculum=curriculum, bases=("x",), **own)
    teacher = ReferenceTeacher("pymatching-correlated", data)
    shots = teacher.fit_shots("x", 5)
    said_BKL = teacher.logits(shots)[..., 0] > 0
    assert said_BKL.shape == (8_192, 5, 3)
    wrong_KL = (said_BKL.numpy() != shots.labels_BKLO[..., 0].numpy()).mean(0)
    for end in range(1, 6):
        dem = dem_of_circuit(Experiment(3, end, "x", "si1000", 0.004).circuit())
        bits, label, _ = dem.compile_sampler(seed=end).sample(8_192)
        alone = (flips(dem, bits.astype(np.uint8)) != label[:, 0]).mean()
        assert 0.003 < alone < 0.15
        # lines differ by what the shot shows, so that they are wrong together
        assert wrong_KL[end - 1].max() == wrong_KL[end - 1].min()
        assert abs(wrong_KL[end - 1, 0] - alone) < 6 * np.sqrt(2 * alone / 8_192)


def test_a_student_learns_from_it_at_every_end(tmp_path):
    terms = Terms(labels=LabelTerm(weight=0.1, where="every"), final=FinalTerm(where="every"))
    run = {
        "network": asdict(load_network("student-d3")[0].config), "teacher": NAME, "start_from": "student-d3",
        "data": {"simulated": data_of((3,)).model_dump(mode="json"), "cached_shots": 0}, "terms": terms.model_dump(),
        "training": {"steps": 3, "batch_size": 64, "seed": 1, "threads": 1, "log_every": 1},
    }  # fmt: skip
    train_student(validated(StudentRun, run, "t"), tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert all(0 < row["final"] < 0.1 for row in rows)  # a vote apart from the Student itself


def test_probabilities_are_taken_as_they_are():
    """Of a reference that gives them there is nothing to fit: the mean, as of networks."""
    data = data_of((3,))
    teacher = teacher_named("student-d3,optimal", data=data)
    shots = shots_of(data)[0].take(slice(0, 32))
    network, optimal = teacher.members
    mean = (network.logits(shots) + optimal.logits(shots)) / 2
    torch.testing.assert_close(teacher.logits(shots), mean)
    agree = (optimal.logits(shots)[:, 0, 0, 0] > 0) == (network.logits(shots)[:, -1, 0, 0] > 0)
    assert agree.float().mean() > 0.8  # of 32 shots
    with pytest.raises(SyndistillError, match="equal weights"):
        teacher.weights("z", 3)
