"""A recording, and a copy of it to spoil."""

import shutil
from pathlib import Path

import pytest

from .recordings import make_recording


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_recording(tmp_path_factory.mktemp("recorded") / "surface_code_bX_d3_r02_center_3_3")


@pytest.fixture
def broken(recording: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(recording, tmp_path / "broken"))
