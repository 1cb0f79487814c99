"""A Student for a circuit of one's own: one command, whatever the file, and one line for what can't be."""

import re
from dataclasses import replace
from functools import partial

import pytest
import stim
from tests.circuits.test_memory_model import generated
from tests.command_line import refused
from tests.reporting import Heard, Stopping
from tests.sampling.recordings import make_recording

from syndistill.circuits.experiment import Experiment
from syndistill.errors import SyndistillError
from syndistill.evaluation.subject import Subject
from syndistill.files.network_file import read_header
from syndistill.models.networks import build, load_network, save_network
from syndistill.runs import own, own_plan, own_steps
from syndistill.runs.own import distil_own, recordings_of
from syndistill.runs.own_plan import Asked, OwnRun, lasting, run_of
from syndistill.runs.own_steps import with_steps
from syndistill.sampling.own_files import own_noise

STEPS = (
    "student.training.steps=12", "student.training.batch_size=32", "student.data.simulated.curriculum.n_rates=2",
)  # fmt: skip


def written(path, circuit):
    path.write_text(str(circuit))
    return str(path)


def asked(*files, **said):
    return Asked(files=files, **{"changes": STEPS, "shots": 1_000, **said})


@pytest.mark.parametrize("kind", ["circuit", "models"])
def test_from_files_to_a_judged_student_and_again(tmp_path, kind):
    if kind == "circuit":
        files = [written(tmp_path / f"{basis}.stim", generated(basis, 4)) for basis in "xz"]
    else:
        models = {r: generated("z", r).detector_error_model(decompose_errors=True) for r in (3, 5)}
        files = [written(tmp_path / f"{r}.dem", model) for r, model in models.items()]
    wanted, out = asked(*files), tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        distil_own(wanted, out, Stopping("labels alone", 8))
    found = distil_own(wanted, out, Heard())
    assert list(found.judged) == files
    for comparison in found.judged.values():
        assert [row.shots for row in comparison.rows] == [1_000] * 5
        assert not comparison.left_out
    said = read_header(str(found.student)).metadata
    assert said["training_noise"]["noise"] == ", ".join(path.rpartition("/")[2] for path in files)
    assert "This Student errs on" in found.verdict
    report = (out / "report.html").read_text()
    assert "data:image/png;base64," in report
    assert "student.safetensors" in report
    heard = Heard()
    assert distil_own(wanted, out, heard).verdict == found.verdict  # nothing is trained or decoded anew
    assert "labels alone" not in heard.totals
    with pytest.raises(SyndistillError, match=r"other files or options \(shots 1000\)"):
        distil_own(wanted.model_copy(update={"shots": 2_000}), out)


def test_a_teacher_is_tuned_gated_and_asked(tmp_path, monkeypatch):
    monkeypatch.setattr(own, "judge_tuning", partial(own.judge_tuning, shots=1_000))  # in place of 20,000 each
    monkeypatch.setattr(own, "distil_gated", partial(own.distil_gated, gate_shots=1_000))
    files = [written(tmp_path / "mine.stim", generated("z", 3))]
    changes = (
        *STEPS, "teacher.training.steps=2", "teacher.training.batch_size=16", "teacher.training.precision=fp32",
        "student.data.cached_shots=4096", "student.teacher_precision=fp32",
    )  # fmt: skip
    heard = Heard()
    found = distil_own(asked(*files, teacher="teacher-d3", changes=changes), tmp_path / "out", heard, True)
    (said,) = [line for line in heard.said if "on select shots" in line]
    assert re.search(r"LER 0\.\d{4} against 0\.\d{4} on select shots \(p = .*\); the optimum errs on 0\.\d{4}$", said)
    assert any("the gate" in line or "the Teacher passes" in line for line in heard.said)
    names = [row.decoder for row in found.judged[files[0]].rows]
    kept = any("is better and kept" in line for line in heard.said)
    assert ("teacher-d3" in names, str(tmp_path / "out" / "teacher.safetensors") in names) == (True, kept)
    said = read_header(str(found.student)).metadata["run"]
    assert said["terms"]["final"]["weight"] == 1.0
    assert said["data"]["cached_shots"] == 4096


def test_a_list_teaches_as_it_is(tmp_path, monkeypatch):
    """The Student's own weights and matching on this circuit: nothing is tuned, the list is judged beside the rest."""
    monkeypatch.setattr(own, "distil_gated", partial(own.distil_gated, gate_shots=1_000))
    files = [written(tmp_path / "mine.stim", generated("z", 3))]
    teacher = "student-d3-frame,pymatching-correlated"
    changes = (*STEPS, "student.teacher_precision=fp32")
    wanted = asked(*files, student="student-d3-frame", teacher=teacher, changes=changes)
    found = distil_own(wanted, tmp_path / "out", Heard(), True)
    assert teacher in [row.decoder for row in found.judged[files[0]].rows]
    assert not (tmp_path / "out" / "teacher").exists()
    said = read_header(str(found.student)).metadata["run"]
    final = said["terms"]["final"]
    assert (said["teacher"], final["weight"], final["where"]) == (teacher, 1.0, "every")
    with pytest.raises(SyndistillError, match="Student of another Teacher than teacher-d3,pymatching"):
        distil_own(asked(*files, student=str(found.student), teacher="teacher-d3,pymatching"), tmp_path / "again")


@pytest.mark.parametrize(("student", "teacher", "expected"), [
    ("student-d5", "student-d5,pymatching-correlated", (True, "fp32")),
    ("student-d5", "teacher-d5,student-d5", (True, "bf16")),
    ("student-d5", None, (True, "bf16")),
])  # fmt: skip
def test_what_is_faster_here_is_taken(tmp_path, student, teacher, expected):
    """A local GRU's rounds compiled, in training and as a Teacher."""
    files = [written(tmp_path / "mine.stim", generated("z", 5, 5))]
    run = run_of(asked(*files, student=student, teacher=teacher), own_noise(files)).student
    assert (run.training.compile, run.teacher_precision) == expected


@pytest.mark.parametrize(("distance", "teacher", "chosen"), [
    (5, None, "student-d5"), (5, "student-d5,pymatching", "student-d5"), (3, None, None), (3, "teacher-d3", None),
])  # fmt: skip
def test_costly_labels_are_for_shots_that_the_student_is_not_sure_of(tmp_path, distance, teacher, chosen):
    files = [written(tmp_path / "mine.stim", generated("z", 5, distance))]
    student = "student-d5" if distance == 5 else None
    data = run_of(asked(*files, teacher=teacher, student=student), own_noise(files)).student.data
    assert (data.unsure.network if data.unsure else None) == chosen


@pytest.mark.parametrize(("rounds", "asked_for", "start", "taught"), [
    (5, (), "student-d5", 5),
    (25, (), "student-d5-frame", 15),
    (25, (5,), "student-d5", 5),
    (25, (25,), "student-d5-frame", 25),
])  # fmt: skip
def test_a_long_circuit_begins_from_the_student_for_long_ones(tmp_path, rounds, asked_for, start, taught):
    files = [written(tmp_path / "mine.stim", generated("z", rounds, 5))]
    run = run_of(asked(*files, rounds=asked_for), own_noise(files)).student
    assert (run.start_from, run.data.simulated.curriculum.longest) == (start, taught)


def test_labels_alone_go_on_from_any_teacher_s_student_and_say_whose_it_is(tmp_path):
    """The shipped student-d5 is one of an earlier teacher-d5; a Teacher that is not its own is refused at once."""
    files = [written(tmp_path / "mine.stim", generated("z", 3))]
    network, metadata = load_network("student-d3")
    foreign = tmp_path / "foreign.safetensors"
    save_network(foreign, network, {"run": metadata["run"], "teacher_hash": "ab" * 32})
    found = distil_own(asked(*files, student=str(foreign)), tmp_path / "out")
    assert read_header(str(found.student)).metadata["teacher_hash"] == "ab" * 32
    with pytest.raises(SyndistillError, match="Student of another Teacher than teacher-d3"):
        distil_own(asked(*files, student=str(foreign), teacher="teacher-d3"), tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_of_a_file_that_changed_the_run_is_another(tmp_path):
    path, out = tmp_path / "mine.stim", tmp_path / "out"
    written(path, generated("z", 3))
    with pytest.raises(KeyboardInterrupt):
        distil_own(asked(str(path)), out, Stopping("labels alone", 8))
    written(path, generated("z", 3, flip=0.03))
    with pytest.raises(SyndistillError, match="other files or options"):
        distil_own(asked(str(path)), out)


@pytest.mark.parametrize(("make", "said"), [
    (lambda t: [str(t / "no.stim")], "no.stim"),
    (lambda t: [written(t / "empty.stim", "H 0")], "has no detectors"),
    (lambda t: [written(t / "rep.stim", repetition())], "rep.stim"),
    (lambda t: [written(t / "moved.stim", moved())], "moved.stim"),
    (lambda t: [written(t / "quiet.stim", generated("z", 3).without_noise())], "no errors"),
    (lambda t: [written(t / "two.stim", Experiment(3, 2, "both", "si1000", 0.004).circuit())], "two observables"),
    (lambda t: [written(t / "d7.stim", generated("z", 3, 7))], "no student of distance 7 is shipped"),
])  # fmt: skip
def test_what_can_t_be_learned_is_said_before_anything_is_written(tmp_path, make, said):
    with pytest.raises(SyndistillError, match=said) as caught:
        distil_own(asked(*make(tmp_path)), tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def repetition():
    return stim.Circuit.generated("repetition_code:memory", distance=3, rounds=3, before_measure_flip_probability=0.01)


def moved():
    """One detector compares an ancilla with another one's last value."""
    lines, done = [], False
    for line in str(generated("z", 4).flattened()).splitlines():
        if line.startswith("DETECTOR") and "rec[-9]" in line and not done:
            line, done = line.replace("rec[-9]", "rec[-10]"), True
        lines.append(line)
    return "\n".join(lines)


@pytest.mark.parametrize(("options", "said"), [
    (["--circuit", "MINE", "--student", "teacher-d3"], "teacher-d3 is no Student"),
    (["--circuit", "MINE", "--student", "student-d5"], "student-d5 is of distance 5"),
    (["--circuit", "MINE", "--center", "3,5"], "are of recordings"),
    (["--circuit", "MINE", "--cache", "c"], "--cache is for recipes"),
    (["baseline-tiny", "--minutes", "3"], "--minutes is for own files"),
    (["baseline-tiny", "--distance", "3"], "--distance is for own files"),
    (["MINE"], "a file of one's own is named with --circuit MINE"),
    (["--circuit", "MINE", "--rounds", "3,x"], "is no list of numbers"),
    (["--circuit", "MINE", "--factors", "2,1"], "p_min=2.0 is above p_max=1.0"),
    (["--circuit", "MINE", "--factors", "1"], "factors.1"),
    (["--circuit", "MINE", "--set", "student.training.stps=3"], "did you mean 'steps'"),
    (["--recorded", "MINE", "--model", "rl"], "MINE"),
    (["baseline-tiny", "--circuit", "MINE"], "are two runs"),
    ([], "name a recipe or a run.json, or own files"),
])  # fmt: skip
def test_a_wrong_option_is_one_line_and_nothing_is_written(tmp_path, capsys, options, said):
    mine = written(tmp_path / "mine.stim", generated("z", 3))
    words = [mine if word == "MINE" else word for word in options]
    error = refused(capsys, "distill", *words, "--out", tmp_path / "out")
    assert said.replace("MINE", mine) in error
    assert not (tmp_path / "out").exists()


def test_longer_rounds_than_a_short_file_says_are_refused(tmp_path):
    file = written(tmp_path / "short.stim", generated("z", 3))
    with pytest.raises(SyndistillError, match="give one of 5 rounds or more"):
        distil_own(asked(file, rounds=(9,)), tmp_path / "out")
    assert not (tmp_path / "out" / "student").exists()


def test_an_error_model_alone_can_be_judged_on(tmp_path):
    file = written(tmp_path / "m.dem", generated("z", 3).detector_error_model(decompose_errors=True))
    found = Subject.from_file(file).compare(["pymatching", "optimal", "student-d3"], 2_000, 1)
    assert [row.shots for row in found.rows] == [2_000] * 3
    assert 0 < found.rows[1].errors <= found.rows[0].errors + 10


@pytest.mark.filterwarnings("ignore::syndistill.decoders.contract.FarFromTraining")  # which it is
def test_a_recording_is_learned_from_its_circuit_and_judged_on_its_shots(tmp_path):
    recording = make_recording(tmp_path / "surface_code_bX_d3_r02_center_3_3", shots=60)
    found = distil_own(asked(*recordings_of([str(recording)])), tmp_path / "out")
    (comparison,) = found.judged.values()
    names = [row.decoder for row in comparison.rows]
    assert {"pymatching@pij", "pymatching-correlated@pij", "optimal@circuit"} <= set(names)
    assert {row.shots for row in comparison.rows} == {60}


@pytest.mark.filterwarnings("ignore::syndistill.decoders.contract.FarFromTraining")  # which it is
def test_recorded_shots_are_learned_after_the_models_and_the_others_judged(tmp_path):
    """Two recordings of other lengths; killed, it goes on; the Student before these labels is judged beside."""
    folders = [
        str(make_recording(tmp_path / f"surface_code_bX_d3_r0{r}_center_3_3", shots=60, rounds=r)) for r in (2, 3)
    ]
    changes = (*STEPS, "chip.training.batch_size=8", "chip.training.steps=20", "chip.data.recorded.dev_every=4")
    wanted, out = asked(*folders, learn_shots=40, changes=changes), tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        distil_own(wanted, out, Stopping("labels alone", 16))
    heard = Heard()
    found = distil_own(wanted, out, heard)
    assert any("did best on the development shots" in line for line in heard.said)
    said = read_header(str(found.student)).metadata["run"]
    assert said["start_from"] == str(out / "student" / "student.safetensors")
    assert (said["data"]["recorded"]["folders"], said["data"]["recorded"]["shots"]) == (folders, 32)
    for comparison in found.judged.values():
        assert {row.shots for row in comparison.rows} == {20}
        names = [row.decoder for row in comparison.rows]
        assert names[-3:-1] == [str(out / "student" / "student.safetensors"), str(out / "student.safetensors")]
    assert not any("has seen the first" in line for line in heard.said)


@pytest.mark.parametrize("learned", [60, 90])
def test_shots_to_learn_are_fewer_than_there_are(tmp_path, learned):
    folder = make_recording(tmp_path / "surface_code_bX_d3_r02_center_3_3", shots=60)
    with pytest.raises(SyndistillError, match=f"--learn-shots {learned} leaves none of .* which has 60"):
        distil_own(asked(str(folder), learn_shots=learned), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("said", "least", "learned"), [(None, 60, 30), (None, 61, 0), (0, 60, 0), (40, 61, 40)])
def test_half_of_the_shots_are_learned_where_there_are_many(tmp_path, monkeypatch, said, least, learned):
    monkeypatch.setattr(own_plan, "MANY_SHOTS", least)
    folder = str(make_recording(tmp_path / "surface_code_bX_d3_r02_center_3_3", shots=60))
    assert asked(folder, learn_shots=said).learned() == learned


@pytest.mark.filterwarnings("ignore::syndistill.decoders.contract.FarFromTraining")  # which it is
def test_shots_that_do_no_good_change_nothing_and_the_run_ends(tmp_path):
    """The weights of step 0 did best: one Student is judged, not the same one twice."""
    folder = str(make_recording(tmp_path / "surface_code_bX_d3_r02_center_3_3", shots=60))
    changes = (*STEPS, "chip.training.batch_size=8", "chip.training.steps=20", "chip.training.optimiser.warmup_steps=0",
               "chip.training.optimiser.learning_rate=0.5", "chip.training.optimiser.matrix_rate=0.5")  # fmt: skip
    heard = Heard()
    found = distil_own(asked(folder, learn_shots=40, changes=changes), tmp_path / "out", heard)
    assert any("the weights of step 0 did best" in line for line in heard.said)
    assert [row.decoder for row in found.judged[folder].rows][-2:] == [str(found.student), "optimal@circuit"]


def planned(tmp_path, *changes, learn_shots=40, shots=60, minutes=None):
    folder = tmp_path / "surface_code_bX_d3_r02_center_3_3"
    folder = str(folder if folder.exists() else make_recording(folder, shots=shots))
    wanted = asked(folder, learn_shots=learn_shots, changes=changes, minutes=minutes)
    return wanted, own_noise([folder])


def test_what_is_set_of_the_student_holds_on_the_chip_too(tmp_path):
    settings = ("student.network.width=192", "student.training.batch_size=16", "student.training.seed=7")
    chip = run_of(*planned(tmp_path, *settings)).chip
    assert (chip.network.width, chip.training.batch_size, chip.training.seed) == (192, 16, 7)


def test_steps_on_the_chip_bring_looks_and_rates_with_them(tmp_path):
    chip = run_of(*planned(tmp_path, "chip.training.steps=500")).chip
    rates = chip.training.optimiser
    assert (chip.data.recorded.dev_every, rates.warmup_steps, rates.decay_steps) == (50, 50, 450)
    special = ("chip.training.steps=500", "chip.data.recorded.dev_every=7", "chip.training.optimiser.start_decay=0.1")
    chip = run_of(*planned(tmp_path, *special)).chip
    assert (chip.data.recorded.dev_every, chip.training.optimiser.start_decay) == (7, 0.1)


def test_what_is_judged_follows_from_what_was_learned(tmp_path):
    run = run_of(*planned(tmp_path, "chip.data.recorded.shots=12"))
    assert run.seen == 12 + 8
    earlier = run.model_dump(mode="json")
    del earlier["chip"]  # as own.json of earlier versions
    assert OwnRun(**earlier).seen == 0
    with pytest.raises(SyndistillError, match="no recorded shots are learned"):
        run_of(*planned(tmp_path, "chip.training.steps=5", learn_shots=0))


@pytest.mark.parametrize(("changes", "said"), [
    (("chip.training.batch_size=64",), "in batches of 64"),
    (("chip.data.recorded.shots=5000",), "which has 60"),
])  # fmt: skip
def test_chip_settings_that_cannot_be_are_refused_before_anything_is_written(tmp_path, changes, said):
    wanted, _ = planned(tmp_path, *STEPS, *changes)
    with pytest.raises(SyndistillError, match=said):
        distil_own(wanted, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_recorded_shots_take_a_quarter_of_the_minutes_at_most_and_the_student_the_rest(tmp_path, monkeypatch):
    """A step takes a tenth of a second by this clock."""
    monkeypatch.setattr(own_steps, "_seconds_of", lambda train: 0.1)
    wanted, noise = planned(tmp_path, learn_shots=1_000, shots=2_000)
    run = run_of(wanted, noise)
    assert run.chip.training.steps == 3 * 3  # three times 800 shots in batches of 256
    looks = 11 * 200 / 256
    timed = with_steps(run, 3, 1.0, (), Heard())
    assert timed.chip.training.steps == 9
    assert timed.student.training.steps == round(600 - 9 - looks)
    endless = run.model_copy(update={"chip": lasting(run.chip, 100_000)})
    timed = with_steps(endless, 3, 1.0, (), Heard())
    assert timed.chip.training.steps == round(150 - looks)
    assert timed.student.training.steps == 450
    fixed = with_steps(run, 3, 1.0, ("student.training.steps=12", "chip.training.steps=9"), Heard())
    assert fixed == run


def test_shots_to_learn_are_of_recordings(tmp_path):
    file = written(tmp_path / "mine.stim", generated("z", 3))
    with pytest.raises(SyndistillError, match="--learn-shots is of recordings alone"):
        distil_own(asked(file, learn_shots=40), tmp_path / "out")


def test_recordings_of_a_centre_are_found(tmp_path):
    recording = make_recording(tmp_path / "surface_code_bX_d3_r02_center_3_3")
    assert recordings_of([str(recording)]) == (str(recording),)
    with pytest.raises(SyndistillError, match="a --center that there is"):
        recordings_of([str(recording)], center=(99.0, 1.0))


def test_a_student_that_keeps_a_frame_learns_long_experiments_in_told_parts(tmp_path):
    shipped, header = load_network("student-d3")
    frame = tmp_path / "frame.safetensors"
    save_network(frame, build(replace(shipped.config, frame_memory=True)), header)
    file = written(tmp_path / "mine.stim", generated("z", 25))
    noise = own_noise([file])
    data = run_of(asked(file, student=str(frame)), noise).student.data.simulated
    assert (data.curriculum.longest, data.part_rounds, data.tell_frame) == (24, 12, True)
    short = run_of(asked(file, student=str(frame), rounds=(9,)), noise).student.data.simulated
    assert (short.curriculum.longest, short.part_rounds, short.tell_frame) == (9, None, False)


def test_a_folder_that_cannot_be_made_is_one_line_before_anything_is_measured(tmp_path):
    file = written(tmp_path / "mine.stim", generated("z", 3))
    with pytest.raises(SyndistillError, match="can't be made"):
        distil_own(asked(file), tmp_path / "mine.stim" / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.stim"]
