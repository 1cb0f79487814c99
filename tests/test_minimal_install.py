"""Without the extras every module still imports: an optional package is asked for only where it is used."""

import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "src" / "syndistill"
OPTIONAL = ["beliefmatching", "ldpc", "llvmlite", "numba", "onnx", "onnxruntime", "tensorboard", "tesseract_decoder"]

# A None in sys.modules makes Python raise ModuleNotFoundError, as if the package were not installed.
SCRIPT = """
import importlib, sys
names, optional = (text.split(",") for text in sys.argv[1:])
sys.modules.update(dict.fromkeys(optional))
for name in names:
    importlib.import_module(name)
print(len(names))
"""


def module_names() -> list[str]:
    paths = [path.relative_to(PACKAGE.parent).with_suffix("") for path in PACKAGE.rglob("*.py")]
    return sorted(".".join(path.parts).removesuffix(".__init__") for path in paths if path.name != "__main__")


def test_every_module_imports_without_the_extras() -> None:
    names = module_names()
    assert "syndistill" in names
    assert "syndistill.circuits" in names
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT, ",".join(names), ",".join(OPTIONAL)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == len(names)
