"""What the Student of a user's own files is worth: everything judged on the same shots, as tables, a picture, a report
and one sentence."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from syndistill.distill.student import STUDENT_FILE
from syndistill.evaluation.compare import Comparison
from syndistill.evaluation.subject import Subject
from syndistill.evaluation.tables import pairs_table, per_round_table, rows_table
from syndistill.reporter import SILENT, Reporter
from syndistill.runs.picture import LABELS, draw_comparison
from syndistill.safe_files import replacing, write_sealed
from syndistill.sampling.own_noise import OwnNoise
from syndistill.sampling.recorded import NOISY_CIRCUIT
from syndistill.statistics.rates import LEAST_LENGTHS, mcnemar
from syndistill.training.run import TEACHER_FILE

ROWS_FILE, RESULT_FILE, PICTURE, REPORT = "rows.jsonl", "comparison.json", "comparison.png", "report.html"
SEED = 2027  # of the judged shots
RIVAL = "pymatching-correlated"
REFERENCES = ("pymatching", RIVAL)
OPTIMUM = "optimal"
KNOWN = (*REFERENCES, OPTIMUM)
"""Those that are given a recording's model with @."""


def judge(
    files: Sequence[str],
    names: Sequence[str],
    model: str,
    shots: int,
    folder: Path,
    reporter: Reporter = SILENT,
    skip: int = 0,
) -> dict[str, Comparison]:
    """The decoders of these names on `shots` fresh shots of each file, of a recording on all of its own but the first
    `skip`; rows, result and picture are written. What was judged before is read from the rows. A decoder that can't
    serve is left out."""
    judged = {}
    for file in files:
        recorded = Path(file).is_dir()
        subject = Subject.from_recording(file) if recorded else Subject.from_file(file)
        n_shots, after = (None, skip) if recorded else (shots, 0)
        here = [_with_model(name, model, subject) for name in names]
        of_rows = folder / ROWS_FILE
        judged[file] = subject.compare(
            here, n_shots, SEED, skip=after, rows_file=of_rows, leave_out=True, reporter=reporter
        )
    write_sealed(folder / RESULT_FILE, {"judged": {file: found.to_json() for file, found in judged.items()}})
    first = next(iter(judged))
    draw_comparison(
        judged[first], folder / PICTURE, Path(first).name, _labels(folder), highlight=str(folder / STUDENT_FILE)
    )
    return judged


def _labels(folder: Path) -> dict[str, str]:
    return {
        **LABELS,
        str(folder / STUDENT_FILE): "this Student",
        str(folder / "student" / STUDENT_FILE): "before recorded shots",
        str(folder / TEACHER_FILE): "tuned Teacher",
    }


def _with_model(name: str, model: str, subject: Subject) -> str:
    """Of a recording matching is given the model that was fitted to its shots, as in the field; the optimum the model
    that the Student learns from."""
    if subject.recording is None or name not in KNOWN:
        return name
    fitted = next((one for one in subject.recording.models if one != NOISY_CIRCUIT), model)
    return f"{name}@{fitted if name in REFERENCES else model}"


def _without_model(name: str) -> str:
    """What `_with_model` made of it undone."""
    plain = name.partition("@")[0]
    return plain if plain in KNOWN else name


def tables(judged: Mapping[str, Comparison], own: OwnNoise) -> list[Table]:
    """Of each file; of recordings of several lengths also the error per round."""
    found = [rows_table(one, file) for file, one in judged.items()]
    lengths: dict[int, dict[int, Comparison]] = {}
    for (patch, _, rounds), one in zip(own.dems, judged.values(), strict=True):
        lengths.setdefault(patch, {})[rounds] = one
    for patch, of_patch in lengths.items():
        if len(own.bases) == 1 and len([rounds for rounds in of_patch if rounds > 1]) >= LEAST_LENGTHS:
            where = f", patch {patch + 1}" if len(lengths) > 1 else ""
            found.append(per_round_table(of_patch, f"error per round, fitted over rounds{where}"))
    return found


def verdict(judged: Mapping[str, Comparison], student: str, start: str) -> str:
    """What the Student is worth on all files together; a warning where it is not better than where it began. A decoder
    that was left out of some files is compared on the others."""
    files = [({_without_model(row.decoder): row.errors for row in one.rows}, one) for one in judged.values()]
    shots = sum(one.rows[0].shots for one in judged.values())
    lines = [f"This Student errs on {sum(errors[student] for errors, _ in files) / shots:.2%} of {shots:,} shots."]
    warnings: list[str] = []
    for name, said in ((RIVAL, "correlated matching"), (start, f"{start}, where it began")):
        here = [(errors, one) for errors, one in files if name in errors]
        mine, theirs = sum(errors[student] for errors, _ in here), sum(errors[name] for errors, _ in here)
        if theirs:
            alone = [_alone(one, student, name) for _, one in here]
            p = mcnemar(sum(a for a, _ in alone), sum(b for _, b in alone))
            part = "" if len(here) == len(files) else f" on the {len(here)} of {len(files)} files that it can decode"
            change = mine / theirs - 1
            lines.append(f"{abs(change):.1%} {'less' if change < 0 else 'more'} than {said}{part} (p = {p:.2g}).")
        if here and mine >= theirs:
            warnings.insert(0, f"WARNING: it is not better than {name}: take that one, or give --minutes more.")
    lines += _way(files, student)
    return " ".join([*lines, *warnings])


def _way(files: Sequence[tuple[dict[str, int], Comparison]], student: str) -> list[str]:
    """How far the Student is on the way from correlated matching to the optimum, where that is better."""
    both = [(errors, one) for errors, one in files if RIVAL in errors and OPTIMUM in errors]
    mine, rival, best = (sum(errors[name] for errors, _ in both) for name in (student, RIVAL, OPTIMUM))
    if not 0 < best < rival:
        return []
    alone = [_alone(one, student, OPTIMUM) for _, one in both]
    if mine <= best or mcnemar(sum(a for a, _ in alone), sum(b for _, b in alone)) > 0.05:
        return ["Level with the optimum, as far as these shots tell."]
    return [f"{(rival - mine) / (rival - best):.0%} of the way from correlated matching to the optimum."]


def _alone(found: Comparison, a: str, b: str) -> tuple[int, int]:
    """Shots that a alone, and b alone, got wrong."""
    full = {_without_model(row.decoder): row.decoder for row in found.rows}
    pair = found.pair(full[a], full[b])
    return (pair.only_a_wrong, pair.only_b_wrong) if pair is not None else (0, 0)


def write_report(judged: Mapping[str, Comparison], shown: Sequence[Table], said: str, folder: Path) -> None:
    """One file: the picture, then the tables as the terminal shows them."""
    console = Console(record=True, width=130, file=io.StringIO())
    console.print(said)
    for table in [*shown, *(pairs_table(one) for one in judged.values())]:
        console.print(table)
    picture = base64.b64encode((folder / PICTURE).read_bytes()).decode()
    image = f'<img alt="Logical error rates" style="max-width: 100%" src="data:image/png;base64,{picture}">'
    with replacing(folder / REPORT) as beside:
        beside.write_text(console.export_html(inline_styles=True).replace("<body>", f"<body>\n{image}", 1))
