"""z_fuse: one logit from several paths through the Teacher, at every end and line.

Axes: B shots, K ends, L lines, C logit channels, P paths.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from scipy.optimize import minimize
from torch import nn

from syndistill.circuits.layout import Layout
from syndistill.distill.losses import posterior_divergence, posterior_logits
from syndistill.distill.signals.teacher import Answer, FrozenTeacher, Target, Teacher
from syndistill.distill.terms import numbered
from syndistill.errors import SyndistillError
from syndistill.files.families import OutputForm
from syndistill.models.blocks import LineReadout
from syndistill.models.contract import defined_only, event_history
from syndistill.models.networks import load_network
from syndistill.models.tensors_file import load_tensors, save_tensors
from syndistill.sampling.shots import Shots
from syndistill.training.changes import validated
from syndistill.training.config import Strict
from syndistill.training.objective import Values, joint_class, label_loss, posterior_loss

MAX_ROUNDS = 25  # rounds with an embedding of their own, as in the networks
WHAT = "syndistill fusion"
FUSION_FILE = "fusion.safetensors"
SAME = "the same target"
SAME_TARGET = 0.999
"""Where z_fuse decides as the final logit on more than this share of shots, it is no other target."""
LOGIT_SIZE = 4.0  # that the gate's inputs are of order 1
NETWORK = "network:"


class EndsProbe(nn.Module):
    """From the hidden states inside the pass over the last slice, with the readout's own line pooling."""

    def __init__(self, layout: Layout, width: int, readout_width: int, layers: int, output: str) -> None:
        super().__init__()
        self.readout = LineReadout(layout, width, readout_width, layers, MAX_ROUNDS, output)

    def forward(self, shots: Shots, signal_BKSD: torch.Tensor) -> torch.Tensor:
        """logits_BKLC."""
        return _all_ends(self.readout, shots, signal_BKSD)


class StateProbe(nn.Module):
    """From the recurrent state of each end's round, and the last slice: without it no state knows a label.

    The slice enters as its events, the final parities, and whether it is defined. before: the states of so many rounds
    before are read too, the first round's again where there are fewer.
    """

    def __init__(
        self, layout: Layout, width: int, readout_width: int, layers: int, output: str, before: int = 0
    ) -> None:
        super().__init__()
        self.before = before
        self.merge = nn.Sequential(nn.Linear((before + 1) * width + 3, width), nn.GELU(), nn.Linear(width, width))
        self.readout = LineReadout(layout, width, readout_width, layers, MAX_ROUNDS, output)

    def forward(self, shots: Shots, signal_BRSD: torch.Tensor) -> torch.Tensor:
        """logits_BKLC."""
        shots = defined_only(shots)
        _, _, last_parity_BKS, _ = event_history(shots)
        back = range(self.before + 1)
        state_BKSD = torch.cat([signal_BRSD[:, [max(0, end - 1 - n) for end in shots.ends]] for n in back], -1)
        defined_S = torch.from_numpy(shots.layout.on_basis_S(shots.basis)).to(state_BKSD.device)
        bits = [shots.last_BKS, last_parity_BKS, defined_S.expand(last_parity_BKS.shape)]
        slice_BKS3 = torch.stack([x.to(state_BKSD.dtype) for x in bits], -1)
        return _all_ends(self.readout, shots, self.merge(torch.cat([state_BKSD, slice_BKS3], -1)))


def _all_ends(readout: LineReadout, shots: Shots, x_BKSD: torch.Tensor) -> torch.Tensor:
    rounds_N = torch.tensor(shots.ends, device=x_BKSD.device).repeat(len(shots))
    return readout(x_BKSD.flatten(0, 1), rounds_N, shots.basis).unflatten(0, (len(shots), len(shots.ends)))


def has_probe(path: str) -> bool:
    return path.partition(".")[0] in ("transformer", "state")


def probe_of(path: str, layout: Layout, width: int, readout_width: int, layers: int, output: str) -> nn.Module:
    kind, _, number = path.partition(".")
    if kind == "transformer":
        return EndsProbe(layout, width, readout_width, layers, output)
    return StateProbe(layout, width, readout_width, layers, output, int(number or 0))


def probe_width(teacher: Teacher, shots: Shots, signal: str) -> int:
    """D of a per-stabiliser signal. SyndistillError for a flat one: lines cannot be pooled from it."""
    found = teacher.answer(shots.take(slice(0, 1)), [signal]).signals[signal]
    if found.ndim != 4:
        raise SyndistillError(
            f"the Teacher's {signal} is flat, shape {tuple(found.shape)}; a probe needs one state per stabiliser, "
            "leave this path out of the fusion"
        )
    return int(found.shape[-1])


class ProbeObjective:
    """Each probe's divergence from the Teacher's posterior plus the label's cross-entropy (drawn, revealed or exact, as
    the shots carry it), at every end and line."""

    def __init__(self, teacher: Teacher) -> None:
        self.teacher = teacher

    def __call__(self, fusion: nn.Module, shots: Shots) -> tuple[torch.Tensor, Values]:
        if shots.labels_BKLO is None:
            raise SyndistillError("these shots carry no labels; probes need some")
        answer: Answer = self.teacher.answer(shots, fusion.wants)  # type: ignore[arg-type]  # a Fusion
        values: Values = {}
        loss = torch.zeros((), device=answer.logits_BKLC.device)
        for name, logits_BKLC in fusion.probe_logits(shots, answer).items():  # type: ignore[operator]
            divergence = posterior_divergence(logits_BKLC, answer.logits_BKLC).mean()
            if shots.posterior_BKLP is None:
                nll = label_loss(logits_BKLC, shots.labels_BKLO).mean()
            else:
                nll = posterior_loss(logits_BKLC, shots.posterior_BKLP).mean()
            loss = loss + divergence + nll
            values |= {f"{name}.kl": divergence.detach(), f"{name}.nll": nll.detach()}
        return loss, values


GATE_WIDTH, GATE_RATE, GATE_STEPS, GATE_LOOK, GATE_PATIENCE = 16, 1e-2, 400, 10, 4
FusionPath = Annotated[str, Field(pattern=r"^(transformer(\.\d{1,2})?|state(\.[1-9]\d?)?|readout|exact|network:.+)$")]
DEFAULT_PATHS: tuple[str, ...] = ("transformer", "state", "readout")


class FusionConfig(Strict):
    """Which paths, how large their probes are, and how their logits become one."""

    paths: tuple[FusionPath, ...] = DEFAULT_PATHS
    """transformer: a probe inside the pass over the last slice, transformer.M: after layer M; state: one on the
    recurrent state, state.N: also on those of the N rounds before; readout: the Teacher's own logit; network:NAME: the
    logit of another network, such as an earlier leg or another seed; exact: the exact posterior, the limit (of shots
    with labels=exact)."""
    layer: int | None = Field(default=None, ge=0, lt=64)
    """After which layer of the Teacher the transformer's probe reads; None: its middle one."""
    readout_width: int = Field(default=32, gt=0, le=4096)
    readout_layers: int = Field(default=1, ge=0, le=64)
    mode: Literal["mean", "fixed", "nll", "per_shot"] = "nll"
    """Weights of the paths: equal; `weights`; those of the least NLL on shots of their own; or those that a small gate
    gives each shot, which begins with the latter and is trained on the same shots."""
    weights: tuple[Annotated[float, Field(ge=-100, le=100)], ...] = ()
    negative: bool = False
    """Whether fitted weights may be below 0."""

    @model_validator(mode="after")
    def _consistent(self) -> FusionConfig:
        if not self.paths or len(set(self.paths)) != len(self.paths):
            raise ValueError("paths must name each path once, and at least one")
        if (self.mode == "fixed") != bool(self.weights):
            raise ValueError("weights belong to mode fixed, and only to it")
        if self.weights and len(self.weights) != len(self.paths):
            raise ValueError(f"{len(self.weights)} weights for {len(self.paths)} paths")
        return self

    def signal(self, path: str) -> str:
        """What a path needs the Teacher to offer."""
        kind, _, number = path.partition(".")
        if kind == "transformer":
            return numbered("ends", int(number) if number else self.layer)
        return "temporal" if kind == "state" else "readout"

    @property
    def networks(self) -> dict[str, str]:
        """The other networks among the paths, by path."""
        return {path: path.removeprefix(NETWORK) for path in self.paths if path.startswith(NETWORK)}


class PathGate(nn.Module):
    """Weights of the paths, none below 0, from their own logits, for each shot, end, line and observable.

    What the gate sees does not change where a line's label is turned: log-odds times the sign of their mean. Of four
    classes it sees all paths' log probabilities.
    """

    def __init__(self, n_paths: int, output: OutputForm) -> None:
        super().__init__()
        self.joint = output == "joint4"
        n_in = 4 * n_paths if self.joint else n_paths
        self.network = nn.Sequential(nn.Linear(n_in, GATE_WIDTH), nn.GELU(), nn.Linear(GATE_WIDTH, n_paths))

    def begin_at(self, weights_P: torch.Tensor) -> None:
        """The same weights for every shot."""
        last = self.network[-1]
        assert isinstance(last, nn.Linear)
        with torch.no_grad():
            last.weight.zero_()
            last.bias.copy_(weights_P.double().clamp(min=1e-3).expm1().log())  # softplus, undone

    def forward(self, logits_PBKLC: torch.Tensor) -> torch.Tensor:
        """z_fuse_BKLC."""
        if self.joint:
            seen = F.log_softmax(logits_PBKLC, -1).permute(1, 2, 3, 0, 4).flatten(-2)[..., None, :]
        else:
            seen = (logits_PBKLC * logits_PBKLC.mean(0).sign()).movedim(0, -1)
        weights_PBKLC = F.softplus(self.network(seen / LOGIT_SIZE)).movedim(-1, 0)
        return (weights_PBKLC * logits_PBKLC).sum(0)


class Fusion(nn.Module):
    """Probes and weights: from shots and the Teacher's answer to z_fuse_BKLC = sum_p weights_P[p] logits of path p.

    A joint4 output is fused on its four logits. members: the other networks among the paths, frozen, no part of the
    state. Where there is a gate, weights_P are those that it began with.
    """

    weights_P: torch.Tensor

    def __init__(self, config: FusionConfig, layout: Layout, output: OutputForm, widths: dict[str, int]) -> None:
        super().__init__()
        self.config, self.layout, self.output, self.widths = config, layout, output, widths
        self.wants = frozenset(config.signal(path) for path in config.paths)
        self.members = members_of(config, layout, output)
        size = (config.readout_width, config.readout_layers, output)
        probes = {_key(path): probe_of(path, layout, width, *size) for path, width in widths.items()}
        self.probes = nn.ModuleDict(probes)
        n = len(config.paths)
        self.gate = PathGate(n, output) if config.mode == "per_shot" else None
        self.register_buffer("weights_P", torch.tensor(config.weights or [1 / n] * n))

    def probe_logits(self, shots: Shots, answer: Answer) -> dict[str, torch.Tensor]:
        return {
            path: self.probes[_key(path)](shots, answer.signals[self.config.signal(path)])
            for path in self.config.paths
            if _key(path) in self.probes
        }

    def path_logits(self, shots: Shots, answer: Answer) -> torch.Tensor:
        """logits_PBKLC in the order of the config's paths."""
        found = self.probe_logits(shots, answer) | {"readout": answer.logits_BKLC}
        found |= {path: member.logits(shots) for path, member in self.members.items()}
        if "exact" in self.config.paths:
            found["exact"] = posterior_logits(shots, self.output)
        return torch.stack([found[path].float() for path in self.config.paths])

    def fused(self, logits_PBKLC: torch.Tensor) -> torch.Tensor:
        """z_fuse of the paths' logits, also of a part of the ends or lines."""
        if self.gate is not None:
            gated: torch.Tensor = self.gate(logits_PBKLC)
            return gated
        return torch.tensordot(self.weights_P, logits_PBKLC, 1)

    def forward(self, shots: Shots, answer: Answer) -> torch.Tensor:
        return self.fused(self.path_logits(shots, answer))

    def key(self, teacher: str) -> str:
        """A hash of everything that z_fuse depends on."""
        digest = hashlib.sha256(f"{teacher} {self.config.model_dump_json()}".encode())
        for path, member in self.members.items():
            digest.update(f"{path} {member.key()}".encode())
        for name, tensor in sorted(self.state_dict().items()):
            digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()


def _key(path: str) -> str:
    """Of a path's probe: a module's name has no dot."""
    return path.replace(".", "-")


def members_of(config: FusionConfig, layout: Layout, output: OutputForm) -> dict[str, FrozenTeacher]:
    """The other networks among the paths; SyndistillError for one of another distance or output."""
    found = {}
    for path, name in config.networks.items():
        member = FrozenTeacher(load_network(name)[0])
        if (member.layout, member.output) != (layout, output):
            raise SyndistillError(
                f"the path {path} is of distance {member.layout.distance} and output {member.output}, the Teacher of "
                f"{layout.distance} and {output}; name a network of the Teacher's"
            )
        found[path] = member
    return found


class _Split(NamedTuple):
    logits_PBKLC: torch.Tensor
    labels_BKLO: torch.Tensor


def fit_gate(gate: PathGate, logits_PBKLC: torch.Tensor, labels_BKLO: torch.Tensor, seed: int) -> None:
    """Train on three quarters of the shots, keep what was best on the last quarter: what it began with, at worst."""
    order_B = torch.randperm(len(labels_BKLO), generator=torch.Generator().manual_seed(seed))
    n_learned = len(order_B) * 3 // 4
    learned, held = (
        _Split(logits_PBKLC[:, rows], labels_BKLO[rows]) for rows in (order_B[:n_learned], order_B[n_learned:])
    )
    optimiser = torch.optim.AdamW(gate.parameters(), lr=GATE_RATE)
    best, kept, since = float("inf"), gate.state_dict(), 0
    for step in range(GATE_STEPS):
        if step % GATE_LOOK == 0:
            with torch.no_grad():
                loss = float(exact_label_loss(gate(held.logits_PBKLC), held.labels_BKLO).mean())
            since = 0 if loss < best else since + 1
            if since == 0:
                best, kept = loss, {name: x.clone() for name, x in gate.state_dict().items()}
            if since > GATE_PATIENCE:
                break
        optimiser.zero_grad()
        with torch.enable_grad():
            exact_label_loss(gate(learned.logits_PBKLC), learned.labels_BKLO).mean().backward()
        optimiser.step()
    gate.load_state_dict(kept)


def fit_weights(logits_PBKLC: torch.Tensor, labels_BKLO: torch.Tensor, negative: bool = False) -> torch.Tensor:
    """The weights of the least mean NLL over shots, ends and lines: a convex problem, from equal weights on.

    negative: whether they may be below 0; a path that only contradicts the others is else left out.
    """
    logits = logits_PBKLC.double()
    n = len(logits)

    def nll(weights: Any) -> tuple[float, Any]:
        w_P = torch.tensor(weights, dtype=torch.float64, requires_grad=True)
        loss = exact_label_loss(torch.tensordot(w_P, logits, 1), labels_BKLO).mean()
        (gradient_P,) = torch.autograd.grad(loss, w_P)
        return float(loss.detach()), gradient_P.numpy()

    bounds = None if negative else [(0.0, None)] * n
    found = minimize(nll, [1 / n] * n, jac=True, method="L-BFGS-B", bounds=bounds)
    if not found.success:
        raise SyndistillError(f"the weights of the fusion cannot be fitted ({found.message}); use mode mean")
    return torch.tensor(found.x, dtype=torch.float32)


def exact_label_loss(logits_BKLC: torch.Tensor, labels_BKLO: torch.Tensor) -> torch.Tensor:
    """`label_loss` in the precision of the logits, (B, K, L): a search over weights sees float32's noise."""
    if logits_BKLC.shape[-1] == 4:
        return F.cross_entropy(logits_BKLC.movedim(-1, 1), joint_class(labels_BKLO), reduction="none")
    labels = labels_BKLO.to(logits_BKLC.dtype)
    return F.binary_cross_entropy_with_logits(logits_BKLC, labels, reduction="none").mean(-1)


class FusedTarget(Target):
    """z_fuse of every end and line, (B, K, L, C), kept as float16."""

    name, every_rounds = "fused", None

    def __init__(self, fusion: Fusion, teacher: str) -> None:
        """teacher: its key."""
        self.fusion, self.teacher, self.wants = fusion, teacher, fusion.wants

    @property
    def content(self) -> str:
        return self.fusion.key(self.teacher)

    @torch.no_grad()
    def of(self, shots: Shots, answer: Answer) -> torch.Tensor:
        z_BKLC: torch.Tensor = self.fusion.to(answer.logits_BKLC.device)(shots, answer)
        return z_BKLC

    def encode(self, target: torch.Tensor) -> torch.Tensor:
        return target.half()

    def decode(self, kept: torch.Tensor) -> torch.Tensor:
        return kept.float()

    def bytes_per_shot(self, rounds: int, layout: Layout, channels: int) -> int:
        return 2 * rounds * layout.n_lines * channels


def verdict_of(better: bool, agreement: float) -> str:
    """agreement: of z_fuse's decisions with the final logit's, as a share of shots."""
    if agreement > SAME_TARGET:
        return SAME
    return "better" if better else "not better"


def save_fusion(path: Path, fusion: Fusion, teacher: Teacher, said: dict[str, Any]) -> None:
    """Probes and weights in a file of their own, with the Teacher that they belong to and what was found of them."""
    header: dict[str, object] = {
        "what": WHAT,
        "teacher": teacher.key(),
        "config": fusion.config.model_dump(mode="json"),
        "distance": fusion.layout.distance,
        "output": fusion.output,
        "widths": fusion.widths,
        "said": said,
    } | ({"networks": {path: member.key() for path, member in fusion.members.items()}} if fusion.members else {})
    save_tensors(path, fusion.state_dict(), header)


def load_fusion(path: Path, teacher: Teacher) -> tuple[Fusion, dict[str, Any]]:
    """The fusion (frozen) and what was said of it. SyndistillError for one of another Teacher, or no fusion."""
    tensors, header = load_tensors(path)
    if header.get("what") != WHAT:
        raise SyndistillError(f"{path} holds no fusion; the fuse stage writes one")
    if header["teacher"] != teacher.key():
        raise SyndistillError(f"{path} was fused from another Teacher than this run's; run the fuse stage on this one")
    config = validated(FusionConfig, header["config"], f"{path} is of another version")
    widths: dict[str, int] = header["widths"]  # type: ignore[assignment]
    with torch.random.fork_rng(devices=[]):
        fusion = Fusion(config, Layout(int(header["distance"])), header["output"], widths)  # type: ignore[arg-type, call-overload]
    if {path: member.key() for path, member in fusion.members.items()} != header.get("networks", {}):
        raise SyndistillError(f"{path} was fused with other weights of {', '.join(config.networks)}; run it anew")
    try:
        fusion.load_state_dict(tensors)
    except RuntimeError:
        raise SyndistillError(f"{path}: weights and config do not fit each other; get a fresh copy") from None
    said: dict[str, Any] = header["said"]  # type: ignore[assignment]
    return fusion.eval().requires_grad_(False), said
