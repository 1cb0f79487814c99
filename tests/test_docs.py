"""The documents' examples run: every ```python block, and every ```sh block tagged `test`, in an empty folder."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
PAGES = ["circuits.md", "sinter.md", "streaming.md", "export.md"]
BLOCK = re.compile(r"^```(python|sh test)\n(.*?)^```", re.MULTILINE | re.DOTALL)
EXAMPLES = [
    pytest.param(kind, body, id=f"{page}-{number}")
    for page in PAGES
    for number, (kind, body) in enumerate(BLOCK.findall((DOCS / page).read_text(encoding="utf-8")), start=1)
]


@pytest.mark.parametrize(("kind", "body"), EXAMPLES)
def test_examples_run(tmp_path, kind, body):
    pytest.importorskip("llvmlite")
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    if kind == "python":
        (tmp_path / "example.py").write_text(body)
        command = [sys.executable, "example.py"]
    else:
        command = ["bash", "-euo", "pipefail", "-c", body]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    environment = {**os.environ, "PATH": path}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, f"{body}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr, done.stderr


def test_every_page_has_examples():
    assert {example.id.partition("-")[0] for example in EXAMPLES} == set(PAGES)
