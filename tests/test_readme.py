"""The README's commands hold: targets exist, command lines parse, and a block tagged `sh test` runs for real.

A ```sh block is checked in a shortened form: `make X` must name a target of the Makefile, and each `syndistill VERB
...` must be accepted by the command line with `--help` appended (unknown verbs and options fail, nothing is computed).
A ```sh test block is executed in an empty folder, so it must be short and bring its own input.
"""

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
README = REPOSITORY / "README.md"
BLOCK = re.compile(r"^```sh(?P<tag>[^\n]*)\n(?P<body>.*?)^```", re.MULTILINE | re.DOTALL)
SECONDS_PER_BLOCK = 120


def blocks(markdown: str, tag: str | None = None) -> list[str]:
    """Bodies of the ```sh blocks, all of them or those with this tag."""
    return [found["body"] for found in BLOCK.finditer(markdown) if tag in (None, found["tag"].strip())]


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


def refusal(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> str | None:
    """What the command line says against `syndistill ARGUMENTS --help`; None where it accepts it."""
    from syndistill.cli.main import main

    monkeypatch.setattr(sys, "argv", ["syndistill", *arguments, "--help"])
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            code = main()
        except SystemExit as end:
            code = end.code
    return said.getvalue() or f"exit code {code}" if code else None


def problems(markdown: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    found = []
    for program, *arguments in (command for body in blocks(markdown) for command in commands(body)):
        line = shlex.join([program, *arguments])
        if program == "make":
            named = [word for word in arguments if "=" not in word and not word.startswith("-")]
            found += [f"{line}: no target {word}" for word in named if word not in make_targets()]
        elif Path(program).name == "syndistill":
            said = refusal(arguments, monkeypatch)
            found += [f"{line}: {said}"] if said else []
    return found


def readme() -> str:
    return README.read_text(encoding="utf-8")


def test_commands_of_the_readme_parse(monkeypatch: pytest.MonkeyPatch) -> None:
    assert problems(readme(), monkeypatch) == []


def test_blocks_of_the_readme_that_are_tagged_run(tmp_path: Path) -> None:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    for number, body in enumerate(blocks(readme(), tag="test")):
        folder = tmp_path / str(number)
        folder.mkdir()
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", body],
            cwd=folder,
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
            timeout=SECONDS_PER_BLOCK,
            check=False,
        )
        assert done.returncode == 0, f"{body}\n{done.stdout}\n{done.stderr}"


def test_a_wrong_target_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    assert problems("```sh\nmake test\nmake PYTHON=python3 venv\n```\n", monkeypatch) == []
    assert problems("```sh\nmake tset  # typo\n```\n", monkeypatch) == ["make tset: no target tset"]


def test_a_wrong_verb_or_option_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    assert problems("```sh\nsyndistill\nsyndistill evaluate pymatching --shots 10\n```\n", monkeypatch) == []
    for wrong in ["syndistill evalaute pymatching", "syndistill evaluate pymatching --shotz 10"]:
        assert len(problems(f"```sh\n{wrong}\n```\n", monkeypatch)) == 1, wrong


def test_commands_are_read_as_a_shell_reads_them() -> None:
    body = "$ A=1 syndistill info \\\n  'a b' && make test | tee log  # said\n\n# comment\n"
    assert commands(body) == [["syndistill", "info", "a b"], ["make", "test"], ["tee", "log"]]
    assert blocks("```sh test\na\n```\n```sh\nb\n```\n```python\nc\n```\n") == ["a\n", "b\n"]
    assert blocks("```sh test\na\n```\n```sh\nb\n```\n", tag="test") == ["a\n"]
