"""Everything that a training run depends on, in one frozen object that forbids unknown keys."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from syndistill.circuits.experiment import NOISES
from syndistill.files.families import MOST_DISTANCE
from syndistill.statistics.rates import ler_per_round

Precision = Literal["fp32", "bf16"]
"""bf16: autocast, the weights stay float32."""


def _odd(distance: int) -> int:
    if distance % 2 == 0:
        raise ValueError("a distance is odd")
    return distance


FILES = "files"
"""The noise of a user's own files."""


def _known_noise(noise: str) -> str:
    if noise not in (*NOISES, FILES):
        raise ValueError(f"noise {noise!r} is unknown; pick one of {', '.join((*NOISES, FILES))}")
    return noise


# The most of each is far above any use: what is larger is a slip, and would end in a hang or without memory.
Distance = Annotated[int, Field(ge=3, le=MOST_DISTANCE), AfterValidator(_odd)]
Rounds = Annotated[int, Field(ge=1, le=10_000)]
Number = Annotated[int, Field(ge=0, le=1_000_000_000)]
"""Of shots or steps."""
Positive = Annotated[int, Field(ge=1, le=1_000_000_000)]
BatchSize = Annotated[int, Field(ge=1, le=1 << 17)]
DEVICES = r"^(cpu|cuda|cuda:\d{1,3}|mps|xpu)$"
Seed = Annotated[int, Field(ge=0, lt=1 << 63)]
Share = Annotated[float, Field(ge=0, lt=1)]
Weight = Annotated[float, Field(ge=0, le=1e6)]
"""Of a term of the loss."""
Temperature = Annotated[float, Field(ge=0.01, le=100)]
"""Logits of up to 30 divided by less leave what a float's sigmoid can tell from 0 and 1."""
Rate = Annotated[float, Field(gt=0, le=10)]
MOST_RATE = 0.1
"""`Experiment`'s most."""
ErrorRate = Annotated[float, Field(ge=1e-6, le=10)]
"""Below 1e-6 there is nothing to see in a billion shots. Of named noise MOST_RATE at most; for own files a factor."""
Name = Annotated[str, Field(min_length=1)]
"""Of a shipped network, or a path."""


class Strict(BaseModel):
    """What forbids unknown keys, changes, and numbers that are none."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class RoundsPhase(Strict):
    """From `from_shots` on, each chunk draws its number of rounds from `rounds`."""

    from_shots: int = Field(ge=0, le=1 << 62)
    rounds: tuple[Rounds, ...] = Field(min_length=1, max_length=1000)


class Informative(Strict):
    """Long experiments at small p, short ones at large p, so that a label after all rounds still says something.

    With eps the error per round at p_max and eps(p) = eps * (p / p_max)^power, a label of R rounds is wrong in
    (1 - (1 - 2 eps(p))^R) / 2 of all shots. p is at most the one where that is `most_ler`:
    p_max * ((1 - (1 - 2 most_ler)^(1 / R)) / (2 eps))^(1 / power), but not below p_min.
    """

    error_per_round: float = Field(gt=0, lt=0.5)
    """eps, of a good decoder at p_max (SI1000 at p=.006: .025 at distance 3)."""
    power: float = Field(default=2.0, gt=0, le=32)
    """How fast it falls with p: (d + 1) / 2 far below threshold."""
    most_ler: float = Field(default=0.25, gt=0, lt=0.5)

    def most_rate(self, rounds: int, p_max: float) -> float:
        ratio = ler_per_round(self.most_ler, rounds) / self.error_per_round
        return p_max * min(1.0, ratio ** (1 / self.power))


class Curriculum(Strict):
    """Noise and rounds as functions of the shots seen (Bausch et al. 2024, Methods).

    p = f * p_max with f in [p_min / p_max, 1] of density
    f^-tilt * (1 + noise_weight * Gauss(f; centre, noise_width)), the centre moving up along a logistic curve
    centred at `noise_midpoint` shots. tilt 0 is uniform, 1 log-uniform: a network is not told p, so this
    density is its prior, and a uniform one alone costs 5 % of NLL at p = .002 (docs/log/2026-11-23.md).
    """

    p_min: ErrorRate
    p_max: ErrorRate
    rounds: tuple[RoundsPhase, ...] = Field(min_length=1, max_length=1000)
    tilt: float = Field(default=1.0, ge=-4, le=4)
    noise_weight: float = Field(default=0.0, ge=0, le=1e9)
    noise_width: float = Field(default=0.15, ge=1e-3, le=10)
    noise_midpoint: int = Field(default=500_000, ge=1, le=1 << 62)
    rates_per_chunk: int = Field(default=4, ge=1, le=1_000_000)
    n_rates: int = Field(default=51, ge=2, le=100_000)
    """How many values of p there are: each has models of its own to prepare (4 s, revealed, d=5, r=25)."""
    informative: Informative | None = None
    """Where p of long experiments is limited; None: nowhere."""

    @model_validator(mode="after")
    def _ordered(self) -> Curriculum:
        starts = [phase.from_shots for phase in self.rounds]
        if starts[0] != 0 or starts != sorted(set(starts)):
            raise ValueError("rounds phases must begin at from_shots=0 and come in order, no two at the same")
        if self.p_min > self.p_max:
            raise ValueError(f"p_min={self.p_min} is above p_max={self.p_max}")
        return self

    def draw(self, shots_seen: int, rng: np.random.Generator) -> tuple[int, list[float]]:
        """Rounds and error rates of one chunk."""
        phase = [phase for phase in self.rounds if phase.from_shots <= shots_seen][-1]
        rounds = int(rng.choice(phase.rounds))
        return rounds, self.draw_rates(shots_seen, rounds, rng)

    def draw_rates(self, shots_seen: int, rounds: int, rng: np.random.Generator) -> list[float]:
        """Error rates of an experiment of so many rounds."""
        low = self.p_min / self.p_max
        f = np.linspace(low, 1.0, self.n_rates)
        centre = low + (1 - low) / (1 + np.exp(-4 * (shots_seen / self.noise_midpoint - 1)))
        density = 1 + self.noise_weight * np.exp(-((f - centre) ** 2) / (2 * self.noise_width**2))
        density = density * f**-self.tilt
        if self.informative is not None:
            most = self.informative.most_rate(rounds, self.p_max) / self.p_max
            density = density * (f <= max(most, low))
        chosen = rng.choice(f, size=self.rates_per_chunk, p=density / density.sum())
        return [float(x * self.p_max) for x in chosen]

    @property
    def longest(self) -> int:
        """The most rounds of all phases."""
        return max(r for phase in self.rounds for r in phase.rounds)


def _ascending(steps: tuple[int, ...]) -> tuple[int, ...]:
    if list(steps) != sorted(set(steps)):
        raise ValueError("the steps must come in order, none twice")
    return steps


Steps = Annotated[tuple[Positive, ...], Field(max_length=1000), AfterValidator(_ascending)]


class OptimiserConfig(Strict):
    """Learning rate: linear warm-up, constant or falling in steps, then linear decay to zero over the last
    `decay_steps` steps.

    muon: weight matrices (convolutions flattened) learn by orthogonalised momentum at `matrix_rate` on the same
    schedule, everything else by AdamW at `learning_rate`.
    """

    name: Literal["adamw", "muon"] = "adamw"
    learning_rate: Rate = 1e-3
    matrix_rate: Rate = 0.02
    betas: tuple[Share, Share] = (0.9, 0.95)
    weight_decay: float = Field(default=1e-4, ge=0, le=10)
    """Towards 0."""
    start_decay: float = Field(default=0.0, ge=0, le=1e6)
    """Towards the weights that the run starts from: after each step a weight goes `rate * start_decay` of the way back,
    all of it at the most. The paper's fine-tuning has 0.08."""
    warmup_steps: Number = 500
    decay_steps: Number = 0
    fall_steps: Steps = ()
    """From each of these steps on the rate is `fall_factor` times what it was. The paper's falls by 0.7."""
    fall_factor: float = Field(default=0.7, gt=0, le=1)
    clip_norm: float = Field(default=1.0, gt=0, le=1e6)
    ema_decay: Share = 0.999

    def rate_at(self, step: int, steps: int) -> float:
        warm = min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        cool = min(1.0, (steps - step) / self.decay_steps) if self.decay_steps else 1.0
        fallen = self.fall_factor ** sum(at <= step for at in self.fall_steps)
        return self.learning_rate * warm * cool * fallen


class TrainingConfig(Strict):
    """How long, how fast, how often."""

    steps: Positive
    batch_size: BatchSize = 256
    doubling_steps: Steps = ()
    """From each of these steps on a step learns from twice as many batches, by the mean of their gradients: two of
    them take 256 shots to the paper's 1024. For a Teacher."""
    seed: Seed = 0
    optimiser: OptimiserConfig = OptimiserConfig()
    precision: Precision = "fp32"
    compile: bool = False
    device: str = Field(default="cpu", pattern=DEVICES)
    threads: int = Field(default=0, ge=0, le=1024)
    """CPU threads; 0 leaves PyTorch's default. Exact resume holds for equal numbers."""
    checkpoint_minutes: float = Field(default=5.0, ge=0, le=1e6)
    log_every: Positive = 50
    tensorboard: bool = False

    def batches_at(self, step: int) -> int:
        """How many batches a step learns from."""
        return int(2 ** sum(at <= step for at in self.doubling_steps))

    def batches_before(self, step: int) -> int:
        """How many the steps before it have learned from."""
        return step + sum(2**i * max(0, step - at) for i, at in enumerate(self.doubling_steps))


def check_constant_batch(training: TrainingConfig) -> None:
    """ValueError where batches grow that terms count."""
    if training.doubling_steps:
        raise ValueError(
            "training.doubling_steps is for a Teacher's training, the terms of this run count its batches; leave it out"
        )


def check_start(training: TrainingConfig, start_from: str | None) -> None:
    """ValueError where the weights shall decay towards a start that the run has not."""
    if training.optimiser.start_decay and start_from is None:
        raise ValueError(
            "training.optimiser.start_decay draws towards the weights that the run starts from, and this one starts "
            "from fresh ones; set it to 0, or start_from to a saved network"
        )


class DataConfig(Strict):
    """Fresh simulated shots: of a named noise model at p_min to p_max, or of a user's own files, where these two are
    factors on all of their errors (and 1 is always among those of a batch)."""

    distance: Distance
    noise: Annotated[str, AfterValidator(_known_noise)] = "si1000"
    files: tuple[Name, ...] = Field(default=(), max_length=1000)
    """Of noise "files": Stim circuits (.stim), error models (.dem), folders of recordings; of one distance."""
    model: Literal["circuit", "pij", "rl"] = "pij"
    """Of a recording: the model of its noisy circuit, or one that was fitted to data (pij in Sycamore's, rl in
    Willow's)."""
    bases: tuple[Literal["x", "z", "both"], ...] = Field(default=("x", "z"), min_length=1, max_length=3)
    labels: Literal["sampled", "exact", "revealed"] = "sampled"
    """exact: the exact posterior in place of the drawn label (sampling.exact_labels), for distance 3. revealed:
    an unbiased estimate of it (sampling.revealed_labels), for distances 3 and 5; .7 ms a shot and end at d=5, r=5."""
    ends: int = Field(default=0, ge=0, le=10_000)
    """At how many ends a chunk is taught: the last and others drawn anew for each; 0: at all. Each costs a Teacher as
    much as a round, revealed labels as much as they do."""
    end_spacing: int = Field(default=0, ge=0, le=10_000)
    """If not 0, taught at the last end and at every so many rounds before it; `ends` of these, if that is not 0."""
    part_rounds: Rounds | None = None
    """Teach an experiment in parts of so many rounds, a batch each; the network carries its state, detached, from part
    to part (`sampling.parts`). None: an experiment is one batch. Each number of rounds is then a whole number of parts
    and divides the largest."""
    tell_frame: bool = False
    """With exact or sampled labels and `part_rounds`: tell the logical frame where a part begins, so that late rounds
    teach as much as early ones; for networks that keep it as a number of its own (`network.frame_memory`)."""
    curriculum: Curriculum

    @model_validator(mode="after")
    def _fits(self) -> DataConfig:
        if bool(self.files) != (self.noise == FILES):
            raise ValueError(f"files and noise={FILES} belong together; give both or none")
        if self.noise != FILES and self.curriculum.p_max > MOST_RATE:
            raise ValueError(f"p_max={self.curriculum.p_max} is above {MOST_RATE}; it is an error rate")
        if self.noise == FILES and "both" in self.bases:
            raise ValueError("own files are of bases x and z")
        if len(set(self.bases)) != len(self.bases):
            raise ValueError(f"a basis comes twice in {', '.join(self.bases)}")
        if self.labels == "exact" and self.distance > 3:
            raise ValueError(f"labels=exact are for distance 3, not {self.distance}; take revealed or sampled")
        if self.labels == "revealed" and (self.distance > 5 or "both" in self.bases):
            raise ValueError("labels=revealed are for distances 3 and 5 and bases x and z; take sampled")
        if self.tell_frame and (self.part_rounds is None or "both" in self.bases):
            raise ValueError("tell_frame needs part_rounds and bases x and z; leave it out")
        if self.part_rounds is not None:
            self._parts_fit(self.part_rounds)
        return self

    def _parts_fit(self, part: int) -> None:
        if self.labels == "revealed":
            raise ValueError("labels=revealed begin at round 0; with part_rounds take sampled or exact")
        longest = self.curriculum.longest
        for rounds in {r for phase in self.curriculum.rounds for r in phase.rounds}:
            if rounds % part or longest % rounds:
                raise ValueError(
                    f"part_rounds={part}: {rounds} rounds must be whole parts and a divisor of the most, {longest}"
                )


def check_network_fits(distance: int, output: str, data: DataConfig) -> None:
    """ValueError where a network of this distance and output can't learn from these shots."""
    if distance != data.distance:
        raise ValueError(f"the network is of distance {distance}, the shots are of {data.distance}; give both the same")
    if output == "joint4" and data.bases != ("both",):
        raise ValueError(
            f'a network of output joint4 learns from bases ["both"] alone, these are {", ".join(data.bases)}'
        )


def fixed_rounds(
    rounds: int, bases: tuple[Literal["x", "z", "both"], ...], p_min: float, p_max: float, distance: int = 3
) -> DataConfig:
    """Simulated shots of one number of rounds, p uniform between the two."""
    phases = (RoundsPhase(from_shots=0, rounds=(rounds,)),)
    uniform = Curriculum(p_min=p_min, p_max=p_max, tilt=0.0, rounds=phases)
    return DataConfig(distance=distance, noise="si1000", bases=bases, curriculum=uniform)
