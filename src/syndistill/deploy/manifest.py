"""What an exported folder holds, and whether it still does. Needs no PyTorch.

Legend: N detectors, S stabilisers, D width.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from syndistill.circuits.layout import Layout
from syndistill.circuits.placement import Placement
from syndistill.errors import SyndistillError

MANIFEST_FILE = "manifest.json"
STEP_FILE, READOUT_FILE, EXPERIMENT_FILE = "step.onnx", "readout.onnx", "experiment.onnx"
WHAT, FORMAT = "syndistill export", 1


@dataclass(frozen=True, eq=False)
class Manifest:
    """content: the JSON as `export` writes it; docs/export.md explains its keys."""

    folder: Path
    content: dict[str, Any]

    @classmethod
    def load(cls, folder: str | Path) -> Manifest:
        """SyndistillError where the folder, its manifest or one of its files is missing or was changed."""
        folder = Path(folder)
        try:
            content = json.loads((folder / MANIFEST_FILE).read_text())
        except OSError as error:
            raise SyndistillError(
                f"cannot read {folder / MANIFEST_FILE}: {error.strerror}; give a folder that syndistill export wrote"
            ) from None
        except ValueError:
            raise SyndistillError(f"{folder / MANIFEST_FILE} is no JSON; export the network again") from None
        if not isinstance(content, dict) or content.get("what") != WHAT or content.get("format") != FORMAT:
            raise SyndistillError(f"{folder / MANIFEST_FILE} is no manifest of format {FORMAT}; export again")
        if not all(isinstance(content.get(key), dict) for key in ("network", "experiment", "start_D", "files")):
            raise SyndistillError(f"{folder / MANIFEST_FILE} is not complete; export again")
        for name, sha256 in content["files"].items():
            path = folder / name
            if not path.is_file() or file_sha256(path) != sha256:
                raise SyndistillError(f"{path} is missing or not the file that was exported; export again")
        return cls(folder, content)

    @property
    def layout(self) -> Layout:
        return Layout(self.content["experiment"]["distance"])

    @property
    def placement(self) -> Placement:
        """Of the circuit that `experiment.onnx` was made for."""
        e = self.content["experiment"]
        return Placement(
            self.layout, e["rounds"], e["basis"], np.array(e["slice_N"]), np.array(e["stabiliser_N"]), tuple(e["lines"])
        )

    def file(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()


def file_sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
