"""The READMEs and every page of docs/: examples run, long commands run dry, figures are the rows', prose is readable.

A ```python block and a ```sh block tagged `test` are executed in an empty folder, so they must be short and bring their
own input. Any other command of a ```sh block runs dry (see `fault_of`).
"""

import contextlib
import importlib.util
import io
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from syndistill.circuits.experiment import Experiment
from syndistill.cli.main import main
from syndistill.decoders.registry import decoder_names
from syndistill.files.network_file import shipped_names
from syndistill.models.networks import load_network, weights_hash
from syndistill.recipes import RECIPES
from syndistill.statistics.rates import wilson

REPOSITORY = Path(__file__).parents[1]
DOCS = REPOSITORY / "docs"
PRETRAINED = REPOSITORY / "src" / "syndistill" / "pretrained"
NOTEBOOK = DOCS / "from_circuit_to_picture.ipynb"
FRONT = [REPOSITORY / name for name in ("README.md", "README.zh-CN.md", "CONTRIBUTING.md")]
PAGES = [*FRONT, *sorted(DOCS.glob("*.md"))]
MADE_FROM_ROWS = {
    "results.md", "results-d5.md", "results-joint.md", "results-sycamore-d3.md", "results-sycamore-d5.md",
    "ablation.md", "inside-d5.md", "inside-d3.md",
}  # fmt: skip
RECORDINGS = "sycamore_x_even"
"""A folder that a reader brings."""
BLOCK = re.compile(r"^```(?P<kind>[^\n]*)\n(?P<body>.*?)^```", re.MULTILINE | re.DOTALL)
PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])


def named(page: Path) -> str:
    return page.relative_to(REPOSITORY).as_posix()


def blocks(markdown: str, *kinds: str) -> list[str]:
    """Bodies of the fenced blocks of these kinds ("python", "sh", "sh test")."""
    return [found["body"] for found in BLOCK.finditer(markdown) if found["kind"].strip() in kinds]


EXAMPLES = [
    pytest.param(kind, body, id=f"{named(page)}-{kind.replace(' ', '-')}-{number}")
    for page in PAGES
    if page.name != "README.zh-CN.md"  # whose blocks are those of README.md (test_readme_zh.py)
    for kind in ("python", "sh test")
    for number, body in enumerate(blocks(page.read_text(encoding="utf-8"), kind), start=1)
]


@pytest.mark.parametrize(("kind", "body"), EXAMPLES)
def test_examples_run(tmp_path, kind, body):
    for package in ("llvmlite", "onnxruntime", "onnx"):
        pytest.importorskip(package)
    (tmp_path / "example.py").write_text(body)
    command = [sys.executable, "example.py"] if kind == "python" else ["bash", "-euo", "pipefail", "-c", body]
    environment = {**os.environ, "PATH": PATH}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, f"{body}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr, done.stderr


def commands(body: str) -> list[list[str]]:
    """The simple commands of a block as argument lists: without prompts, comments and leading VARIABLE=value."""
    found: list[list[str]] = []
    for line in body.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line.removeprefix("$ "), posix=True, punctuation_chars="|&;<>")
        lexer.whitespace_split = True
        command: list[str] = []
        for token in [*lexer, ";"]:
            if set(token) <= set("|&;<>"):
                found.append(command)
                command = []
            elif command or not re.match(r"\w+=", token):
                command.append(token)
    return [command for command in found if command]


def make_targets() -> set[str]:
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    return set(re.findall(r"^([a-z][\w-]*):(?!=)", makefile, re.MULTILINE))


def extras() -> set[str]:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return set(project["optional-dependencies"])


def said_by(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> tuple[int, str]:
    """Exit code and output of `syndistill ARGUMENTS`, run in this process."""
    monkeypatch.setattr(sys, "argv", ["syndistill", *arguments])
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            code = main()
        except SystemExit as end:
            code = end.code
    return int(code or 0), said.getvalue()


def unknown_name(arguments: list[str]) -> str | None:
    """Of `evaluate`, `bench`, `export` and `info` a name that means nothing; a path is taken as it is."""
    verb, *rest = arguments
    if "--experiment" in rest:
        Experiment.parse(rest[rest.index("--experiment") + 1])
    positional = rest[: next((i for i, word in enumerate(rest) if word.startswith("-")), len(rest))]
    known = {*decoder_names(), *shipped_names(), *(RECIPES if verb == "info" else ())}
    members = [member for word in positional for member in (word.split(",") if verb == "evaluate" else [word])]
    names = [re.split("[:@]", word)[0] for word in members if "/" not in word and "." not in word]
    return next((f"{name} is unknown" for name in names if name not in known), None)


def dry_fault(arguments: list[str], made_before: list[str], monkeypatch: pytest.MonkeyPatch) -> str | None:
    """What is wrong with a long `syndistill` command; None where all is well but its place.

    Verbs that judge are parsed, with --help, and their names looked up. The others run, the folder of --out blocked by
    a file: recipe and settings are resolved and networks found, then nothing can be written. Refused for the blocked
    folder, for want of what an earlier command of the page makes, of the recordings, or of a GPU, the command is right.
    """
    if arguments[:1] not in (["train"], ["distill"], ["ablate"], ["report"]):
        code, said = said_by([*arguments, "--help"], monkeypatch)
        return said if code else unknown_name(arguments)
    if "--dry-run" in arguments:
        code, said = said_by(arguments, monkeypatch)
        return said if code else None
    if "--out" in arguments:
        place = arguments.index("--out") + 1
        arguments = [*arguments[:place], "blocked", *arguments[place + 1 :]]
    code, said = said_by(arguments, monkeypatch)
    brought = ("blocked", "device 'cuda' can't be used here", RECORDINGS, *made_before)
    right = code == 2 and any(word in said for word in brought)
    return None if right else said or f"exit code {code}"


def fault_of(command: list[str], made_before: list[str], monkeypatch: pytest.MonkeyPatch) -> str | None:
    """What is wrong with a command of a block that is not tagged `test`; None where nothing is."""
    program, *arguments = command
    if program == "torchrun" and "syndistill" in arguments:
        return fault_of(arguments[arguments.index("syndistill") :], made_before, monkeypatch)
    if program == "make":
        wanted = [word for word in arguments if "=" not in word and not word.startswith("-")]
        return next((f"no target {word}" for word in wanted if word not in make_targets()), None)
    if program == "syndistill":
        return dry_fault(arguments, made_before, monkeypatch)
    if program == "python" and arguments[0] == "-m":
        return None if importlib.util.find_spec(arguments[1]) else f"no module {arguments[1]}"
    if program == "python":
        return None if (REPOSITORY / arguments[0]).is_file() else f"no file {arguments[0]}"
    if program == "pip":
        wanted = {extra for word in arguments for extra in re.findall(r"\[(.*)\]", word)}
        return next((f"no extra {extra}" for extra in wanted if extra not in extras()), None)
    return "runs in no test; tag its block `sh test`"


def faults(markdown: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    found, made_before = [], []
    for command in (command for body in blocks(markdown, "sh") for command in commands(body)):
        fault = fault_of(command, made_before, monkeypatch)
        found += [f"{shlex.join(command)}: {fault}"] if fault else []
        made_before += [after for before, after in pairwise(command) if before == "--out"]
    return found


@pytest.fixture
def empty(tmp_path, monkeypatch):
    """An empty folder to run dry in, with a file where a folder is to be made."""
    (tmp_path / "blocked").write_text("")
    (tmp_path / "results").symlink_to(REPOSITORY / "results")
    circuit = Experiment(3, 4, "z", "uniform", 0.004).circuit()
    (tmp_path / "mine.stim").write_text(str(circuit))
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("empty")
@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "README.zh-CN.md"], ids=named)
def test_long_commands_run_dry(page, monkeypatch):
    assert not faults(page.read_text(encoding="utf-8"), monkeypatch)


@pytest.mark.usefixtures("empty")
def test_a_wrong_command_is_found(monkeypatch):
    def found(line: str) -> list[str]:
        return faults(f"```sh\n{line}\n```\n", monkeypatch)

    assert not found("make PYTHON=python3 venv")
    assert not found("syndistill distill road-d3 --out runs/a && syndistill distill runs/a/run.json --out runs/b")
    for wrong, why in {
        "make tset  # typo": "no target tset",
        "syndistill evaalute pymatching": "No such command",
        "syndistill evaluate pymatching --shotz 10": "No such option",
        "syndistill evaluate student-d4 pymatching --shots 10": "student-d4 is unknown",
        "syndistill distill raod-d3 --out runs/a": "raod-d3",
        "syndistill distill road-d3 --out runs/a --set stage1.spatial.wieght=0": "wieght",
        "syndistill distill runs/a/run.json --out runs/b": "runs/a/run.json",
        "syndistill ablate ablation-d4 --out runs/a --dry-run": "ablation-d4",
        "OMP_NUM_THREADS=1 torchrun --no-python syndistill train teacher-d4 --out runs/a": "teacher-d4",
        "python scripts/none.py": "no file",
        "python -m syndistill.none": "no module",
        "pip install 'syndistill[none]'": "no extra none",
        "sinter collect": "tag its block",
    }.items():
        assert len(found(wrong)) == 1, wrong
        assert why in found(wrong)[0], wrong


def test_commands_are_read_as_a_shell_reads_them():
    body = "$ A=1 syndistill info \\\n  'a b' && make test | tee log  # said\n\n# comment\n"
    assert commands(body) == [["syndistill", "info", "a b"], ["make", "test"], ["tee", "log"]]
    assert blocks("```sh test\na\n```\n```sh\nb\n```\n```python\nc\n```\n", "sh", "python") == ["b\n", "c\n"]


IN_TABLE = {  # a decoder for each column of the README's table: by the first words of its row
    "PyMatching |": ("pymatching", "pymatching"),
    "PyMatching, correlated |": ("pymatching-correlated", "pymatching-correlated"),
    "the small Student": (
        "results/networks/labels-25k.safetensors",
        "results/networks/local-d5-labels.safetensors",
    ),
    "**Student**": ("student-d3", "student-d5"),
    "Student with a frame": ("student-d3-frame", None),
    "larger Student": (None, "student-d5-82k"),
    "Teacher": ("teacher-d3", "teacher-d5"),
    "the exact optimum": ("optimal", None),
}
COLUMNS = (
    ("d3.jsonl", "d=3,rounds=9,basis=z,noise=si1000,p=0.004", 50_000),
    ("d5.jsonl", "d=5,rounds=5,basis=z,noise=si1000,p=0.004", 200_000),
)


def score(rows: str, experiment: str, decoder: str) -> tuple[int, int]:
    """Errors and shots of a decoder, from the rows; of a network those of its weights, whatever a row calls it."""
    network = decoder.endswith("safetensors") or (PRETRAINED / f"{decoder}.safetensors").is_file()
    path = REPOSITORY / decoder if "/" in decoder else decoder
    key, wanted = ("decoder_id", weights_hash(load_network(str(path))[0])) if network else ("decoder", decoder)
    errors = shots = 0
    for line in (REPOSITORY / "results" / rows).read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if row.get("kind") == "row" and row["experiment"] == experiment and row[key] == wanted:
            errors, shots = errors + row["errors"], shots + row["shots"]
    return errors, shots


def test_the_table_of_the_readme_is_what_the_rows_say():
    (table,) = re.findall(r"^\| decoder \|.*?(?=\n\n)", FRONT[0].read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    lines = table.splitlines()[2:]
    for line, (start, decoders) in zip(lines, IN_TABLE.items(), strict=True):
        assert line.startswith(f"| {start}")
        for column, (decoder, (rows, experiment, n_shots)) in enumerate(zip(decoders, COLUMNS, strict=True), start=2):
            if decoder is None:
                continue
            errors, shots = score(rows, experiment, decoder)
            assert shots == n_shots
            low, high = wilson(errors, shots)
            cell = line.split("|")[column].replace("*", "").strip()
            assert cell == f"{100 * errors / shots:.2f} ({100 * low:.2f} to {100 * high:.2f})", decoder


MOST_NUMBERS = 5
NO_PROSE = re.compile(r"^```.*?^```|^\|.*?$|`[^`]*`|\]\([^)]*\)|<[^>]*>|!\[[^]]*\]|^#.*?$", re.MULTILINE | re.DOTALL)
NO_QUANTITY = re.compile(r"\b\w+ ?= ?[\d.e-]+|\d{4}-\d\d-\d\d|[A-Za-z_]+[-_^]?\d+\w*|95 %")
NUMBER = re.compile(r"(?<![\w.])\.?\d[\d.,]*")


def crowded(markdown: str) -> Iterator[str]:
    """Paragraphs and points of lists with more numbers than a reader keeps in mind. Names (d=3, int8) are none."""
    prose = re.sub(r"^(- |\d+\. )", "\n", NO_PROSE.sub("", markdown), flags=re.MULTILINE)
    for paragraph in prose.split("\n\n"):
        if len(NUMBER.findall(NO_QUANTITY.sub("", paragraph))) > MOST_NUMBERS:
            yield " ".join(paragraph.split())


@pytest.mark.parametrize("page", [page for page in PAGES if page.name not in MADE_FROM_ROWS], ids=named)
def test_no_paragraph_is_crowded_with_numbers(page):
    assert not list(crowded(page.read_text(encoding="utf-8")))


def test_a_crowded_paragraph_is_found():
    assert not list(crowded("d=3, p=.004: 1, .2, 3.3, 4 and 5,000 of int8.\n\n- 1, 2, 3\n- 4, 5, 6\n"))
    assert list(crowded("Some: 1, .2, 3.3, 4 %, 5,000 and 6.\n")) == ["Some: 1, .2, 3.3, 4 %, 5,000 and 6."]


def test_the_front_page_is_short_and_says_what_it_is():
    text = PAGES[0].read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 120
    assert "scaled-down reproduction of AlphaQubit" in text


@pytest.mark.parametrize("day", sorted((DOCS / "log").glob("2*.md")), ids=lambda path: path.stem)
def test_a_day_of_the_log_begins_with_a_summary(day):
    head, *entries = re.split(r"^## ", day.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert head.startswith(f"# {day.stem}\n")
    assert 1 <= len([line for line in head.splitlines()[1:] if line.strip()]) <= 10
    assert entries
    assert all(entry.startswith(f"{day.stem}: ") for entry in entries)
    assert f"({day.name})" in (DOCS / "log" / "index.md").read_text(encoding="utf-8")
    assert f"log/{day.name}" in (REPOSITORY / "mkdocs.yml").read_text(encoding="utf-8")


def test_the_notebook_is_kept_without_outputs():
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)


@pytest.mark.slow(reason="starts a Jupyter kernel")
def test_the_notebook_runs(tmp_path):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    said = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))
    assert "wrong: Student" in said
    assert (tmp_path / "shot.svg").stat().st_size > 10_000
