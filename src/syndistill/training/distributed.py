"""Data parallel training under `torchrun`: every process takes its share of each batch.

With N processes the gradient is the mean over the same global batch as with one, so the loss curve is the same.
On a CPU, two processes of one thread beat one of two threads (docs/log/2026-11-23.md).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from syndistill.sampling.seeds import share_of


class World(NamedTuple):
    """This process among its peers."""

    rank: int
    size: int

    @property
    def is_first(self) -> bool:
        return self.rank == 0


ALONE = World(0, 1)


def join_world(device: torch.device) -> World:
    """The process group that torchrun announced, or a world of one."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return ALONE
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return World(dist.get_rank(), size)


class LossModule(nn.Module):
    """Network, train-only modules and objective as one module, so that DDP sees every parameter."""

    def __init__(self, trained: nn.ModuleDict, objective: Callable[[Any, Any], tuple[torch.Tensor, Any]]) -> None:
        super().__init__()
        self.trained = trained
        self.objective = objective

    def forward(self, batch: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        loss, values = self.objective(self.trained["model"], batch)
        return loss, values


def parallel(module: LossModule, world: World) -> nn.Module:
    if world.size == 1:
        return module
    # A batch of one basis leaves the other's weights without a gradient, in a GRU's start and heads for one.
    # Buffers are tables of the layout, the same everywhere: sending them each step would only take time.
    return DistributedDataParallel(module, find_unused_parameters=True, broadcast_buffers=False)


def share(batch: Any, world: World) -> Any:
    """This process's part of a batch; the batch must divide evenly, or the mean would be another."""
    if world.size == 1:
        return batch
    return batch.take(share_of(len(batch), world))


def mean_over_processes(value: float, device: torch.device) -> float:
    """The mean of what each process has; they must all ask, and on their training's device."""
    if not dist.is_initialized():
        return value
    total = torch.tensor(value, dtype=torch.float64, device=device)
    dist.all_reduce(total)
    return float(total) / dist.get_world_size()


def wait_for_all(world: World) -> None:
    if world.size > 1:
        dist.barrier()


def leave_world(world: World) -> None:
    """Wait for the others, then part: a process that is gone too early looks like a failure to its peers."""
    if world.size > 1:
        dist.barrier()
        dist.destroy_process_group()
