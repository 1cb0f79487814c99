"""Everything that a training run depends on, in one frozen object that forbids unknown keys."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

Precision = Literal["fp32", "bf16"]
"""bf16: autocast, the weights stay float32."""


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RoundsPhase(Strict):
    """From `from_shots` on, each chunk draws its number of rounds from `rounds`."""

    from_shots: int
    rounds: tuple[int, ...] = Field(min_length=1)


class Curriculum(Strict):
    """Noise and rounds as functions of the shots seen (Bausch et al. 2024, Methods).

    p = f * p_max with f in [p_min / p_max, 1] of density
    f^-tilt * (1 + noise_weight * Gauss(f; centre, noise_width)), the centre moving up along a logistic curve
    centred at `noise_midpoint` shots. tilt 0 is uniform, 1 log-uniform: a network is not told p, so this
    density is its prior, and a uniform one alone costs 5 % of NLL at p = .002 (docs/experiments.md).
    """

    p_min: float
    p_max: float
    rounds: tuple[RoundsPhase, ...] = Field(min_length=1)
    tilt: float = 1.0
    noise_weight: float = 0.0
    noise_width: float = 0.15
    noise_midpoint: int = 500_000
    rates_per_chunk: int = 4
    n_rates: int = Field(default=51, ge=2)
    """How many values of p there are: each has models of its own to prepare (4 s, revealed, d=5, r=25)."""

    @model_validator(mode="after")
    def _ordered(self) -> Curriculum:
        starts = [phase.from_shots for phase in self.rounds]
        if starts[0] != 0 or starts != sorted(starts):
            raise ValueError("rounds phases must begin at from_shots=0 and come in order")
        if not 0 < self.p_min <= self.p_max:
            raise ValueError("0 < p_min <= p_max must hold")
        return self

    def draw(self, shots_seen: int, rng: np.random.Generator) -> tuple[int, list[float]]:
        """Rounds and error rates of one chunk."""
        phase = [phase for phase in self.rounds if phase.from_shots <= shots_seen][-1]
        rounds = int(rng.choice(phase.rounds))
        low = self.p_min / self.p_max
        f = np.linspace(low, 1.0, self.n_rates)
        centre = low + (1 - low) / (1 + np.exp(-4 * (shots_seen / self.noise_midpoint - 1)))
        density = 1 + self.noise_weight * np.exp(-((f - centre) ** 2) / (2 * self.noise_width**2))
        density = density * f**-self.tilt
        chosen = rng.choice(f, size=self.rates_per_chunk, p=density / density.sum())
        return rounds, [float(x * self.p_max) for x in chosen]


class OptimiserConfig(Strict):
    """Learning rate: linear warm-up, constant, then linear decay to zero over the last `decay_steps` steps.

    muon: weight matrices (convolutions flattened) learn by orthogonalised momentum at `matrix_rate` on the same
    schedule, everything else by AdamW at `learning_rate`.
    """

    name: Literal["adamw", "lion", "muon"] = "adamw"
    learning_rate: float = 1e-3
    matrix_rate: float = 0.02
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 1e-4
    warmup_steps: int = 500
    decay_steps: int = 0
    clip_norm: float = 1.0
    ema_decay: float = 0.999

    def rate_at(self, step: int, steps: int) -> float:
        warm = min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        cool = min(1.0, (steps - step) / self.decay_steps) if self.decay_steps else 1.0
        return self.learning_rate * warm * cool


class TrainingConfig(Strict):
    """How long, how fast, how often."""

    steps: int = Field(gt=0)
    batch_size: int = Field(default=256, gt=0)
    seed: int = Field(default=0, ge=0)
    optimiser: OptimiserConfig = OptimiserConfig()
    precision: Precision = "fp32"
    compile: bool = False
    device: str = "cpu"
    threads: int = Field(default=0, ge=0)
    """CPU threads; 0 leaves PyTorch's default. Exact resume holds for equal numbers."""
    checkpoint_minutes: float = 5.0
    log_every: int = 50
    tensorboard: bool = False


class RecordedData(Strict):
    """Fresh shots from the error models of recorded experiments of one patch of a chip."""

    folder: str
    distance: int
    basis: Literal["x", "z"]
    center: tuple[int, int]
    model: Literal["pij", "circuit"] = "pij"
    curriculum: Curriculum
    """Only its rounds matter here."""


class DataConfig(Strict):
    """Fresh simulated shots."""

    distance: int
    noise: str = "si1000"
    bases: tuple[Literal["x", "z", "both"], ...] = ("x", "z")
    labels: Literal["sampled", "exact", "revealed"] = "sampled"
    """exact: the exact posterior in place of the drawn label (sampling.exact_labels), for distance 3. revealed:
    an unbiased estimate of it (sampling.revealed_labels), for distances 3 and 5; .7 ms a shot and end at d=5, r=5."""
    ends: int = Field(default=0, ge=0)
    """At how many ends a chunk is taught: the last and others drawn anew for each; 0: at all. Each costs a Teacher as
    much as a round, revealed labels as much as they do."""
    end_spacing: int = Field(default=0, ge=0)
    """If not 0, taught at the last end and at every so many rounds before it; `ends` of these, if that is not 0."""
    curriculum: Curriculum
