"""Pages of the site that are made while it is built, so that none can fall behind: a hook of mkdocs.yml.

reference/cli.md from the command line's own parser, reference/api.md and a page a room from the package, and one from
the notebook.
"""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[1]
PACKAGE = REPOSITORY / "src" / "syndistill"
NOTEBOOK = REPOSITORY / "docs" / "from_circuit_to_picture.ipynb"


def on_config(config: Any) -> Any:
    """Called by mkdocs with mkdocs.yml: the rooms come below the reference, whichever there are."""
    (reference,) = (entry["Reference"] for entry in config.nav if "Reference" in entry)
    reference += [{room: f"reference/api/{room}.md"} for room in modules_of_rooms()]
    return config


def on_files(files: Any, config: Any) -> Any:
    """Called by mkdocs with what it found in docs/."""
    from mkdocs.structure.files import File

    for path, text in pages().items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by mkdocs with a page: a block tagged for our tests ("sh test") would be no block for it."""
    return re.sub(r"^```sh test$", "```sh", markdown, flags=re.MULTILINE)


def on_post_page(output: str, page: Any, **_: Any) -> str:
    """Called by mkdocs with the HTML: a fence in it is a block that was not understood, and what follows is lost."""
    from mkdocs.exceptions import PluginError

    if "```" in output:
        raise PluginError(f"{page.file.src_path}: a block is not understood; write its fence as ```sh or ```python")
    return output


def pages() -> dict[str, str]:
    """Markdown by its path below docs/."""
    rooms = {f"reference/api/{room}.md": room_page(room, modules) for room, modules in modules_of_rooms().items()}
    return {
        "reference/cli.md": command_line(),
        "reference/api.md": contents(),
        NOTEBOOK.with_suffix(".md").name: notebook_page(json.loads(NOTEBOOK.read_text(encoding="utf-8"))),
        **rooms,
    }


def command_line() -> str:
    """Of every verb: what it does, its arguments and options, as `--help` has them."""
    import typer
    from typer.cli import get_docs_for_click

    from syndistill.cli.main import app

    command = typer.main.get_command(app)
    text = get_docs_for_click(obj=command, ctx=typer.Context(command, info_name="syndistill"), name="syndistill")
    text = re.sub(r"\[bold\](.*?)\[/bold\]", r"**\1**", text)
    text = re.sub(r"\A# .*\n", "", text)
    text = re.sub(r"\*\*Commands\*\*.*?(?=^## )", "", text, flags=re.DOTALL | re.MULTILINE)  # cut short by typer
    return "# The command line\n\nMade from `--help`.\n" + text


def modules_of_rooms() -> dict[str, list[str]]:
    """Dotted names of modules by the room that they are in; the package's own files under its name. The room `cli` has
    a page of its own (`command_line`)."""
    rooms: dict[str, list[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        *folders, stem = path.relative_to(PACKAGE).with_suffix("").parts
        if stem == "__main__" or "cli" in folders or (stem == "__init__" and not _says_more_than_its_name(path)):
            continue
        name = ".".join(["syndistill", *folders, *([] if stem == "__init__" else [stem])])
        rooms.setdefault(folders[0] if folders else "syndistill", []).append(name)
    return rooms


def _says_more_than_its_name(path: Path) -> bool:
    return any(not isinstance(node, ast.Expr) for node in ast.parse(path.read_text(encoding="utf-8")).body)


def room_page(room: str, modules: list[str]) -> str:
    return "\n\n".join([f"# {room}", *(f"::: {name}" for name in modules)]) + "\n"


def contents() -> str:
    """Which modules there are, each with the first line of its docstring."""
    lines = ["# The Python API", "", "Made from the code: a page a room, in it every module that the room has.", ""]
    for room, modules in modules_of_rooms().items():
        lines += [f"## [{room}](api/{room}.md)", "", "| module | |", "|---|---|"]
        short = {name: name.removeprefix("syndistill.").removeprefix(f"{room}.") for name in modules}
        lines += [f"| [`{short[name]}`][{name}] | {_first_line(name)} |" for name in modules]
        lines.append("")
    return "\n".join(lines)


def _first_line(module: str) -> str:
    path = PACKAGE.parent.joinpath(*module.split("."))
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    said = ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) or ""
    return " ".join(said.partition("\n\n")[0].split()).replace("|", "\\|")


def notebook_page(notebook: dict[str, Any]) -> str:
    """Its cells one after the other, code as code."""
    cells = []
    for cell in notebook["cells"]:
        text = "".join(cell["source"])
        cells.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
    return "\n\n".join(cells) + "\n"
