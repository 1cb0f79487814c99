"""The report: from rows alone to one HTML page that needs nothing else, and to Markdown with its figures beside it."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from syndistill.ablation.jobs import OPTIMUM, RIVAL, TEACHER
from syndistill.ablation.pictures import NAMES, figures
from syndistill.ablation.table import Judged, Table, read_table
from syndistill.ablation.verdicts import Finding, answers, contrast_words, findings, percent, savings
from syndistill.errors import SyndistillError
from syndistill.reporter import SILENT, Reporter
from syndistill.safe_files import write_text
from syndistill.statistics.paired_seeds import LEVEL, POWER, differences, effect_of, log_margin, mean_and_half


@dataclass(frozen=True)
class Grid:
    """A table: title, what it says, and cells as text."""

    title: str
    about: str
    head: list[str]
    rows: list[list[str]]


def grids_of(table: Table, found: Sequence[Finding]) -> list[Grid]:
    """Those that have rows."""
    made = [_contrasts(table, found), _fused(table), _power(found), _budgets(table), _measures(table), _savings(table)]
    return [grid for grid in [*made, *_arms(table), _other_rates(table), _references(table)] if grid.rows]


def _contrasts(table: Table, found: Sequence[Finding]) -> Grid:
    withdrawn = {question.name for question in table.plan.questions if question.withdrawn}
    rows = []
    for f in found:
        e = f.effect
        numbers = ["-"] * 5 if e is None else [
            f"{percent(e.mean):+.2f} %", f"{percent(e.low):+.2f} to {percent(e.high):+.2f}", f"{f.p_value:.2g}",
            f"{e.p_beyond:.2g}", f"{percent(e.detectable):.1f} %",
        ]  # fmt: skip
        none = f"no effect within {100 * f.margin:g} %"
        verdict = {"effect": "effect", "none": none, "unknown": "not enough data"}[f.kind]
        verdict += " (withdrawn)" if f.question in withdrawn else ""
        verdict += " (z_fuse is the Teacher's own answer)" if table.own_answers(f.contrast) else ""
        says = f"{f.says} (primary)" if f.primary else f.says
        rows.append([f.question, says, str(f.seeds), *numbers, verdict])
    about = (
        "Paired per-seed differences of log LER, both bases together at the primary number of rounds. p: two-sided "
        "paired t test, of all but primary contrasts after Holm; no-effect p: two one-sided tests; smallest visible: "
        f"the true change found with {100 * POWER:g} % power at level {LEVEL:g}."
    )
    head = ["question", "contrast", "seeds", "change", "95 %", "p", "no-effect p", "smallest visible", "verdict"]
    return Grid("Contrasts", about, head, rows)


def _fused(table: Table) -> Grid:
    """Of targets of several paths."""
    rows = []
    for target, fused in table.fused.items():
        if len(fused.weights) > 1:
            each = [f"{path} {weight:.3f} ({fused.lers[path]:.4f})" for path, weight in fused.weights.items()]
            steps = f"{fused.steps:,}" + (", still learning" if fused.still_improving else "")
            nll = "{:+.2g} to {:+.2g}".format(*fused.nll)
            rows.append([target, ", ".join(each), steps, f"{100 * fused.agreement:.2f} %", nll, fused.verdict])
    about = (
        "Each path's weight, and its LER at the last end in brackets; how many steps its probes took; how often z_fuse "
        "decides as the Teacher does; its NLL minus that of the Teacher's calibrated logit, over all ends, 95 %."
    )
    head = ["target", "paths", "steps of the probes", "agreement", "NLL, nats", "verdict"]
    return Grid("What z_fuse was", about, head, rows)


def _power(found: Sequence[Finding]) -> Grid:
    """What the whole plan could have seen."""
    sizes = {f.says: percent(f.effect.detectable) for f in found if f.primary and f.effect is not None}
    if not sizes:
        return Grid("Smallest visible effect", "", [], [])
    worst = max(sizes, key=lambda name: sizes[name])
    rows = [
        ["of the primary contrasts, the best", f"{min(sizes.values()):.1f} %"],
        [f"the worst ({worst})", f"{sizes[worst]:.1f} %"],
    ]
    return Grid("Smallest visible effect", "", ["", "change of LER"], rows)


def _savings(table: Table) -> Grid:
    taught, without = table.plan.saving or ("", "")
    rows = []
    for one in savings(table):
        said = ["-", "not enough data"] if one.saving is None else [
            one.saving.said(one.saving.factor),
            f"{one.saving.said(one.saving.low)} to {one.saving.said(one.saving.high)}",
        ]
        rows.append([one.student, f"{one.budget:g}", f"{one.shots:,}", f"{one.ler:.5f}", *said])
    about = (
        f"Shots that {without} needs for the LER that {taught} has after its own, interpolated over log shots and log "
        "LER; 95 % percentile bootstrap over seeds (with few seeds such an interval is somewhat short). Shots are "
        "counted as often as they are seen: a Student with a Teacher sees its cached shots several times."
    )
    head = ["Student", "budget", f"shots of {taught}", "LER", "needed without", "95 %"]
    return Grid("What distillation saves in shots", about, head, rows)


def _arms(table: Table) -> list[Grid]:
    grids = []
    for student in dict.fromkeys(sweep.student for sweep in table.plan.sweeps):
        for budget in sorted({sweep.budget for sweep in table.plan.sweeps if sweep.student == student}):
            rows = [row for arm in table.plan.arms if (row := _arm_row(table, student, arm.name, budget))]
            head = ["arm", "learns from", "seeds", *(f"LER r={r}" for r, _ in sorted(table.plan.judging.cases)), "NLL",
                    "KL to the Teacher", "gain kept", "steps", "s"]  # fmt: skip
            about = (
                "Means over seeds with 95 % t intervals; both bases together. NLL, KL and gain at the primary number "
                "of rounds; gain kept: of the way from correlated matching to the best decoder; s: of training."
            )
            grids.append(Grid(f"{student} at {budget:g}x", about, head, rows))
    return grids


def _other_rates(table: Table) -> Grid:
    """What was judged beside the primary error rate."""
    rows = []
    for student, arm, budget in [*table.judged, *(("reference", name, 0.0) for name in table.references)]:
        for p, rounds in table.elsewhere:
            found = table.elsewhere[p, rounds].get((student, arm, budget), {})
            if found:
                values: list[float | None] = [judged.ler for judged in found.values()]
                said = [f"{budget:g}", f"{p:g}", str(rounds), str(len(found)), _said(values, "{:.5f}")]
                rows.append([student, arm, *said])
    about = "Means over seeds with 95 % t intervals; both bases together."
    return Grid("At other error rates", about, ["Student", "arm", "budget", "p", "rounds", "seeds", "LER"], rows)


def _arm_row(table: Table, student: str, arm: str, budget: float) -> list[str] | None:
    planned = any(
        sweep.student == student and sweep.budget == budget and arm in (sweep.arms or [a.name for a in table.plan.arms])
        for sweep in table.plan.sweeps
    )
    if not planned:
        return None
    says, n_rounds = table.plan.arm(arm).says, len(table.plan.judging.cases)
    seeds = table.judged.get((student, arm, budget))
    if not seeds:
        return [arm, says, "0 (missing)", *["-"] * (n_rounds + 5)]
    primary = table.plan.judging.primary_rounds
    at = [of_rounds[primary] for of_rounds in seeds.values()]
    lers = [_said([s[r].ler for s in seeds.values()], "{:.5f}") for r, _ in sorted(table.plan.judging.cases)]
    kept = [k for judged in at if (k := table.kept(judged)) is not None]
    count = str(len(seeds)) if len(seeds) >= len(table.plan.seeds) else f"{len(seeds)} of {len(table.plan.seeds)}"
    return [
        arm, says, count, *lers, *(_said([s.mean(name) for s in at], "{:.5f}") for name in ("nll", "kl")),
        _said([100 * k for k in kept], "{:.0f}") + " %" if kept else "-", f"{at[0].first.steps:,}",
        f"{sum(s.first.train_seconds for s in at) / len(at):.0f}",
    ]  # fmt: skip


def _said(values: Sequence[float | None], form: str) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    mean, half = mean_and_half(known)
    return form.format(mean) + ("" if half is None else f" ± {form.format(half)}")


def _references(table: Table) -> Grid:
    rows = []
    for name, of_rounds in table.references.items():
        for rounds, judged in of_rounds.items():
            nll, us = judged.mean("nll"), judged.mean("us_per_shot")
            said = "-" if nll is None else f"{nll:.5f}"
            rows.append([name, str(rounds), f"{judged.shots:,}", f"{judged.ler:.5f}", said, f"{us:.1f}"])
    head = ["decoder", "rounds", "shots", "LER", "NLL", "us a shot"]
    return Grid("References", "On the same shots as the Students, or on the first of them.", head, rows)


def _budgets(table: Table) -> Grid:
    """The primary contrasts wherever all their arms were run, not only where the question is asked."""
    budgets = sorted({(sweep.student, sweep.budget) for sweep in table.plan.sweeps})
    rows = []
    for question in table.plan.questions:
        for student, budget in budgets:
            if (student, budget) == (table.plan.asked_student(question), question.budget):
                continue
            values = table.values(student, budget, lambda judged: judged.log_ler)
            x = list(differences(values, question.primary).values())
            effect = effect_of(x, log_margin(table.plan.margin))
            if effect is not None:
                change = f"{percent(effect.mean):+.2f} %"
                interval = f"{percent(effect.low):+.2f} to {percent(effect.high):+.2f}"
                rows.append([contrast_words(question.primary), student, f"{budget:g}", str(len(x)), change, interval])
    about = "The same differences of log LER as above; not tested, for they were no question of the plan."
    head = ["contrast", "Student", "budget", "seeds", "change", "95 %"]
    return Grid("Primary contrasts elsewhere", about, head, rows)


def _measures(table: Table) -> Grid:
    """The primary contrasts of NLL, KL and the gain kept."""
    measures: dict[str, Callable[[Judged], float | None]] = {
        "NLL, nats": lambda judged: judged.mean("nll"),
        "KL, nats": lambda judged: judged.mean("kl"),
        "gain kept, points": lambda judged: None if (kept := table.kept(judged)) is None else 100 * kept,
    }
    rows = []
    for question in table.plan.questions:
        cells = []
        for measure in measures.values():
            values = table.values(table.plan.asked_student(question), question.budget, measure)
            effect = effect_of(list(differences(values, question.primary).values()), (-1.0, 1.0))
            said = "-" if effect is None else f"{effect.mean:+.4g} ({effect.low:+.4g} to {effect.high:+.4g})"
            cells.append(said)
        rows.append([contrast_words(question.primary), *cells])
    about = "Paired per-seed differences with 95 % t intervals; lower NLL and KL are better, a larger gain kept is."
    return Grid("Primary contrasts of other measures", about, ["contrast", *measures], rows)


class _Content(NamedTuple):
    """What both forms of the report show. said: (question, answer). drawn: by name, caption and SVG."""

    table: Table
    said: list[tuple[str, str]]
    gaps: list[str]
    drawn: dict[str, tuple[str, str]]
    grids: list[Grid]


def write_report(
    source: Path, html_file: Path | None, markdown: Path | None, reporter: Reporter = SILENT
) -> list[Path]:
    """From a sweep's folder, or a file of rows. Default places: report.html and report.md beside the rows. The reporter
    is told the answers."""
    table = read_table(source)
    beside = source if source.is_dir() else source.parent
    html_file, markdown = html_file or beside / "report.html", markdown or beside / "report.md"
    for path in (html_file, markdown):
        if not path.parent.is_dir():
            raise SyndistillError(f"{path}: there is no folder {path.parent}; choose another place")
    if not markdown.suffix:
        raise SyndistillError(f"{markdown}: its pictures would go into a folder of that name; name a file with .md")
    found = findings(table)
    content = _Content(table, answers(table, found), _gaps(table), figures(table, found), grids_of(table, found))
    write_text(html_file, _html(content))
    folder = markdown.with_suffix("")
    for name, (_, svg) in content.drawn.items():
        write_text(folder / f"{name}.svg", svg)
    for name in set(NAMES) - set(content.drawn):  # of an earlier report
        (folder / f"{name}.svg").unlink(missing_ok=True)
    write_text(markdown, _markdown(content, folder.name))
    for question, sentence in content.said:
        reporter.say(f"{question} {sentence}")
    return [html_file, markdown]


def _gaps(table: Table) -> list[str]:
    """What is not there, said where nobody can miss it."""
    said = []
    if table.missing:
        whole = len(table.missing) + sum(len(seeds) for seeds in table.judged.values())
        said.append(f"{len(table.missing)} of {whole} runs of the plan are not in the rows: {_some(table)}.")
    if failed := {job: error for job, error in table.missing.items() if error}:
        job, error = next(iter(failed.items()))
        said.append(f"{len(failed)} of them failed, for example {job}: {error}.")
    if table.foreign:
        said.append(f"{table.foreign} rows belong to no run of this plan (another configuration); they are left out.")
    if lacking := [name for name in (TEACHER, RIVAL, *_best(table)) if name not in table.references]:
        said.append(f"Not judged: {', '.join(lacking)}.")
    return said


def _best(table: Table) -> list[str]:
    return [OPTIMUM] if table.plan.judging.optimum else []


def _some(table: Table, most: int = 8) -> str:
    groups: dict[str, int] = {}
    for job in table.missing:
        name = f"{job.student} {job.arm} at {job.budget:g}x"
        groups[name] = groups.get(name, 0) + 1
    shown = [f"{name} ({n} of the seeds)" for name, n in list(groups.items())[:most]]
    return ", ".join(shown) + (f" and {len(groups) - most} more" if len(groups) > most else "")


def _about(table: Table) -> str:
    plan = table.plan
    closer = [sweep for sweep in plan.sweeps if sweep.seeds]
    more = "".join(f"Seeds of {', '.join(s.arms)} at {s.budget:g}x: {', '.join(map(str, s.seeds))}. " for s in closer)
    others = " ('again' has others)" if any(arm.name == "again" for arm in plan.arms) else ""
    return (
        f"Plan {plan.name}: {plan.title}. {len(plan.arms)} arms, seeds {', '.join(map(str, plan.seeds))}; a seed fixes "
        f"first weights and the order of shots in every arm{others}. {more}"
        f"A run at 1x takes {plan.steps:,} steps of {plan.base.batch_size}. Judged on "
        + ", ".join(f"{shots:,} shots a basis at r={rounds}" for rounds, shots in plan.judging.cases)
        + f"; questions are of r={plan.judging.primary_rounds}."
    )


def _what_stands(table: Table) -> list[str]:
    """One paragraph, where a part of a published plan does not."""
    fell = [question.text for question in table.plan.questions if question.withdrawn]
    stand = [question.text for question in table.plan.questions if not question.withdrawn]
    if not fell:
        return []
    return [f"What still stands: {' '.join(stand)} The other answers are withdrawn: {' '.join(fell)}"]


def _html(content: _Content) -> str:
    table, said, gaps, drawn, grids = content
    text = html.escape
    parts = [f"<h1>What each signal is worth: {text(table.plan.title)}</h1>"]
    parts += [f"<p><b>In short.</b> {text(stands)}</p>" for stands in _what_stands(table)]
    parts += [f'<p class="gap"><b>Correction.</b> {text(one)}</p>' for one in table.plan.corrections]
    parts += [f'<p class="gap">{text(gap)}</p>' for gap in gaps]
    parts.append("<dl>" + "".join(f"<dt>{text(q)}</dt><dd>{text(a)}</dd>" for q, a in said) + "</dl>")
    shown = [f"<figure>{svg}<figcaption>{text(caption)}</figcaption></figure>" for caption, svg in drawn.values()]
    parts += [*shown[:1], f"<p>{text(_about(table))}</p>"]
    for grid in grids:
        head = "".join(f"<th>{text(cell)}</th>" for cell in grid.head)
        rows = "".join("<tr>" + "".join(f"<td>{text(cell)}</td>" for cell in row) + "</tr>" for row in grid.rows)
        parts.append(f"<h2>{text(grid.title)}</h2><p>{text(grid.about)}</p><table><tr>{head}</tr>{rows}</table>")
    parts += [*shown[1:]]
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{text(table.plan.name)}</title>'
        f"<style>{_STYLE}</style><body>{''.join(parts)}</body></html>\n"
    )


_STYLE = (
    "body{font:15px/1.5 sans-serif;max-width:1000px;margin:2em auto;padding:0 1em;color:#222}h1{font-size:1.5em}"
    "dt{font-weight:bold;margin-top:.6em}dd{margin:0}table{border-collapse:collapse;font-size:12.5px;display:block;"
    "overflow-x:auto}td,th{border-bottom:1px solid #ddd;padding:.25em .6em;text-align:left;white-space:nowrap}"
    ".gap{background:#fdecea;padding:.5em .8em;border-left:4px solid #c0392b}figure{margin:1.5em 0}svg{max-width:100%;"
    "height:auto}figcaption{font-size:13px;color:#555}"
)


def _markdown(content: _Content, folder: str) -> str:
    table, said, gaps, drawn, grids = content
    lines = [f"# What each signal is worth: {table.plan.title}", ""]
    lines += [f"**In short.** {stands}\n" for stands in _what_stands(table)]
    lines += [f"> **Correction.** {one}\n" for one in table.plan.corrections]
    lines += [f"> **Gap.** {gap}\n" for gap in gaps]
    for question, answer in said:
        lines += [f"- **{question}** {answer}"]
    pictures = [f"![{caption}]({folder}/{name}.svg)\n\n*{caption}*\n" for name, (caption, _) in drawn.items()]
    lines += ["", *pictures[:1], _about(table), ""]
    for grid in grids:
        lines += [f"## {grid.title}", "", *([grid.about, ""] if grid.about else [])]
        lines += ["| " + " | ".join(grid.head) + " |", "|" + "---|" * len(grid.head)]
        lines += ["| " + " | ".join(cell.replace("|", "/") for cell in row) + " |" for row in grid.rows] + [""]
    return "\n".join([*lines, *pictures[1:]]).rstrip() + "\n"
