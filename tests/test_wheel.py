"""The package as it is installed: a wheel outside the checkout has all that its recipes begin from."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]

CHECK = """
import os
from syndistill.cli.main import run_app
from syndistill.files.network_file import network_path
from syndistill.decoders.registry import decoder_names
from syndistill.recipes import RECIPES, recipe
import syndistill
assert not syndistill.__file__.startswith(os.environ["CHECKOUT"]), syndistill.__file__
named = 0
for name in RECIPES:
    run = recipe(name)
    for one in run.legs.values() if hasattr(run, "legs") else [run]:
        for network in (getattr(one, "start_from", None), *(getattr(one, "teacher", None) or "").split(",")):
            if network and network not in decoder_names() and not network.startswith("leg:"):
                assert network_path(network).is_file(), (name, network)
                named += 1
assert named > 10
assert run_app(["info"]) == 0
assert run_app(["evaluate", "student-d3", "pymatching", "--shots", "200", "--experiment",
                "d=3,rounds=2,basis=z,noise=si1000,p=0.004"]) == 0
assert run_app(["distill", "student-d5", "--out", "blocked"]) == 2
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with the unpacked wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(folder), "."]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def test_a_wheel_outside_the_checkout_resolves_every_recipe(installed, tmp_path):
    (tmp_path / "blocked").write_text("a file")
    environment = os.environ | {"PYTHONPATH": str(installed), "CHECKOUT": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    code = f"import sys; sys.path = [p for p in sys.path if p != {str(REPOSITORY / 'src')!r}]\n{CHECK}"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "error: " in done.stderr  # the blocked folder, and nothing before it


def test_a_wheel_has_the_package_and_nothing_of_the_repository(installed):
    tops = {path.name for path in installed.iterdir() if not path.name.endswith(".dist-info")}
    assert tops == {"syndistill"}
