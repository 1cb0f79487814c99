"""The shape of the package: each room imports only rooms before it, and no chain of imports grows too long."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "syndistill"

# Rooms of the same line do not know each other. A room is a folder or a single file.
ORDER = [
    {"statistics", "circuits"},
    {"files"},
    {"sampling"},
    {"models"},
    {"training"},
    {"decoders"},
    {"distill"},
    {"evaluation"},
    {"deploy"},
    {"recipes"},
    {"runs"},
    {"ablation"},
    {"sinter_plugin", "cli"},
    {"__init__"},
]
RANK = {room: rank for rank, rooms in enumerate(ORDER) for room in rooms}
OPEN_TO_ALL = {"errors", "reporter", "safe_files", "safe_lines", "pretrained", "__version__"}
WITHOUT_TORCH = {"statistics", "circuits", "files", "errors", "safe_files", "safe_lines", "__init__"}

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


@pytest.mark.parametrize("room", ["statistics", "circuits", "files"])
def test_lower_rooms_load_without_torch(room: str) -> None:
    modules = [f"syndistill.{room}.{path.stem}" for path in FILES if path.parent.name == room]
    imports = ", ".join(name.removesuffix(".__init__") for name in modules)
    script = f"import sys, {imports}; sys.exit('torch' in sys.modules and 'loaded torch')"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_of_what_decodes_and_ships_only_what_says_so_knows_torch() -> None:
    """So that a network runs where PyTorch is not installed."""
    files = [path for path in FILES if path.relative_to(PACKAGE).parts[0] in ("decoders", "deploy")]
    direct = {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts): set(
            imported_names(path.read_text(encoding="utf-8"), ["syndistill", *path.relative_to(PACKAGE).parent.parts])
        )
        for path in files
    }
    rooms_with_torch = tuple(f"syndistill.{room}." for room in ("models", "training", "distill", "sampling.shots"))
    knowing = {name for name, names in direct.items() if any(n.startswith(("torch", *rooms_with_torch)) for n in names)}
    assert knowing == {"decoders.torch_engine"}
    through = {name for name, names in direct.items() if any(n.startswith("syndistill.decoders.torch") for n in names)}
    assert through == {"decoders.engine_for"}  # where no compiled kernel serves


DEEPEST = 20
"""Files of the longest chain of imports at the top of modules, one importing the next."""


def longest_chain() -> list[str]:
    """Modules of the package, each imported by the one before it."""
    modules = {".".join(("syndistill", *path.relative_to(PACKAGE).with_suffix("").parts)): path for path in FILES}
    modules = {name.removesuffix(".__init__"): path for name, path in modules.items()}
    chains: dict[str, list[str]] = {}

    def chain_of(name: str) -> list[str]:
        if name not in chains:
            tree = ast.parse(modules[name].read_text(encoding="utf-8"))
            top = ast.Module([node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)], [])
            package = ["syndistill", *modules[name].relative_to(PACKAGE).parent.parts]
            names = set(imported_names(ast.unparse(top), package))
            imported = {full if full in modules else full.rpartition(".")[0] for full in names} & modules.keys()
            chains[name] = [name, *max((chain_of(other) for other in imported - {name}), key=len, default=[])]
        return chains[name]

    return max(map(chain_of, modules), key=len)


def test_the_deepest_chain_of_imports() -> None:
    """How many files a reader may have to open to understand one."""
    chain = longest_chain()
    assert len(chain) <= DEEPEST, "\n".join(chain)
