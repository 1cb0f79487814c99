"""The report: from rows alone to one HTML page that needs nothing else, and to Markdown with its figures beside it."""

from __future__ import annotations

import html
from pathlib import Path
from typing import NamedTuple

from syndistill.ablation.grids import Grid, grids_of
from syndistill.ablation.jobs import OPTIMUM, RIVAL, TEACHER
from syndistill.ablation.pictures import figures
from syndistill.ablation.table import Table, read_table
from syndistill.ablation.verdicts import answers, findings
from syndistill.errors import SyndistillError
from syndistill.safe_files import write_text


class _Content(NamedTuple):
    """What both forms of the report show. said: (question, answer). drawn: by name, caption and SVG."""

    table: Table
    said: list[tuple[str, str]]
    gaps: list[str]
    drawn: dict[str, tuple[str, str]]
    grids: list[Grid]


def write_report(source: Path, html_file: Path | None, markdown: Path | None) -> list[Path]:
    """From a sweep's folder, or a file of rows. Default places: report.html and report.md beside the rows."""
    table = read_table(source)
    beside = source if source.is_dir() else source.parent
    html_file, markdown = html_file or beside / "report.html", markdown or beside / "report.md"
    for path in (html_file, markdown):
        if not path.parent.is_dir():
            raise SyndistillError(f"{path}: there is no folder {path.parent}; choose another place")
    found = findings(table)
    content = _Content(table, answers(table, found), _gaps(table), figures(table, found), grids_of(table, found))
    write_text(html_file, _html(content))
    folder = markdown.with_suffix("")
    for name, (_, svg) in content.drawn.items():
        write_text(folder / f"{name}.svg", svg)
    for old in set(folder.glob("*.svg")) - {folder / f"{name}.svg" for name in content.drawn}:
        old.unlink()
    write_text(markdown, _markdown(content, folder.name))
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
    more = "".join(f"{', '.join(s.arms)} also have seeds {', '.join(map(str, s.seeds))}. " for s in closer)
    return (
        f"Plan {plan.name}: {plan.title}. {len(plan.arms)} arms, seeds {', '.join(map(str, plan.seeds))}; a seed fixes "
        "first weights and the order of shots in every arm ('again' has others). "
        f"{more}A run at 1x takes {plan.steps:,} steps of {plan.base.batch_size}. Judged on "
        + ", ".join(f"{shots:,} shots a basis at r={rounds}" for rounds, shots in plan.judging.cases)
        + f"; questions are of r={plan.judging.primary_rounds}."
    )


def _html(content: _Content) -> str:
    table, said, gaps, drawn, grids = content
    text = html.escape
    parts = [f"<h1>What each signal is worth: {text(table.plan.title)}</h1>"]
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
