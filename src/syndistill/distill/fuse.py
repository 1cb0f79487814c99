"""The fuse stage: probes on the frozen Teacher, the weights of its paths, and what z_fuse is worth.

Axes: B shots, K ends, L lines, C logit channels, O observables, P paths.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import NormalDist
from typing import Annotated, Any, Literal, NamedTuple

import torch
from pydantic import Field, model_validator

from syndistill.distill.signals.ensemble import check_labels_for, teacher_named
from syndistill.distill.signals.fusion import (
    FUSION_FILE,
    SAME,
    Fusion,
    FusionConfig,
    ProbeObjective,
    exact_label_loss,
    fit_gate,
    fit_weights,
    has_probe,
    members_of,
    probe_width,
    save_fusion,
    verdict_of,
)
from syndistill.distill.signals.teacher import Teacher
from syndistill.errors import SyndistillError
from syndistill.files.network_file import EXACT, members_in
from syndistill.models.device import usable_device
from syndistill.reporter import SILENT, Reporter
from syndistill.safe_files import read_sealed, write_json, write_sealed
from syndistill.sampling.shots import Shots
from syndistill.sampling.stream import Labels
from syndistill.statistics.calibration import ece, fitted_temperature
from syndistill.statistics.rates import CONFIDENCE, wilson
from syndistill.training.config import (
    DataConfig,
    Name,
    OptimiserConfig,
    Positive,
    Strict,
    TrainingConfig,
    check_constant_batch,
    check_start,
)
from syndistill.training.distributed import join_world
from syndistill.training.loop import Trainer
from syndistill.training.objective import joint_class
from syndistill.training.run_folder import open_run
from syndistill.training.source import simulated_source, statistics_shots

CALIBRATED = "calibrated final"
FUSED = "z_fuse"
REPORT_FILE = "fuse_report.json"
LOOKS_FILE = "probes.json"
LOOKS = 10


class Interval(NamedTuple):
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float


def best_temperature(logits_BC: torch.Tensor, labels_BO: torch.Tensor) -> float:
    """The T of the least NLL of logits / T; 1 for a calibrated posterior."""
    return fitted_temperature(lambda t: float(nll_B(logits_BC / t, labels_BO).mean()))


def nll_B(logits_BC: torch.Tensor, labels_BO: torch.Tensor) -> torch.Tensor:
    """Nats per shot."""
    return exact_label_loss(logits_BC.double()[:, None, None], labels_BO[:, None, None])[:, 0, 0]


def decisions(logits_BC: torch.Tensor) -> torch.Tensor:
    """What is decided: (B, 1) the class, or (B, C) whether each observable flipped."""
    return logits_BC.argmax(-1, keepdim=True) if logits_BC.shape[-1] == 4 else logits_BC > 0


def wrong_B(logits_BC: torch.Tensor, labels_BO: torch.Tensor) -> torch.Tensor:
    """Whether any observable is decided wrongly, bool."""
    truth = joint_class(labels_BO)[:, None] if logits_BC.shape[-1] == 4 else labels_BO.bool()
    return (decisions(logits_BC) != truth).any(-1)


def calibration_error(logits_BC: torch.Tensor, labels_BO: torch.Tensor) -> float:
    """ECE over 15 bins of equal mass of the predicted probability: of a flip, or for joint4 of each class."""
    if logits_BC.shape[-1] == 4:
        p, hit = torch.softmax(logits_BC.double(), -1), torch.nn.functional.one_hot(joint_class(labels_BO), 4)
    else:
        p, hit = torch.sigmoid(logits_BC.double()), labels_BO
    return ece(p.flatten().numpy(), hit.flatten().numpy())


def fuse_report(
    paths: Mapping[str, torch.Tensor],
    final_BC: torch.Tensor,
    fused_BC: torch.Tensor,
    labels_BO: torch.Tensor,
    temperature: float,
    weights: Mapping[str, float],
) -> dict[str, Any]:
    """Scores of each path, of z_fuse and of final / temperature, and the paired NLL difference that the gate judges.

    temperature: fitted on other shots than these. "better" is whether z_fuse's NLL is lower with 95 % confidence.
    """
    if len(labels_BO) < 2:
        raise SyndistillError(f"{len(labels_BO)} shots: a report needs more")
    calibrated_BC = final_BC / temperature
    rows = dict(paths) | {"final": final_BC, CALIBRATED: calibrated_BC, FUSED: fused_BC}
    difference = mean_interval(nll_B(fused_BC, labels_BO) - nll_B(calibrated_BC, labels_BO))
    return {
        "shots": len(labels_BO),
        "weights": dict(weights),
        "calibration_temperature": temperature,
        "paths": {name: _scores(logits, labels_BO, final_BC) for name, logits in rows.items()},
        "nll_fused_minus_calibrated": difference._asdict(),
        "better": difference.high < 0,
    }


def _scores(logits_BC: torch.Tensor, labels_BO: torch.Tensor, final_BC: torch.Tensor) -> dict[str, Any]:
    wrong = wrong_B(logits_BC, labels_BO)
    errors, shots = int(wrong.sum()), len(wrong)
    return {
        "ler": Interval(errors / shots, *wilson(errors, shots))._asdict(),
        "nll": mean_interval(nll_B(logits_BC, labels_BO))._asdict(),
        "ece": calibration_error(logits_BC, labels_BO),
        "best_temperature": best_temperature(logits_BC, labels_BO),
        "agreement_with_final": float((decisions(logits_BC) == decisions(final_BC)).all(-1).double().mean()),
    }


def mean_interval(values_B: torch.Tensor) -> Interval:
    """With a normal interval."""
    mean = float(values_B.mean())
    half = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2) * float(values_B.std()) / math.sqrt(len(values_B))
    return Interval(mean, mean - half, mean + half)


FitShots = Annotated[int, Field(ge=1, le=10_000_000)]
ReportShots = Annotated[int, Field(ge=2, le=10_000_000)]
PATIENCE, LEAST_GAIN = 3, 2e-3
Look = dict[str, Any]
"""{"step", "loss"}: of the averaged probes on shots held out."""


class FuseRun(Strict):
    """Everything that z_fuse depends on. All its shots are of the role "probe": no Student learns from them.

    data.labels: what the probes learn beside the Teacher's posterior; weights are fitted, and all is judged, with drawn
    labels.
    """

    kind: Literal["fuse"] = "fuse"
    teacher: Name
    """As of a `RoadRun`."""
    data: DataConfig
    fusion: FusionConfig = FusionConfig()
    fit_shots: FitShots = 8192
    """On which weights and the calibration temperature are fitted; the probes have not seen them."""
    report_shots: ReportShots = 16384
    """On which z_fuse is judged; nothing was fitted to them."""
    check_shots: Positive = 1024
    """On which it is seen whether the probes still improve; nothing else is done with them."""
    training: TrainingConfig
    """Of the probes; `steps` is the most that they take: a tenth of it is the time between two looks, and after three
    without a gain the rate falls to 0 over the last tenth."""

    @model_validator(mode="after")
    def _consistent(self) -> FuseRun:
        if "exact" in self.fusion.paths and self.data.labels != "exact":
            raise ValueError("the path exact is of shots with exact labels; set data.labels=exact (distance 3)")
        check_labels_for(self.teacher, self.data)
        check_start(self.training, None)
        check_constant_batch(self.training)
        if self.data.part_rounds is not None:
            raise ValueError("the fuse stage looks at whole experiments; leave part_rounds out")
        return self

    def shots(self, seed: int, shots: int) -> list[Shots]:
        """Batches to fit, look or judge on."""
        wanted = {*self.fusion.paths, *members_in(self.teacher)}
        labels: Literal["sampled", "exact"] = EXACT if EXACT in wanted else "sampled"
        return statistics_shots(self.data, seed, shots, "probe", labels)


class Fuse(Strict):
    """Probes and z_fuse: a road's section."""

    fusion: FusionConfig = FusionConfig()
    labels: Labels = "sampled"
    """That the probes learn from."""
    fit_shots: FitShots = 8192
    report_shots: ReportShots = 16384
    training: TrainingConfig

    def run(self, teacher: str, simulated: DataConfig) -> FuseRun:
        return FuseRun(
            teacher=teacher,
            data=simulated.model_copy(update={"labels": self.labels}),
            fusion=self.fusion,
            fit_shots=self.fit_shots,
            report_shots=self.report_shots,
            training=self.training,
        )


def check_fuse(run: FuseRun, teacher: Teacher) -> None:
    """All that can be refused before a file is written."""
    usable_device(run.training.device)
    teacher.require({"readout"} | {run.fusion.signal(path) for path in run.fusion.paths}, "the fuse stage")
    members_of(run.fusion, teacher.layout, teacher.output)
    if teacher.layout.distance != run.data.distance:
        raise SyndistillError(
            f"the Teacher {run.teacher} is of distance {teacher.layout.distance}, data.distance is "
            f"{run.data.distance}; give them the same"
        )


def train_fusion(
    run: FuseRun,
    folder: Path,
    reporter: Reporter = SILENT,
    teacher: Teacher | None = None,
    first: Callable[[], None] = lambda: None,
) -> Path:
    """Train (or go on) in `folder`; returns the fusion's path. fuse_report.json says what z_fuse is worth.

    first: called once the run has its folder, before it learns.
    """
    teacher = teacher or teacher_named(run.teacher, data=run.data)
    check_fuse(run, teacher)
    world = join_world(torch.device(run.training.device))
    with open_run(folder, run, {"teacher": teacher.key()}, FUSION_FILE, world):
        first()
        return _train(run, folder, reporter, teacher)


def _train(run: FuseRun, folder: Path, reporter: Reporter, teacher: Teacher) -> Path:
    seed = run.training.seed
    fusion = _fresh_fusion(run, teacher)
    looks = train_probes(run, fusion, teacher, folder, reporter) if fusion.probes else []
    if looks and not stopped_improving(looks):
        reporter.say(
            f"the probes still improve after {run.training.steps:,} steps, all they may take: raise training.steps"
        )
    reporter.say(f"fitting z_fuse on {run.fit_shots:,} shots, judging it on {run.report_shots:,} others")
    fit = _Measured.of(fusion, teacher, run.shots(seed + 1, run.fit_shots))
    if run.fusion.mode in ("nll", "per_shot"):
        fusion.weights_P.copy_(fit_weights(fit.logits_PBKLC, fit.labels_BKLO, run.fusion.negative))
    if fusion.gate is not None:
        fusion.gate.begin_at(fusion.weights_P)
        fit_gate(fusion.gate, fit.logits_PBKLC, fit.labels_BKLO, seed)
    judged = _Measured.of(fusion, teacher, run.shots(seed + 2, run.report_shots))
    report = judged.report(fusion, best_temperature(fit.final_BC(), fit.labels_BO()))
    # Weights are fitted over all ends and lines; held against a temperature of the last end alone they lost by that.
    every = judged.every_end(fusion, fit)
    report |= {"better_at_last_end": report["better"], "every_end_and_line": every, "better": every["better"]}
    verdict = verdict_of(every["better"], report["paths"][FUSED]["agreement_with_final"])
    report |= {"rounds": run.data.curriculum.longest, "mode": run.fusion.mode, "verdict": verdict, "probes": looks}
    if verdict == SAME:
        agreement = report["paths"][FUSED]["agreement_with_final"]
        reporter.say(
            f"WARNING: z_fuse is the same target as the Teacher's final logit: they agree on {agreement:.2%} of shots"
        )
    elif not report["better"]:
        reporter.say("WARNING: z_fuse is not better in NLL than the Teacher's calibrated final logit")
    write_json(folder / REPORT_FILE, report)
    path = folder / FUSION_FILE
    kept = ("better", "verdict", "better_at_last_end", "every_end_and_line", "shots", "weights")
    said = {key: report[key] for key in kept}
    save_fusion(path, fusion, teacher, said)
    return path


def _fresh_fusion(run: FuseRun, teacher: Teacher) -> Fusion:
    """Initial weights as a function of the seed alone."""
    shots = run.shots(run.training.seed, 2)[0]
    widths = {
        path: probe_width(teacher, shots, run.fusion.signal(path)) for path in run.fusion.paths if has_probe(path)
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(run.training.seed)
        return Fusion(run.fusion, teacher.layout, teacher.output, widths)


def train_probes(run: FuseRun, fusion: Fusion, teacher: Teacher, folder: Path, reporter: Reporter) -> list[Look]:
    """Until they stop improving on shots held out, or for training.steps: at a constant rate, then falling to 0.

    The fusion ends with the averaged weights. Killed, it goes on from the folder: the looks are kept there.
    """
    training, file = run.training, folder / LOOKS_FILE
    source = simulated_source(run.data, training.batch_size, training.seed, role="probe")
    held_out = run.shots(training.seed + 3, run.check_shots)
    objective = ProbeObjective(teacher)
    trainer = Trainer(fusion, objective, source, training, folder)  # type: ignore[arg-type]
    bar = reporter.bar("fuse", training.steps, training.batch_size)
    apart = max(1, training.steps // LOOKS)
    constant = training.optimiser.model_copy(update={"decay_steps": 0})

    def train_to(step: int, optimiser: OptimiserConfig) -> None:
        trainer.config = training.model_copy(update={"steps": step, "optimiser": optimiser})
        trainer.run(bar)

    looks: list[Look] = []
    if file.is_file():
        looks = read_sealed(file, "start in a fresh folder", dict[str, list[Look]])["looks"]
    while not stopped_improving(looks) and (step := apart * (len(looks) + 1)) + apart <= training.steps:
        train_to(step, constant)
        looks.append({"step": step, "loss": _held_out_loss(trainer, objective, held_out)})
        write_sealed(file, {"looks": looks})
    end = apart * (len(looks) + 1)
    train_to(end, constant.model_copy(update={"decay_steps": apart}))
    fusion.load_state_dict(trainer.ema_state())
    fusion.cpu()
    return looks


def stopped_improving(looks: Sequence[Look]) -> bool:
    """Whether the last few looks are all no better than the best before by a share of LEAST_GAIN."""
    if len(looks) <= PATIENCE:
        return False
    losses = [look["loss"] for look in looks]
    return min(losses[-PATIENCE:]) > (1 - LEAST_GAIN) * min(losses[:-PATIENCE])


@torch.no_grad()
def _held_out_loss(trainer: Trainer, objective: ProbeObjective, held_out: Sequence[Shots]) -> float:
    """Of the averaged weights."""
    averaged = copy.deepcopy(trainer.model)
    averaged.load_state_dict(trainer.ema_state())
    losses = [objective(averaged.eval(), shots.to(trainer.device))[0] for shots in held_out]
    return float(torch.stack(losses).mean())


class _Measured:
    """The paths' logits and the truth on some shots of all bases."""

    def __init__(self, logits: list[torch.Tensor], finals: list[torch.Tensor], labels: list[torch.Tensor]) -> None:
        self.logits_PBKLC, self.final_BKLC = torch.cat(logits, 1), torch.cat(finals)
        self.labels_BKLO = torch.cat(labels)

    @classmethod
    @torch.no_grad()
    def of(cls, fusion: Fusion, teacher: Teacher, batches: Sequence[Shots]) -> _Measured:
        fusion.eval()
        logits, finals, labels = [], [], []
        for shots in batches:
            answer = teacher.answer(shots, fusion.wants)
            logits.append(fusion.path_logits(shots, answer))
            finals.append(answer.logits_BKLC)
            assert shots.labels_BKLO is not None
            labels.append(shots.labels_BKLO)
        return cls(logits, finals, labels)

    def final_BC(self) -> torch.Tensor:
        return self.final_BKLC[:, -1, 0]

    def labels_BO(self) -> torch.Tensor:
        return self.labels_BKLO[:, -1, 0]

    def report(self, fusion: Fusion, temperature: float) -> dict[str, Any]:
        names = fusion.config.paths
        paths_PBC = self.logits_PBKLC[:, :, -1, 0]
        fused_BC = fusion.fused(self.logits_PBKLC[:, :, -1:, :1]).detach()[:, 0, 0]
        weights = dict(zip(names, fusion.weights_P.tolist(), strict=True))
        named = {str(name): logits for name, logits in zip(names, paths_PBC, strict=True) if name != "readout"}
        return fuse_report(named, self.final_BC(), fused_BC, self.labels_BO(), temperature, weights)

    def every_end(self, fusion: Fusion, fit: _Measured) -> dict[str, Any]:
        """The same NLL difference where stage 2 learns: the mean over ends and lines, per shot, T fitted there too."""
        temperature = best_temperature(fit.final_BKLC.flatten(0, 2), fit.labels_BKLO.flatten(0, 2))
        fused_BKLC = fusion.fused(self.logits_PBKLC).detach()
        labels = self.labels_BKLO.flatten(0, 2)
        fused, calibrated = (
            nll_B(logits.flatten(0, 2), labels).view(len(logits), -1).mean(1)
            for logits in (fused_BKLC, self.final_BKLC / temperature)
        )
        difference = mean_interval(fused - calibrated)
        return {
            "calibration_temperature": temperature,
            "nll_fused_minus_calibrated": difference._asdict(),
            "better": difference.high < 0,
        }


def probe_training(steps: int) -> TrainingConfig:
    """Small heads on a frozen Teacher learn fast; its forward is what takes time."""
    warmup = min(20, steps // 4)
    optimiser = OptimiserConfig(learning_rate=2e-3, warmup_steps=warmup, decay_steps=steps // 2, ema_decay=0.99)
    return TrainingConfig(steps=steps, batch_size=256, log_every=min(25, max(1, steps // 4)), optimiser=optimiser)
