"""A Student's objective: a list of weighted terms; a term of weight 0 is not built and changes nothing.

What the Teacher says of a batch is asked live, or read from a cache; the terms cannot tell which.
Axes: B shots, Q rounds compared, K ends, S stabilisers, L lines, C logit channels, P components.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch

from syndistill.distill.losses import posterior_divergence
from syndistill.distill.signals.features import EyesLoss, FeatureLoss
from syndistill.distill.signals.fusion import FusedTarget
from syndistill.distill.signals.teacher import Target, TaughtShots, Teacher
from syndistill.distill.terms import FinalTerm, LabelTerm, ReadoutTerm, Terms
from syndistill.errors import SyndistillError
from syndistill.models.contract import DecoderNetwork, Outputs
from syndistill.sampling.shots import Shots
from syndistill.training.carried import CarriedStates
from syndistill.training.distributed import mean_over_processes
from syndistill.training.objective import Values, coin_loss, label_loss, posterior_loss, wrong_at_last_end

FUSED = FusedTarget.name
MAIN = ("labels", "final", "fused")
"""The terms that say what the decision should be; feature terms are weighed against them."""
SHARES_EVERY = 500  # steps between two measurements of the gradient shares that are logged
HELD_EVERY = 50  # and between those that held shares and gates follow
CERTAIN = 0.999
"""Nobody's knowledge of a frame is surer: a factor of 1 that is wrong would cost without end."""
PULL = 0.25
"""How far a held scale (in log) or a gate goes towards each measurement: half of a change is followed in 120 steps."""


@dataclass(frozen=True, eq=False)
class Lesson:
    """What one batch is compared with: teacher_BKLC, and each `Target` by its name."""

    teacher_BKLC: torch.Tensor | None = None
    targets: dict[str, torch.Tensor] = field(default_factory=dict)


class Lessons:
    """Gives the lesson of each batch. What no term needs is neither asked nor read."""

    def __init__(self, terms: Terms, teacher: Teacher | None, targets: Sequence[Target] = ()) -> None:
        self.teacher = teacher
        self.targets = {target.name: target for target in targets}
        self.shuffled = [name for name, term in terms.features.items() if term.placebo == "shuffled"]
        self.most_rounds = terms.final.most_rounds
        self.needs_logits = any(term.weight > 0 for term in (terms.final, terms.readout, terms.eyes))
        if terms.fused.weight > 0 and FUSED not in self.targets:
            raise SyndistillError("the fused term needs a fusion; name the fuse stage's file, or set fused.weight=0")
        if missing := sorted(terms.features.keys() - self.targets.keys()):
            raise SyndistillError(f"the terms {', '.join(missing)} have no target statistics; measure them first")
        if teacher is not None:
            teacher.require(terms.asked, "a term of this run")

    def of(self, taught: TaughtShots, terms: Collection[str] | None = None) -> Lesson:
        """terms: whose targets are looked at; None: those of all."""
        wanted = {name: target for name, target in self.targets.items() if terms is None or name in terms}
        answered = self._read(taught, wanted)
        lesson = answered if answered is not None else self._asked(taught, wanted)
        for name in lesson.targets.keys() & set(self.shuffled):
            # shots lie in a drawn order, so the next one is any other
            lesson.targets[name] = lesson.targets[name].roll(1, 0)
        return lesson

    def _read(self, taught: TaughtShots, targets: Mapping[str, Target]) -> Lesson | None:
        """From the cache; None when the batch holds nothing of what is needed."""
        held = targets.keys() & taught.kept.keys()
        if not held and (taught.teacher_BKLC is None or not self.needs_logits) and (targets or self.needs_logits):
            return None
        logits = ["final"] if self.needs_logits and taught.teacher_BKLC is None else []
        if missing := sorted(targets.keys() - held) + logits:
            raise SyndistillError(f"the cache holds no {', '.join(missing)}; write one for this run's terms")
        read = {name: target.decode(taught.kept[name]) for name, target in targets.items()}
        return Lesson(taught.teacher_BKLC if self.needs_logits else None, read)

    def _asked(self, taught: TaughtShots, targets: Mapping[str, Target]) -> Lesson:
        if self.teacher is None:
            raise SyndistillError("no Teacher and no cached Teacher logits; give one of them")
        shots = self._asked_about(taught.shots)
        if shots is None:
            return Lesson()
        answer = self.teacher.answer(shots, frozenset[str]().union(*(one.wants for one in targets.values())))
        return Lesson(answer.logits_BKLC, {name: one.of(shots, answer) for name, one in targets.items()})

    def _asked_about(self, shots: Shots) -> Shots | None:
        """The rounds and ends that a Teacher of `most_rounds` is asked about; None where that is no end."""
        if not self.most_rounds or shots.rounds <= self.most_rounds:
            return shots
        kept = [k for k, end in enumerate(shots.ends) if end <= self.most_rounds]
        if not kept:
            return None
        return shots.cut_at(kept)


Loss = Callable[[Outputs, Shots, Lesson], torch.Tensor]


@dataclass(frozen=True)
class Term:
    """loss is unweighted; weight is everything it is multiplied with before fading."""

    name: str
    weight: float
    loss: Loss
    fade_steps: int = 0

    def weight_at(self, step: int) -> float:
        return self.weight * max(0.0, 1 - step / self.fade_steps) if self.fade_steps else self.weight


class HeldScales(torch.nn.Module):
    """Scales of feature terms that keep their shares while gradients change; saved and resumed with the train-only
    modules. shares: by the term's name; scales: those measured at the start of the stage."""

    def __init__(self, shares: Mapping[str, float], scales: Mapping[str, float]) -> None:
        super().__init__()
        self.names, self.shares = frozenset(shares), dict(shares)
        for name in shares:
            self.register_buffer(name, torch.tensor(math.log(scales[name]), dtype=torch.float64))

    def scale(self, name: str) -> float:
        return math.exp(float(self.get_buffer(name)))

    def follow(self, measured: Mapping[str, float]) -> None:
        """measured: the shares that these terms have now, at scale 1; the mean over the processes of a run counts."""
        for name in sorted(self.names & measured.keys()):
            log_scale = self.get_buffer(name)
            share = mean_over_processes(measured[name], log_scale.device)
            if share > 0:
                log_scale += PULL * (math.log(self.shares[name] / share) - log_scale)


class CosineGates(torch.nn.Module):
    """max(0, cosine) of feature terms' gradients and the main terms', smoothed from the first step's on; saved and
    resumed with the train-only modules. names: of the terms."""

    def __init__(self, names: Collection[str]) -> None:
        super().__init__()
        self.names = frozenset(names)
        for name in self.names:
            self.register_buffer(name, torch.ones((), dtype=torch.float64))

    def of(self, name: str) -> float:
        return float(self.get_buffer(name)) if name in self.names else 1.0

    def follow(self, measured: Mapping[str, float], is_first: bool) -> None:
        """measured: the cosines; the mean over the processes of a run counts. is_first: whether it is the first step,
        before which a gate stands for nothing."""
        for name in sorted(self.names & measured.keys()):
            gate = self.get_buffer(name)
            cosine = max(0.0, mean_over_processes(measured[name], gate.device))
            gate += (1.0 if is_first else PULL) * (cosine - gate)


class StudentObjective:
    """Weighted sum of the terms; logs each unweighted, and now and then the gradient shares.

    lessons: where targets come from (default: the Teacher's logits, live or in the batch). features: the losses of the
    feature terms that are on. scales: what makes a feature term's weight 1 its share (`weighting`), 1 where not given.
    gate: weight of each end in the readout term, by the number of rounds. steps: of the stage, for terms that fade
    over a share of them. held: the scales of terms whose share is held, in place of `scales`. gates: of terms that have
    one. eyes: the loss of the eyes term, if that is on. carried: the states that parts of long experiments go on from.
    """

    def __init__(
        self,
        terms: Terms,
        teacher: Teacher | None,
        lessons: Lessons | None = None,
        features: Mapping[str, FeatureLoss] | None = None,
        scales: Mapping[str, float] | None = None,
        gate: Mapping[int, float] | None = None,
        steps: int = 0,
        held: HeldScales | None = None,
        gates: CosineGates | None = None,
        eyes: EyesLoss | None = None,
    ) -> None:
        self.lessons = lessons or Lessons(terms, teacher)
        self.held, self.gates = held, gates
        self.carried = CarriedStates()
        self.needs_teacher = terms.needs_teacher
        features = features or {}
        self.terms = _terms(terms, features, scales or {}, gate, steps, eyes)
        self.sources = {name: features[name].source for name in terms.features}
        if eyes is not None:
            self.sources["eyes"] = eyes.source
        if not self.terms:
            raise SyndistillError("every term has weight 0; a Student needs something to learn from")
        if all(0 < term.fade_steps < steps for term in self.terms):
            raise SyndistillError("every term fades before the last step; give one that stays a weight")
        self._shares: Values = {}

    def __call__(self, model: DecoderNetwork, taught: TaughtShots) -> tuple[torch.Tensor, Values]:
        now = [term for term in self.terms if term.weight_at(taught.number) > 0]
        outputs, losses = self.losses(model, taught, now)
        if taught.number % HELD_EVERY == 0:
            self._follow(model, {t.name: self._own_weight(t) * losses[t.name] for t in now}, taught.number)
        values: Values = {"ler_last": wrong_at_last_end(outputs, taught.shots)}
        loss = torch.zeros((), device=outputs.logits_BKLC.device)
        for term in now:
            values[term.name] = losses[term.name].detach()
            loss = loss + self._weight(term, taught.number) * losses[term.name]
        if len(self.terms) > 1 and (taught.number % SHARES_EVERY == 0 or not self._shares):
            weighted = {term.name: self._weight(term, taught.number) * losses[term.name] for term in now}
            shares = gradient_shares(model, weighted)
            self._shares = {f"share.{name}": torch.tensor(share) for name, share in shares.items()}
        gates = {} if self.gates is None else {f"gate.{n}": torch.tensor(self.gates.of(n)) for n in self.gates.names}
        return loss, values | self._shares | gates

    def _follow(self, model: DecoderNetwork, weighted: Mapping[str, torch.Tensor], step: int) -> None:
        """Scales and gates after the gradients of this step. The first scales were measured at the stage's start."""
        if self.gates is None and (self.held is None or step == 0):
            return
        against = gradients_against_main(model, weighted)
        if self.held is not None and step:
            self.held.follow({name: one.share for name, one in against.items()})
        if self.gates is not None:
            self.gates.follow({name: one.cosine for name, one in against.items()}, step == 0)

    def losses(
        self, model: DecoderNetwork, taught: TaughtShots, terms: Sequence[Term] | None = None
    ) -> tuple[Outputs, dict[str, torch.Tensor]]:
        """The unweighted loss of each of these terms (None: of all); nothing is asked for others."""
        terms = self.terms if terms is None else terms
        names = [term.name for term in terms]
        wanted = sorted({source for name, source in self.sources.items() if name in names})
        outputs = self.carried.outputs(model, taught.shots, wanted)
        lesson = self.lessons.of(taught, names) if self.needs_teacher else Lesson()
        return outputs, {term.name: term.loss(outputs, taught.shots, lesson) for term in terms}

    def _own_weight(self, term: Term) -> float:
        """Of a main term its weight; of a held one 1, without its scale."""
        return 1.0 if self.held is not None and term.name in self.held.names else term.weight

    def _weight(self, term: Term, step: int) -> float:
        scale = self.held.scale(term.name) if self.held is not None and term.name in self.held.names else 1.0
        gate = 1.0 if self.gates is None else self.gates.of(term.name)
        return gate * scale * term.weight_at(step)


class Against(NamedTuple):
    """A term's gradient beside the main terms' together: norm over norm, and the cosine of their angle."""

    share: float
    cosine: float


def gradient_shares(model: torch.nn.Module, weighted: Mapping[str, torch.Tensor]) -> dict[str, float]:
    """Each term's gradient norm over the main terms' together, as `gradients_against_main`."""
    return {name: one.share for name, one in gradients_against_main(model, weighted).items()}


def gradients_against_main(model: torch.nn.Module, weighted: Mapping[str, torch.Tensor]) -> dict[str, Against]:
    """Each term's gradient against the main terms' together, over those of the model's weights that it reaches.

    Empty when there is no main term, or one without a gradient.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    gradients = {
        name: torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        for name, loss in weighted.items()
    }
    main = [gradients[name] for name in weighted if name in MAIN]
    found = {}
    for name, own in gradients.items():
        reached = [i for i, g in enumerate(own) if g is not None]
        together = {i: sum(g[i] for g in main if g[i] is not None) for i in reached}
        both = [(own[i], x) for i, x in together.items() if isinstance(x, torch.Tensor)]
        reference, norm = _norm([x for _, x in both]), _norm([g for g in own if g is not None])
        if reference > 0:
            product = sum(float((g.float() * x.float()).sum()) for g, x in both)
            found[name] = Against(norm / reference, product / (norm * reference) if norm else 0.0)
    return found


def _norm(tensors: list[torch.Tensor]) -> float:
    return float(torch.stack([t.float().square().sum() for t in tensors]).sum().sqrt()) if tensors else 0.0


def _terms(
    terms: Terms,
    features: Mapping[str, FeatureLoss],
    scales: Mapping[str, float],
    gate: Mapping[int, float] | None,
    steps: int,
    eyes: EyesLoss | None,
) -> list[Term]:
    found = []
    if terms.labels.weight:
        found.append(Term("labels", terms.labels.weight, _labels(terms.labels)))
    if terms.final.weight:
        found.append(Term("final", terms.final.weight, _final(terms.final)))
    if terms.readout.weight:
        if terms.readout.gated and gate is None:
            raise SyndistillError("a gated readout term needs the gate's weights; measure them first")
        found.append(Term("readout", terms.readout.weight, _readout(terms.readout, gate)))
    for name, term in terms.features.items():
        if name not in features:
            raise SyndistillError(f"the {name} term has no adapter and statistics; prepare them first")
        weight = term.weight * scales.get(name, 1.0)
        found.append(Term(name, weight, _feature(name, features[name]), term.fades_over(steps)))
    if eyes is not None:
        found.append(Term("eyes", terms.eyes.weight, _eyes(eyes)))
    if terms.fused.weight:
        found.append(Term("fused", terms.fused.weight, _fused(terms.fused.temperature)))
    if terms.frame.weight:
        fade_steps = max(1, round(terms.frame.fade * steps)) if terms.frame.fade else 0
        found.append(Term("frame", terms.frame.weight, _frame(terms.frame.delay), fade_steps))
    return found


def _frame(delay: int) -> Loss:
    def loss(outputs: Outputs, shots: Shots, _: Lesson) -> torch.Tensor:
        """Of the rounds between two ends; before an experiment's first round no frame is turned, before a told part's
        it is the one that is told."""
        turns_BRFC, frames_BKLO = outputs.turns_BRFC, shots.frames_BKLO
        if turns_BRFC is None or frames_BKLO is None:
            raise SyndistillError("the frame term needs a network of frame_memory and simulated shots; leave it out")
        signs_BKFC = 1 - 2 * frames_BKLO[:, :, : turns_BRFC.shape[2]].float()
        known_BFC = None if shots.first_round else torch.ones_like(signs_BKFC[:, 0])
        if shots.known_BLO is not None:
            known_BFC = 1 - 2 * shots.known_BLO[:, : turns_BRFC.shape[2]].float()
        losses, begin = [turns_BRFC.sum() * 0.0], 0
        for k, end in enumerate(shots.ends):
            behind = end + delay
            if behind > shots.rounds:
                break
            if known_BFC is not None:
                agrees_BFC = turns_BRFC[:, begin:behind].prod(1) * signs_BKFC[:, k] * known_BFC
                losses.append(math.log(2) - torch.log1p(CERTAIN * agrees_BFC).mean())
            known_BFC, begin = signs_BKFC[:, k], behind
        return torch.stack(losses).sum() / max(1, len(losses) - 1)

    return loss


def _labels(term: LabelTerm) -> Loss:
    def loss(outputs: Outputs, shots: Shots, _: Lesson) -> torch.Tensor:
        labels = shots.labels_BKLO
        if labels is None:
            raise SyndistillError("these shots carry no labels; set labels.weight=0 or use shots that do")
        posterior = shots.posterior_BKLP
        if posterior is None:
            loss_BKL = label_loss(outputs.logits_BKLC, labels)
        else:
            loss_BKL = posterior_loss(outputs.logits_BKLC, posterior)
        if term.smoothing:
            loss_BKL = (1 - term.smoothing) * loss_BKL + term.smoothing * coin_loss(outputs.logits_BKLC)
        if term.where == "last":
            return loss_BKL[:, -1, 0].mean()
        return loss_BKL.mean() if term.lines == "all" else loss_BKL[:, :, 0].mean()

    return loss


def _final(term: FinalTerm) -> Loss:
    ends = slice(None) if term.where == "every" else slice(-1, None)

    def loss(outputs: Outputs, _: Shots, lesson: Lesson) -> torch.Tensor:
        if lesson.teacher_BKLC is None:
            assert term.most_rounds  # which is before the first of these ends
            return outputs.logits_BKLC.sum() * 0.0
        asked = slice(0, lesson.teacher_BKLC.shape[1])  # the first ends, where not all
        own_BKC, teacher_BKC = outputs.logits_BKLC[:, asked][:, ends, 0], lesson.teacher_BKLC[:, ends, 0]
        return posterior_divergence(own_BKC, teacher_BKC, term.temperature).mean()

    return loss


def _readout(term: ReadoutTerm, gate: Mapping[int, float] | None) -> Loss:
    def loss(outputs: Outputs, shots: Shots, lesson: Lesson) -> torch.Tensor:
        own_BKLC = outputs.alone_BKLC if term.alone else outputs.logits_BKLC
        assert own_BKLC is not None
        assert lesson.teacher_BKLC is not None
        divergence_BKL = posterior_divergence(own_BKLC, lesson.teacher_BKLC, term.temperature)
        if gate is None:
            return divergence_BKL.mean()
        weights_K = torch.tensor([gate[end] for end in shots.ends], device=divergence_BKL.device)
        return (divergence_BKL.mean((0, 2)) * weights_K).mean()

    return loss


def _fused(temperature: float) -> Loss:
    def loss(outputs: Outputs, _: Shots, lesson: Lesson) -> torch.Tensor:
        return posterior_divergence(outputs.logits_BKLC, lesson.targets[FUSED], temperature).mean()

    return loss


def _eyes(eyes_loss: EyesLoss) -> Loss:
    def loss(outputs: Outputs, shots: Shots, lesson: Lesson) -> torch.Tensor:
        assert lesson.teacher_BKLC is not None
        return eyes_loss(outputs.signals[eyes_loss.source], shots, lesson.teacher_BKLC)

    return loss


def _feature(name: str, feature_loss: FeatureLoss) -> Loss:
    def loss(outputs: Outputs, shots: Shots, lesson: Lesson) -> torch.Tensor:
        return feature_loss(outputs.signals[feature_loss.source], lesson.targets[name], shots.basis)

    return loss
