"""What a Student learns from, as settings: each term is switched by its weight alone.

Axes: B shots, R rounds, K ends, S stabilisers, L lines.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from syndistill.training.config import Number, Rounds, Share, Strict, Temperature, Weight

Where = Literal["last", "every"]
FeatureLossName = Literal["normalised_mse", "cosine", "gram"]
Placebo = Literal["none", "shuffled", "random"]
UNTRAINED = "untrained."
"""Before a signal's name: that of the same network with fresh weights."""


class LabelTerm(Strict):
    """Cross-entropy with the true label: of the experiment's line at the last end, or of every end and line."""

    weight: Weight = 1.0
    where: Where = "last"
    smoothing: Share = 0.0
    """The label counts 1 - smoothing, a fair coin the rest."""


class FinalTerm(Strict):
    """Divergence from the Teacher's final posterior, all that a black-box Teacher gives: of the last end, or of every
    end, each the last of a shorter experiment."""

    weight: Weight = 1.0
    temperature: Temperature = 1.0
    where: Where = "last"


class ReadoutTerm(Strict):
    """Divergence from the Teacher's posterior of every end and line: its whole response to "if it ended here"."""

    weight: Weight = 0.0
    temperature: Temperature = 1.0
    gated: bool = False
    """Weigh each end by how far the Teacher's NLL is below the entropy of the base rate there; fixed at the start."""


class FusedTerm(Strict):
    """Divergence from z_fuse at every end and line: the main loss of stage 2."""

    weight: Weight = 0.0
    temperature: Temperature = 1.0


class FeatureTerm(Strict):
    """Hold the Student's hidden states against the Teacher's, standardised and reduced to principal components."""

    weight: Weight = 0.0
    share: float | None = Field(default=0.2, gt=0, le=1000)
    """Gradient norm that weight 1 has, as a share of the main terms' norm over the same weights; measured at the start
    of the stage, then fixed, or `held`. None: weight 1 is the plain loss."""
    held: bool = False
    """Whether the share is measured again every 50 steps, smoothed, and held: the main terms' gradient falls as they
    are learned, so that a weight that is fixed grows in share."""
    loss: FeatureLossName = "normalised_mse"
    components: int = Field(default=8, ge=0, le=4096)
    """Principal directions of the target; 0: as many as hold 95 % of its variance."""
    every_rounds: Rounds = 2
    """Rounds 1, 1 + every_rounds, ... are compared."""
    fade_steps: Number = 0
    """The weight falls linearly to 0 over so many steps; 0: it stays. Afterwards the term costs nothing."""
    fade: float = Field(default=0.0, ge=0, le=1)
    """The same as a share of the stage's steps; 0: it stays."""
    placebo: Placebo = "none"
    """Targets without knowledge, for a control: those of another shot of the batch, or those of a Teacher with fresh
    weights."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.held and self.share is None:
            raise ValueError("held keeps a share; give one, or leave held out")
        if self.fade and self.fade_steps:
            raise ValueError("fade and fade_steps say the same; give one of them")
        return self

    def fades_over(self, steps: int) -> int:
        """In a stage of so many steps; 0: not at all."""
        return max(1, round(self.fade * steps)) if self.fade else self.fade_steps


class SpatialTerm(FeatureTerm):
    """Hidden states inside a round."""

    layer: int | None = Field(default=None, ge=0, lt=64)
    """After which layer of the Teacher; None: its middle one."""
    student_layer: int | None = Field(default=None, ge=0, lt=64)
    """Likewise of the Student, for families that number theirs."""


class Terms(Strict):
    """Everything that a Student can learn from; the defaults are the baseline's."""

    labels: LabelTerm = LabelTerm()
    final: FinalTerm = FinalTerm()
    readout: ReadoutTerm = ReadoutTerm()
    spatial: SpatialTerm = SpatialTerm()
    temporal: FeatureTerm = FeatureTerm()
    fused: FusedTerm = FusedTerm()

    @property
    def features(self) -> dict[str, FeatureTerm]:
        """The feature terms that are on."""
        both: dict[str, FeatureTerm] = {"spatial": self.spatial, "temporal": self.temporal}
        return {name: term for name, term in both.items() if term.weight}

    def teacher_signal(self, name: str) -> str:
        """What the Teacher is asked for: "spatial.1" where a layer is chosen."""
        term = self.spatial if name == "spatial" else self.temporal
        prefix = UNTRAINED if term.placebo == "random" else ""
        return prefix + numbered(name, self.spatial.layer if name == "spatial" else None)

    @property
    def asked(self) -> frozenset[str]:
        """Every signal that a Teacher must offer, but what the fusion wants."""
        names = {"final"} if self.final.weight else set()
        if self.readout.weight or (self.final.weight and self.final.where == "every"):
            names.add("readout")
        return frozenset(names | {self.teacher_signal(name) for name in self.features})

    @property
    def needs_teacher(self) -> bool:
        return bool(self.asked) or self.fused.weight > 0

    @property
    def needs_every_end(self) -> bool:
        """Whether the ends before the last one are looked at."""
        where_every = any(term.weight > 0 and term.where == "every" for term in (self.labels, self.final))
        return where_every or self.readout.weight > 0 or self.fused.weight > 0


def numbered(name: str, layer: int | None) -> str:
    return name if layer is None else f"{name}.{layer}"
