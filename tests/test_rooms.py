"""The shape of the package: each room imports only rooms before it, and no file grows too long."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
PACKAGE = REPOSITORY / "src" / "syndistill"

# Rooms of the same line do not know each other. A room is a folder or a single file.
ORDER = [
    {"files"},
    {"circuits"},
    {"sampling"},
    {"models"},
    {"training"},
    {"distill"},
    {"decoders"},
    {"evaluation"},
    {"deploy"},
    {"recipes"},
    {"ablation"},
    {"cli_parts"},
    {"cli_ablation", "cli_show"},
    {"sinter_plugin", "cli"},
]
RANK = {room: rank for rank, rooms in enumerate(ORDER) for room in rooms}
OPEN_TO_ALL = {"errors", "safe_files", "safe_lines", "pretrained", "__version__"}
WITHOUT_TORCH = {"files", "circuits", "errors", "safe_files", "safe_lines", "__init__"}
MOST_LINES = 349

FILES = sorted(PACKAGE.rglob("*.py"))


def imported_names(source: str, package: list[str]) -> Iterator[str]:
    """Dotted absolute names of everything that `source`, a module inside `package`, imports, lazy imports included."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def forbidden_imports(source: str, relative: Path) -> list[str]:
    """The imports of a module at `relative` (path below src/syndistill) that its room must not know."""
    room = relative.parts[0].removesuffix(".py")
    found = []
    for name in imported_names(source, ["syndistill", *relative.parent.parts]):
        top, *rest = name.split(".")
        if top == "torch" and room in WITHOUT_TORCH:
            found.append(name)
        if top != "syndistill" or not rest or rest[0] in OPEN_TO_ALL:
            continue
        other = rest[0]
        if other != room and (room not in RANK or other not in RANK or RANK[other] >= RANK[room]):
            found.append(name)
    return found


def test_a_room_imports_only_rooms_before_it() -> None:
    named = {*RANK, *OPEN_TO_ALL, "__init__"}
    rooms = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in FILES}
    assert rooms - named == set(), "no rooms: name them in ORDER"
    forbidden = {
        str(path.relative_to(PACKAGE)): found
        for path in FILES
        if (found := forbidden_imports(path.read_text(encoding="utf-8"), path.relative_to(PACKAGE)))
    }
    assert forbidden == {}


@pytest.mark.parametrize(
    ("source", "relative", "expected"),
    [
        ("import torch", "circuits/a.py", ["torch"]),
        ("from torch import nn", "models/a.py", []),
        ("from syndistill.models.teacher import Teacher", "sampling/a.py", ["syndistill.models.teacher.Teacher"]),
        ("def f():\n    from ..models import teacher", "sampling/a.py", ["syndistill.models.teacher"]),
        ("from . import b\nfrom .b import c\nfrom ..circuits import d", "sampling/a.py", []),
        ("from syndistill import __version__, cli", "deploy/a.py", ["syndistill.cli"]),
        ("from syndistill.cli import main", "sinter_plugin.py", ["syndistill.cli.main"]),
        ("from syndistill.circuits import layout", "errors.py", ["syndistill.circuits.layout"]),
        ("from syndistill.errors import SyndistillError", "circuits/a.py", []),
        ("from .deep.er import x\nfrom ...training import y", "models/deep/a.py", ["syndistill.training.y"]),
    ],
)
def test_the_checker_sees_what_it_should(source: str, relative: str, expected: list[str]) -> None:
    assert forbidden_imports(source, Path(relative)) == expected


@pytest.mark.parametrize("room", ["files", "circuits"])
def test_files_and_circuits_load_without_torch(room: str) -> None:
    modules = [f"syndistill.{room}.{path.stem}" for path in FILES if path.parent.name == room]
    imports = ", ".join(name.removesuffix(".__init__") for name in modules)
    script = f"import sys, {imports}; sys.exit('torch' in sys.modules and 'loaded torch')"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_of_deploy_only_what_says_so_knows_torch() -> None:
    """So that a network runs where PyTorch is not installed."""
    deploy = [path for path in FILES if path.parent.name == "deploy"]
    direct = {
        path.stem: set(imported_names(path.read_text(encoding="utf-8"), ["syndistill", "deploy"])) for path in deploy
    }
    rooms_with_torch = tuple(f"syndistill.{room}." for room in ("models", "training", "distill", "sampling.shots"))
    knowing = {stem for stem, names in direct.items() if any(n.startswith(("torch", *rooms_with_torch)) for n in names)}
    assert knowing == {"torch_engine"}
    through = {stem for stem, names in direct.items() if any(n.startswith("syndistill.deploy.torch") for n in names)}
    assert through == {"bench"}


@pytest.mark.parametrize("folder", ["src", "tests", "benchmarks"])
def test_files_stay_short(folder: str) -> None:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in (REPOSITORY / folder).rglob("*.py")}
    long = {str(path.relative_to(REPOSITORY)): lines for path, lines in lengths.items() if lines > MOST_LINES}
    assert long == {}
