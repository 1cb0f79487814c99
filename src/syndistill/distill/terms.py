"""What a Student learns from, as settings: each term is switched by its weight alone.

Axes: B shots, R rounds, K ends, S stabilisers, L lines.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from syndistill.training.config import Number, Rounds, Share, Strict, Temperature, Weight

Where = Literal["last", "every"]
FeatureLossName = Literal["normalised_mse", "log4", "cosine", "gram", "gram_shots"]
Directions = Literal["variance", "answer"]
Projector = Literal["linear", "orthogonal", "ensemble"]
Placebo = Literal["none", "shuffled", "random"]
UNTRAINED = "untrained."
"""Before a signal's name: that of the same network with fresh weights."""


class LabelTerm(Strict):
    """Cross-entropy with the true label: of the experiment's line at the last end, or of every end and line."""

    weight: Weight = 1.0
    where: Where = "last"
    lines: Literal["all", "first"] = "all"
    """Of where=every; first: of the experiment's line alone, the one that decoders ask for."""
    smoothing: Share = 0.0
    """The label counts 1 - smoothing, a fair coin the rest."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.where == "last" and self.lines == "first":
            raise ValueError("where=last is of the first line alone; lines is for where=every")
        return self


class FinalTerm(Strict):
    """Divergence from the Teacher's final posterior, all that a black-box Teacher gives: of the last end, or of every
    end, each the last of a shorter experiment."""

    weight: Weight = 1.0
    temperature: Temperature = 1.0
    where: Where = "last"
    most_rounds: int = Field(default=0, ge=0, le=10_000)
    """Of where=every: at ends after so many rounds at most, up to which the Teacher is good; 0: at all."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.most_rounds and self.where == "last":
            raise ValueError("most_rounds is for where=every: the last end comes after all rounds")
        return self


class ReadoutTerm(Strict):
    """Divergence from the Teacher's posterior of every end and line: its whole response to "if it ended here"."""

    weight: Weight = 0.0
    temperature: Temperature = 1.0
    gated: bool = False
    """Weigh each end by how far the Teacher's NLL is below the entropy of the base rate there; fixed at the start."""
    alone: bool = False
    """Of what each line says by itself, before the lines agree on one answer (`DecoderNetwork.lines_agree`). The answer
    alone asks no line to be right, and lines that are wrong each in its own way hold a frame together for few rounds.
    """


class FusedTerm(Strict):
    """Divergence from z_fuse at every end and line: the main loss of stage 2."""

    weight: Weight = 0.0
    temperature: Temperature = 1.0


class FeatureTerm(Strict):
    """Hold the Student's hidden states against the Teacher's, standardised and reduced to a few directions."""

    weight: Weight = 0.0
    share: float | None = Field(default=0.2, gt=0, le=1000)
    """Gradient norm that weight 1 has, as a share of the main terms' norm over the same weights; measured at the start
    of the stage, then fixed, or `held`. None: weight 1 is the plain loss."""
    held: bool = False
    """Whether the share is measured again every 50 steps, smoothed, and held: the main terms' gradient falls as they
    are learned, so that a weight that is fixed grows in share."""
    loss: FeatureLossName = "normalised_mse"
    gate: Literal["none", "cosine"] = "none"
    """cosine: the weight counts max(0, cosine of the term's gradient and the main terms'), measured every 50 steps and
    smoothed: where the two oppose each other, the feature gives way."""
    projector: Projector = "linear"
    """The train-only map from the Student's state: any linear one, one that can only turn and scale (orthogonal), or
    the mean of three linear ones (ensemble)."""
    components: int = Field(default=8, ge=0, le=4096)
    """Directions of the target; 0: as many as hold 95 % of its variance, or of what moves the answer."""
    directions: Directions = "variance"
    """variance: the principal ones. answer: those that the Teacher's logit is most sensitive to."""
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
        if self.loss == "gram_shots" and self.projector != "linear":
            raise ValueError("gram_shots compares shots with shots, whatever their widths; leave projector out")
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


class EyesTerm(Strict):
    """Divergence from the Teacher's posterior of what its own frozen readout says when it is given the Student's state
    in place of its own, through a train-only linear map: what does not matter to the answer costs nothing."""

    weight: Weight = 0.0
    temperature: Temperature = 1.0
    where: Where = "last"


class FrameTerm(Strict):
    """Cross-entropy of a frame memory with what it should hold: whether the frame of each line turned between two ends,
    compared with its factors `delay` rounds later. Simulated shots know it (`Shots.frames_BKLO`). A network that has no
    frame to look at learns to remember flips in its states instead, and a local GRU stays there."""

    weight: Weight = 0.0
    delay: Number = 2
    """Rounds that an error may be seen for before the frame must say so."""
    fade: float = Field(default=0.0, ge=0, le=1)
    """The weight falls linearly to 0 over this share of the stage's steps; 0: it stays."""


class Terms(Strict):
    """Everything that a Student can learn from; the defaults are the baseline's."""

    labels: LabelTerm = LabelTerm()
    final: FinalTerm = FinalTerm()
    readout: ReadoutTerm = ReadoutTerm()
    spatial: SpatialTerm = SpatialTerm()
    temporal: FeatureTerm = FeatureTerm()
    fused: FusedTerm = FusedTerm()
    eyes: EyesTerm = EyesTerm()
    frame: FrameTerm = FrameTerm()

    @property
    def terms(self) -> Terms:
        """The terms alone, without what a stage's section adds."""
        return Terms(**{name: getattr(self, name) for name in Terms.model_fields})

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
        """Everything that a Teacher must offer, but what the fusion wants."""
        names = {"final"} if self.final.weight or self.eyes.weight else set()
        if self.readout.weight or any(t.weight and t.where == "every" for t in (self.final, self.eyes)):
            names.add("readout")
        if self.eyes.weight:
            names |= {"temporal", "answer_from"}
        if any(term.directions == "answer" for term in self.features.values()):
            names.add("gradients")
        return frozenset(names | {self.teacher_signal(name) for name in self.features})

    @property
    def goes_inside(self) -> bool:
        """Whether something is learned that a black box does not say."""
        return bool(self.features) or self.readout.weight > 0 or self.eyes.weight > 0

    @property
    def needs_teacher(self) -> bool:
        return bool(self.asked) or self.fused.weight > 0

    @property
    def needs_every_end(self) -> bool:
        """Whether the ends before the last one are looked at."""
        return self.needs_whole_history or self.fused.weight > 0

    @property
    def needs_whole_history(self) -> bool:
        """Whether shots that have but their last end are too little: z_fuse is followed at the ends that there are."""
        looked_at = (self.labels, self.final, self.eyes)
        where_every = any(term.weight > 0 and term.where == "every" for term in looked_at)
        return where_every or any(term.weight > 0 for term in (self.readout, self.frame))


def numbered(name: str, layer: int | None) -> str:
    return name if layer is None else f"{name}.{layer}"
