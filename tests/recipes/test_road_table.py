"""The table of the road: what it plans, how it goes on, and the page made from rows alone."""

import math
import multiprocessing
import os
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import rel_entr

from syndistill.circuits.experiment import Experiment
from syndistill.errors import SyndistillError
from syndistill.evaluation.subject import Subject
from syndistill.models.networks import build, load_network, save_network, weights_hash
from syndistill.recipes import road_plan, road_scores, road_table
from syndistill.recipes.road_page import mean_over_seeds, page, steps_for
from syndistill.recipes.road_plan import ARMS, Plan
from syndistill.recipes.road_scores import REFERENCE, RIVAL, TEACHER, Score, ScoresFile, mean_divergence

REPOSITORY = Path(__file__).parents[2]
TINY = road_plan.TOY | {
    "steps": 4, "seeds": (1,), "batch_size": 32, "probe_steps": 2, "fused_shots": 256, "gate_shots": 200,
    "rounds": 2, "cut_rounds": (1, 2), "judged": ((1, 300), (2, 200)),
}  # fmt: skip


@pytest.fixture(autouse=True)
def in_seconds(monkeypatch):
    monkeypatch.setattr(road_table, "TOY", TINY)
    monkeypatch.setattr("syndistill.distill.student_data.STATISTICS_SHOTS", 256)
    monkeypatch.setattr("syndistill.distill.student_data.STATISTICS_RATES", 1)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def command(tmp_path, teacher_path):
    """Arguments of a table of seconds."""
    folder = {"--out": tmp_path / "runs", "--rows": tmp_path / "rows.jsonl", "--page": tmp_path / "road.md"}
    named = [str(part) for pair in folder.items() for part in pair]
    return [*named, "--teacher", str(teacher_path), "--toy", "--workers", "1", "--accept-any-teacher"]


def test_the_table_is_made_once_and_its_page_again_from_rows(tmp_path, command, teacher_path, capsys, monkeypatch):
    assert road_table.main(command) == 0, capsys.readouterr().err
    file = ScoresFile(tmp_path / "rows.jsonl")
    arms = {(s.arm, s.steps) for s in file.scores.values() if s.student != REFERENCE}
    assert arms == {*((arm, 4) for arm in ARMS), ("no_kd", 8)}
    assert len(file.scores) == 4 * (5 + 2)  # cases x (jobs + references)
    for experiment in {s.experiment for s in file.scores.values()}:
        own = [s for s in file.scores.values() if s.experiment == experiment]
        assert len({s.shots_sha256 for s in own}) == 1
        assert len({s.decoder_id for s in own}) == len(own)
        assert all((s.kl is None) == (s.student == REFERENCE) for s in own)
    text = (tmp_path / "road.md").read_text()
    for said in ("## 1 rounds, X and Z together", "## 2 rounds", "stage 1, then 2", "labels alone need"):
        assert said in text
    assert len(list((tmp_path / "runs").rglob("manifest.json"))) == 1 + 3  # one cache, three signals
    # nothing is trained, asked or judged again; the page comes from the rows
    (tmp_path / "road.md").unlink()
    rows = (tmp_path / "rows.jsonl").read_bytes()
    for name in ("do_job", "judge_references", "fill_cache", "train_fusion"):
        monkeypatch.setattr(road_table, name, None)
    assert road_table.main(command) == 0
    assert (tmp_path / "road.md").read_text() == text
    assert (tmp_path / "rows.jsonl").read_bytes() == rows
    # a run whose rows are lost is judged again, to the same row, without training
    lines = rows.decode().splitlines(keepends=True)
    monkeypatch.undo()
    monkeypatch.setattr(road_table, "TOY", TINY)
    (tmp_path / "rows.jsonl").write_text("".join(lines[:-1]))
    monkeypatch.setattr(road_scores, "train_student", None)
    assert road_table.main(command) == 0
    assert (tmp_path / "rows.jsonl").read_bytes() == rows
    # rows of another Teacher are not added to
    save_network(teacher_path, build("teacher-tiny", 3), {})
    assert road_table.main(command) == 2
    assert "take another rows file" in capsys.readouterr().err


def test_workers_end_at_the_rows_of_one_process(tmp_path, command, capsys):
    assert road_table.main(command) == 0
    other = [part.replace(str(tmp_path), str(tmp_path / "two")) for part in command[:6]]
    (tmp_path / "two").mkdir()
    assert road_table.main([*other, *command[6:], "--workers", "2"]) == 0, capsys.readouterr().err
    alone, together = (ScoresFile(path / "rows.jsonl").scores for path in (tmp_path, tmp_path / "two"))
    assert alone == together


def test_an_interrupt_ends_the_workers_and_keeps_the_rows(tmp_path, command, capsys, monkeypatch):
    append = ScoresFile.append

    def interrupted(self, scores):
        append(self, scores)
        if len(self.scores) > 8:  # the references are judged, a run is done
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(ScoresFile, "append", interrupted)
        assert road_table.main([*command, "--workers", "2"]) == 130
    assert "goes on" in capsys.readouterr().err
    assert multiprocessing.active_children() == []
    kept = (tmp_path / "rows.jsonl").read_text()
    assert road_table.main(command) == 0
    assert (tmp_path / "rows.jsonl").read_text().startswith(kept)


def test_a_killed_worker_is_said():
    with pytest.raises(SyndistillError, match="a worker process was killed"):
        list(road_table._results([partial(os._exit, 1)] * 2, 2))


def test_a_row_says_what_the_evaluation_says(tmp_path, command):
    assert road_table.main(command) == 0
    plan = Plan(teacher=command[command.index("--teacher") + 1], **TINY)
    job = next(job for job in plan.jobs if job.arm == "stage1+2")
    score = next(s for s in ScoresFile(tmp_path / "rows.jsonl").scores.values() if s.arm == job.arm)
    path = plan.student_file(job, tmp_path / "runs")
    assert weights_hash(load_network(path)[0]) == score.decoder_id
    assert load_network(path)[1]["run"]["kind"] == "stage2"
    found = Subject.from_experiment(score.experiment).compare([str(path)], score.shots, road_scores.SEED)
    assert found.rows[0].shots_sha256 == score.shots_sha256
    assert found.rows[0].errors == score.errors
    assert found.rows[0].nll == pytest.approx(score.nll, rel=1e-12)


def test_every_arm_has_equal_steps_and_one_schedule():
    plan, out = Plan(teacher="teacher-d3"), Path("out")
    assert len(plan.jobs) == 2 * 3 * 5
    assert {job.seed for job in plan.jobs} == {1, 2, 3}
    for job in plan.jobs:
        runs = [run for _, run in plan.parts(job, out)]
        assert sum(run.training.steps for run in runs) == job.steps
        earlier = [str(job.folder(out) / "stage1/student.safetensors")] if job.arm == "stage1+2" else []
        assert [run.start_from for run in runs] == [None, *earlier]
        assert runs[0].terms.needs_teacher == (job.arm != "no_kd")
        assert runs[0].training.seed == job.seed
    assert [job.steps for job in plan.jobs] == sorted((job.steps for job in plan.jobs), reverse=True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--students", "flat-gru-7k"], "flat-gru-7k"),
        (["--steps", "2"], "greater than 3"),
        (["--workers", "0"], "take 1 or more"),
        (["--teacher", "nobody"], "nobody"),
        (["--page", "no/such/folder/road.md"], "there is no folder"),
        (["--rows", "."], "cannot use"),
    ],
)
def test_wrong_input_is_one_line_and_writes_nothing(tmp_path, monkeypatch, command, capsys, arguments, said):
    monkeypatch.chdir(tmp_path)
    before = sorted(p.name for p in tmp_path.iterdir())
    assert road_table.main([*command, *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_damaged_rows_are_refused(tmp_path):
    path = tmp_path / "rows.jsonl"
    good = score().model_dump_json() + "\n"
    for text, said in [(good[:40] + "\n" + good, "line 1 is damaged"), (good + good, "line 2 repeats"),
                       (good + score(seed=2, teacher="other").model_dump_json() + "\n", "2 Teachers")]:  # fmt: skip
        path.write_text(text)
        with pytest.raises(SyndistillError, match=said):
            ScoresFile(path)


def score(student="s", arm="baseline", steps=100, seed=1, errors=45, basis="z", rounds=3, **changes):
    content = {
        "student": student, "arm": arm, "steps": steps, "seed": seed, "errors": errors, "shots": 1000,
        "experiment": str(Experiment(3, rounds, basis, "si1000", 0.004)), "shots_sha256": f"{basis}{rounds}",
        "nll": 0.1, "kl": 0.01, "parameters": 5, "decoder_id": "d", "teacher": "t",
    }  # fmt: skip
    return Score(**content | changes)


def references(basis="z", rounds=3):
    return [
        score(REFERENCE, TEACHER, 0, 0, 40, basis, rounds, kl=None),
        score(REFERENCE, RIVAL, 0, 0, 50, basis, rounds, kl=None, nll=None, parameters=None),
    ]


def test_the_page_counts_means_intervals_and_shares():
    scores = []
    for basis in ("z", "x"):
        scores += references(basis)
        for seed, errors, nll in ((1, 42, 0.1), (2, 44, 0.2), (3, 46, 0.3)):
            scores.append(score(seed=seed, errors=errors, basis=basis, nll=nll))
        scores += [score(arm="no_kd", steps=n, errors=e, basis=basis) for n, e in ((100, 48), (400, 40))]
    text = page(scores, "command")
    half = 4.302653 * 0.002 / math.sqrt(3)  # t at .975 with 2 degrees of freedom
    row = next(line for line in text.splitlines() if line.startswith("| s | 5 | baseline"))
    assert f"0.04400 ± {half:.5f} | 0.20000 ± {0.1 / 0.002 * half:.5f} |" in row
    assert f"| 60 ± {half / 0.01 * 100:.0f} % |" in row
    assert "2,000 shots. Correlated matching: LER 0.05000. Teacher (5 parameters): LER 0.04000, NLL 0.10000." in text
    # from .048 at 100 steps to .040 at 400: .044 is half of the way in the logarithm
    assert "| 3 | s | baseline | 100 | 0.04400 | 200 | 2.0 |" in text
    assert text == page(reversed(scores), "command")


def test_the_page_in_docs_is_that_of_the_rows():
    rows, shown = Path("results/road-d3.jsonl"), Path("docs/road.md")
    there = [(REPOSITORY / path).exists() for path in (rows, shown)]
    assert there[0] == there[1]
    if there[0]:
        text = page(ScoresFile(REPOSITORY / rows).scores.values(), road_table.command_of(rows, shown))
        assert (REPOSITORY / shown).read_text(encoding="utf-8") == text


def test_a_page_of_different_shots_or_without_references_is_refused():
    with pytest.raises(SyndistillError, match="different shots"):
        page([*references(), score(shots_sha256="others")], "command")
    with pytest.raises(SyndistillError, match="no row of teacher"):
        page([score()], "command")


def test_steps_are_read_off_a_curve():
    curve = {100: 0.05, 200: 0.045, 800: 0.04}
    assert steps_for(curve, 0.045) == ("", 200)
    assert steps_for(curve, 0.0425) == ("", pytest.approx(400))
    assert steps_for(curve, 0.06) == ("<= ", 100)
    assert steps_for(curve, 0.039) == ("> ", 800)
    assert mean_over_seeds([0.5]) == (0.5, None)


def test_the_divergence_is_that_of_two_coins():
    rng = np.random.default_rng(1)
    student, teacher = rng.uniform(0.001, 0.999, (2, 50))
    expected = (rel_entr(teacher, student) + rel_entr(1 - teacher, 1 - student)).mean()
    assert mean_divergence(student, teacher) == pytest.approx(expected, rel=1e-5)
    assert mean_divergence(teacher, teacher) == 0
