"""The report says what the rows say: verdicts of a known truth, gaps, and no number where there is none."""

import json
import math
import re
from pathlib import Path

import pytest

from syndistill.ablation.jobs import Job, fusion_hash
from syndistill.ablation.page import write_report
from syndistill.ablation.plan import Question
from syndistill.ablation.plans import chosen_plan
from syndistill.ablation.rows import Fused, Rows
from syndistill.ablation.table import read_table
from syndistill.ablation.verdicts import answers, findings, savings
from syndistill.errors import SyndistillError
from syndistill.safe_files import unsealed

from ..command_line import refused
from ..reporting import Heard
from .fakes import TEACHERS, fake_rows

PLAN = chosen_plan("ablation-d3", [])
REPOSITORY = Path(__file__).parents[2]
TRUE = {"labels": 0.08, "scratch-nll": 0.0, "stage1-nll": -0.05, "spatial": 0.0}


def truth(arm, budget):
    return math.log(0.09 * budget**-0.15) + TRUE.get(arm, 0.0)


@pytest.fixture
def rows(tmp_path):
    """(options of fake_rows) -> the folder of a finished sweep."""

    def make(plan=PLAN, true=truth, **options):
        fake_rows(tmp_path / "rows.jsonl", plan, true, **options)
        return tmp_path

    return make


def test_verdicts_of_a_known_truth(rows):
    table = read_table(rows(noise=0.002))
    found = {f.question: f for f in findings(table) if f.primary}
    assert found["distillation"].kind == "effect"
    assert found["distillation"].verdict.startswith("LER 7.")
    assert found["fusion"].kind == "none"
    assert "no effect within 3 %" in found["fusion"].verdict
    assert found["stages"].kind == "effect"
    said = dict(answers(table, findings(table)))
    assert "lower" in said["Is distillation worth it at equal steps?"]
    saved = {(s.student, s.budget): s.saving for s in savings(table)}
    expected = math.exp(0.08 / 0.15)
    assert saved["flat-gru-20k", 1.0].low < expected < saved["flat-gru-20k", 1.0].high
    assert math.isinf(saved["flat-gru-5k", 4.0].factor)


@pytest.mark.parametrize(("verdict", "agreement"), [("the same target", 0.9995), ("better", 0.97)])
def test_a_fused_target_that_is_the_teachers_own_answer_is_named(rows, verdict, agreement):
    folder = rows(noise=0.002)
    found = Rows(folder / "rows.jsonl")
    weights = {"transformer": 0.0, "state": 0.02, "readout": 1.01}
    fused = Fused(
        run=fusion_hash(PLAN, "nll", TEACHERS["teacher"]), target="nll", verdict=verdict, weights=weights,
        lers={"transformer": 0.1, "state": 0.09, "readout": 0.06}, agreement=agreement, nll=(-1e-5, 2e-5), steps=100,
        still_improving=True,
    )  # fmt: skip
    alone = {"weights": {"readout": 1.0}, "lers": {"readout": 0.06}, "verdict": "the same target", "agreement": 1.0}
    run = fusion_hash(PLAN, "calibrated", TEACHERS["teacher"])
    found.append([fused, fused.model_copy(update=alone | {"target": "calibrated", "run": run})])
    table = read_table(folder)
    said = dict(answers(table, findings(table)))
    texts = {q.name: said[q.text] for q in PLAN.questions if not q.withdrawn}
    named = {name for name, text in texts.items() if "of fusing this says nothing" in text}
    of_nll = {q.name for q in PLAN.questions if any(PLAN.settings(arm).target == "nll" for arm in q.primary)}
    assert of_nll
    assert named == (of_nll if verdict == "the same target" else set())
    write_report(folder, None, None)
    page = (folder / "report.md").read_text()
    cells = "transformer 0.000 (0.1000), state 0.020 (0.0900), readout 1.010 (0.0600) | 100, still learning"
    assert f"| nll | {cells} | {100 * agreement:.2f} % | -1e-05 to +2e-05 | {verdict} |" in page
    assert "| calibrated | " not in page
    assert ("(z_fuse is the Teacher's own answer)" in page) == (verdict == "the same target")
    with pytest.raises(SyndistillError, match="repeats an earlier line"):
        _repeat_last_line(folder / "rows.jsonl")


def test_a_question_may_be_asked_of_another_student(rows):
    """Its contrasts are of that Student's rows, and those beside the primary are a family of their own for Holm."""
    other = next(s.student for s in PLAN.sweeps if s.student != PLAN.sweeps[0].student)
    contrast = {"baseline": 1.0, "labels": -1.0}
    reverse = {"labels": 1.0, "baseline": -1.0}
    first = Question(name="first", text="?", primary=contrast, others={"the other way": reverse, "again": contrast})
    again = first.model_copy(update={"name": "second", "student": other})
    asked = PLAN.model_copy(update={"questions": (first, again)})
    table = read_table(rows(asked, noise=0.01))
    mine, theirs = ([f for f in findings(table) if f.question == name] for name in ("first", "second"))
    assert [f.says for f in theirs] == [f"{f.says} ({other})" for f in mine]
    values = table.values(other, 1.0, lambda judged: judged.log_ler)
    expected = [values["baseline"][seed] - values["labels"][seed] for seed in values["baseline"]]
    assert theirs[0].effect.mean == pytest.approx(sum(expected) / len(expected))
    assert theirs[0].effect.mean != mine[0].effect.mean
    alone = findings(read_table(rows(PLAN.model_copy(update={"questions": (first,)}), noise=0.01)))
    assert [f.p_value for f in alone] == [f.p_value for f in mine]
    with pytest.raises(ValueError, match="names 'nobody', which is unknown"):
        PLAN.model_validate(asked.model_dump() | {"questions": [again.model_dump() | {"student": "nobody"}]})


def _repeat_last_line(path):
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines, lines[-1]]))
    Rows(path)


def test_noise_that_hides_an_effect_is_not_called_no_effect(rows):
    found = {f.question: f for f in findings(read_table(rows(noise=0.1))) if f.primary}
    assert found["fusion"].kind == "unknown"
    assert found["fusion"].verdict.startswith("not enough data")


def test_missing_seeds_are_a_gap_and_no_number(rows):
    gone = [("labels", seed) for seed in (1, 2, 3, *range(6, 13))] + [("smoothed", 1)]
    folder = rows(noise=0.01, left_out=gone)
    write_report(folder, None, None)
    text = (folder / "report.md").read_text()
    assert "not enough data (2 of 5 seeds)" in text
    assert "Gap." in text
    assert re.search(r"\| labels \| labels alone, no shot twice \| 2 of 5 \|", text)
    assert read_table(folder).missing


def test_the_page_needs_nothing_else_and_both_forms_say_the_same(rows):
    folder = rows(noise=0.01)
    paths = write_report(folder, None, None)
    page, text = (path.read_text() for path in paths)
    assert "<svg" in page
    assert not re.search(r"(src|href)=.http|<script|<link", page)
    for figure in re.findall(r"\]\((report/[a-z]+\.svg)\)", text):
        assert (folder / figure).read_text().startswith("<svg")
    assert text.count("![") == page.count("<figure>") == 5
    first_screen = text[: text.index("## Contrasts")]
    assert all(question.text in first_screen for question in PLAN.questions)
    mine, old = folder / "report" / "mine.svg", folder / "report" / "size.svg"
    mine.write_text("a picture of the user's")
    old.write_text("of an earlier report")
    again = write_report(folder, None, None)
    assert again[0].read_text() == page
    assert mine.exists()
    assert old.read_text().startswith("<svg")
    with pytest.raises(SyndistillError, match="name a file with"):
        write_report(folder, None, folder / "plain")


def test_the_answers_are_said_too(rows):
    heard = Heard()
    folder = rows(noise=0.01)
    write_report(folder, None, None, heard)
    page = (folder / "report.md").read_text()
    for question, line in zip(PLAN.questions, heard.said, strict=False):
        assert line.startswith(f"{question.text} ")
        assert line.removeprefix(f"{question.text} ") in page
    assert len(heard.said) > len(PLAN.questions)  # and of shots saved


def test_a_plan_of_minutes_asks_one_question_and_nothing_of_shots_saved(rows):
    short = chosen_plan("inside-d5-short", [])
    table = read_table(rows(short, lambda arm, budget: math.log(0.06 if arm == "baseline" else 0.056), noise=0.002))
    [(question, answer)] = answers(table, findings(table))
    assert question == short.questions[0].text
    assert "lower" in answer
    assert savings(table) == []


def test_foreign_rows_stay_out(rows, tmp_path):
    folder = rows(noise=0.01)
    path = folder / "rows.jsonl"
    line = next(x for x in path.read_text().splitlines() if '"arm":"labels"' in x)
    foreign = unsealed(json.loads(line)) | {"run": "another configuration", "errors": 1}
    with path.open("a") as file:
        file.write(json.dumps(foreign) + "\n")
    before = findings(read_table(folder))
    assert read_table(folder).foreign == 1
    assert next(f for f in before if f.primary).kind == "effect"
    write_report(folder, None, None)
    assert "1 rows belong to no run of this plan" in (folder / "report.md").read_text()


def test_a_version_with_other_hashes_still_knows_the_rows(rows, monkeypatch):
    folder = rows(noise=0.01)
    path = folder / "rows.jsonl"
    first, *rest = path.read_text().splitlines(keepends=True)
    runs = {}
    for line in map(json.loads, rest):
        if line["student"] != "reference":
            runs[str(Job(line["student"], line["arm"], line["budget"], line["seed"]))] = line["run"]
    path.write_text(json.dumps(unsealed(json.loads(first)) | {"runs": runs}) + "\n" + "".join(rest))
    before = findings(read_table(folder))
    monkeypatch.setattr("syndistill.ablation.table.parts_of", None)
    assert findings(read_table(folder)) == before


def test_students_that_have_learned_nothing_are_no_evidence_of_no_effect(rows):
    folder = rows(true=lambda arm, budget: math.log(0.24), noise=0.001)
    found = findings(read_table(folder))
    assert {f.kind for f in found} == {"unknown"}
    assert "learned nothing" in found[0].verdict


def test_rows_of_different_shots_and_rows_without_a_plan_are_refused(rows, tmp_path):
    folder = rows(noise=0.01)
    path = folder / "rows.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    at = next(i for i, line in enumerate(lines) if '"arm":"labels"' in line)
    other = json.dumps(unsealed(json.loads(lines[at])) | {"shots_sha256": "y"}) + "\n"
    damaged = [*lines[:at], other, *lines[at + 1 :]]
    path.write_text("".join(damaged))
    with pytest.raises(SyndistillError, match="different shots"):
        read_table(folder)
    path.write_text("".join(lines[1:]))
    with pytest.raises(SyndistillError, match="names no plan"):
        read_table(folder)
    with pytest.raises(SyndistillError, match="there are no rows"):
        read_table(tmp_path / "nowhere")


def test_bad_input_is_one_line_and_exit_code_2(tmp_path, capsys):
    (tmp_path / "rows.jsonl").write_text("{}\n")
    for arguments, said in (
        (["report", str(tmp_path)], "line 1"),
        (["ablate", "ablation-d4", "--out", str(tmp_path)], "did you mean"),
        (["ablate", "ablation-d3", "--out", str(tmp_path / "b"), "--dry-run", "--set", "seeds=[1]"], "too few"),
    ):
        assert said in refused(capsys, *arguments)


PAGES = {"ablation-d3": "ablation", "inside-d3": "inside-d3", "inside-d5": "inside-d5"}


@pytest.mark.parametrize(("rows", "page"), PAGES.items())
def test_the_published_report_is_made_from_the_rows_alone(tmp_path, rows, page):
    rows_file = REPOSITORY / "results" / rows / "rows.jsonl"
    write_report(rows_file, tmp_path / "report.html", tmp_path / f"{page}.md")
    published = REPOSITORY / "docs" / f"{page}.md"
    assert (tmp_path / f"{page}.md").read_text(encoding="utf-8") == published.read_text(encoding="utf-8")
