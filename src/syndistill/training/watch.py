"""Early stop: the averaged weights that were best on development shots, for labels that are few and come again.

Looked at before the first step too, so that a run that only learns its shots by heart gives back what it began from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

_PREFIX, _LOOKS = "best.", "best_looks"
Weights = Mapping[str, torch.Tensor]


class Watch:
    """judge: of averaged weights, less is better. every: steps between two looks. patience: looks without a new best
    until the run ends; 0: never.

    `best` are the weights, at step `best_step`; saved with a run, so that it goes on as if it had never stopped.
    """

    def __init__(self, judge: Callable[[Weights], float], every: int, patience: int) -> None:
        self.judge, self.every, self.patience = judge, every, patience
        self.best: dict[str, torch.Tensor] = {}
        self.best_value, self.best_step, self.since, self.latest = float("inf"), 0, 0, -1

    @property
    def has_ended(self) -> bool:
        return 0 < self.patience <= self.since

    def look(self, step: int, weights: Callable[[], Weights]) -> None:
        if step % self.every or step <= self.latest or self.has_ended:
            return
        self.latest = step
        value = self.judge(found := weights())
        self.since += 1
        if value < self.best_value:
            self.best = {key: tensor.detach().clone() for key, tensor in found.items()}
            self.best_value, self.best_step, self.since = value, step, 0

    def tensors(self) -> dict[str, torch.Tensor]:
        """Everything, by names that begin alike."""
        looks = torch.tensor([self.best_value, self.best_step, self.since, self.latest], dtype=torch.float64)
        return {f"{_PREFIX}{key}": tensor for key, tensor in self.best.items()} | {_LOOKS: looks}

    def load(self, tensors: Weights) -> None:
        """From what `tensors` gave, among others."""
        self.best = {k.removeprefix(_PREFIX): v for k, v in tensors.items() if k.startswith(_PREFIX)}
        self.best_value, *counts = tensors[_LOOKS].tolist()
        self.best_step, self.since, self.latest = map(int, counts)
