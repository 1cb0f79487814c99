"""An optimiser's memory as flat tensors, to go into a run's state file beside weights and EMA."""

from __future__ import annotations

import torch

from syndistill.models.tensors_file import Tensors


def pack_optimiser(optimiser: torch.optim.Optimizer) -> Tensors:
    """Flat tensors "optimiser.<parameter>.<key>" of everything the optimiser remembers."""
    flat: Tensors = {}
    for index, state in optimiser.state_dict()["state"].items():
        for key, value in state.items():
            if value is not None:
                flat[f"optimiser.{index}.{key}"] = torch.as_tensor(value)
    for index, group in enumerate(optimiser.param_groups):
        if "step" in group:  # where pytorch_optimizer counts
            flat[f"optimiser.group{index}.step"] = torch.as_tensor(group["step"])
    return flat


def unpack_optimiser(optimiser: torch.optim.Optimizer, tensors: Tensors) -> None:
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimiser.") and not name.startswith("optimiser.group"):
            _, index, key = name.split(".", 2)
            state.setdefault(int(index), {})[key] = value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
    for number, group in enumerate(optimiser.param_groups):
        if (steps := tensors.get(f"optimiser.group{number}.step")) is not None:
            group["step"] = int(steps)
