"""A flat or local GRU as a folder of ONNX graphs with a manifest: what `syndistill export` writes. Needs no PyTorch.

Legend: N detectors, S stabilisers, D width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import stim

from syndistill.circuits.placement import Placement, place
from syndistill.circuits.training_noise import NOISE_KEY, noise_in
from syndistill.decoders.answers import learned_both
from syndistill.deploy.local_weights import Compilable, LocalWeights, load_compilable
from syndistill.deploy.manifest import EXPERIMENT_FILE, FORMAT, MANIFEST_FILE, READOUT_FILE, STEP_FILE, WHAT, with_hash
from syndistill.deploy.onnx_graphs import OPSET, experiment_graph, readout_graph, step_graph
from syndistill.errors import SyndistillError
from syndistill.files.families import n_channels
from syndistill.files.network_file import trained_rounds
from syndistill.safe_files import replacing, write_json


def export_onnx(name_or_path: str | Path, circuit: stim.Circuit, label: str, folder: str | Path) -> Path:
    """Writes step, readout and experiment graphs and a manifest into a new folder, whole or not at all.

    label: what the manifest calls the circuit. SyndistillError for a network of another family or distance, a circuit
    that is no surface code memory, and a folder that exists.
    """
    folder = Path(folder)
    if folder.exists():
        raise SyndistillError(f"{folder} exists; name a folder that is to be made, nothing was changed")
    weights = load_compilable(name_or_path)
    placement = place(circuit, noise_in(weights.metadata))
    _check(weights, placement, str(name_or_path))
    files = {
        STEP_FILE: step_graph(weights, placement.basis),
        READOUT_FILE: readout_graph(weights, placement.basis),
        EXPERIMENT_FILE: experiment_graph(weights, placement),
    }
    manifest = _manifest(weights, placement, str(name_or_path), label, circuit, files)
    with replacing(folder) as beside:
        beside.mkdir()
        for name, content in files.items():
            (beside / name).write_bytes(content)
        write_json(beside / MANIFEST_FILE, manifest)
    return folder


def _check(weights: Compilable, placement: Placement, name: str) -> None:
    if placement.layout != weights.layout:
        raise SyndistillError(
            f"{name} decodes distance {weights.distance}, the circuit has distance {placement.layout.distance}; "
            "take a network of that distance"
        )
    if placement.n_observables == 0:
        raise SyndistillError("the circuit has no OBSERVABLE_INCLUDE, so nothing to decode; add one")
    if placement.basis == "both" and not learned_both(weights.output, noise_in(weights.metadata)):
        raise SyndistillError(f"{name} knows one basis at a time, the circuit has both; export one for each basis")
    if isinstance(weights, LocalWeights) and weights.output == "joint4":
        raise SyndistillError(f"{name} is a local GRU of output joint4, which is not exported; take a two_channel one")
    n_channels(weights.output, placement.basis)


def _manifest(
    weights: Compilable,
    placement: Placement,
    name: str,
    label: str,
    circuit: stim.Circuit,
    files: Mapping[str, bytes],
) -> dict[str, Any]:
    layout = weights.layout
    content = {
        "what": WHAT,
        "format": FORMAT,
        "network": {
            "name": name,
            "weights_sha256": weights.sha256,
            "parameters": weights.n_parameters,
            "output": weights.output,
            "width": weights.width,
            "trained_rounds": trained_rounds(weights.metadata),
            "trained_noise": _trained_noise(weights.metadata),
        },
        "experiment": {
            "label": label,
            "circuit_sha256": hashlib.sha256(str(circuit).encode()).hexdigest(),
            "distance": layout.distance,
            "rounds": placement.rounds,
            "basis": placement.basis,
            "holds_O2": placement.holds_O2.tolist(),
            "turn_OS": placement.turn_OS.tolist(),
            "slice_N": placement.slice_N.tolist(),
            "stabiliser_N": placement.stabiliser_N.tolist(),
        },
        "training_noise": weights.metadata.get(NOISE_KEY),
        "layout": {
            "cells_S2": layout.cells_S2.tolist(),
            "is_x_S": layout.is_x_S.tolist(),
            "on_basis_S": layout.on_basis_S(placement.basis).tolist(),
        },
        # The state before the first round, which the step graph takes. Of one basis: the graphs may read it turned.
        "start_D": {placement.basis: weights.start(placement.basis).tolist()},
        "opset": OPSET,
        "files": {file: hashlib.sha256(content).hexdigest() for file, content in files.items()},
        "versions": {package: version(package) for package in ("syndistill", "onnx", "stim", "numpy")},
    }
    return with_hash(content)


def _trained_noise(metadata: Any) -> dict[str, Any] | None:
    """The noise model and the range of p of the training shots, as far as the network file says them."""
    if isinstance(metadata, Mapping):
        curriculum = metadata.get("curriculum")
        if "noise" in metadata and isinstance(curriculum, Mapping):
            return {"model": metadata["noise"], **{key: curriculum.get(key) for key in ("p_min", "p_max")}}
        metadata = list(metadata.values())
    found = (_trained_noise(value) for value in metadata) if isinstance(metadata, list) else ()
    return next((noise for noise in found if noise is not None), None)
