"""z_fuse: one logit from several paths through the Teacher, at every end and line.

Axes: B shots, K ends, L lines, C logit channels, P paths.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from scipy.optimize import minimize
from torch import nn

from syndistill.circuits.layout import Layout
from syndistill.distill.probes import PROBES
from syndistill.distill.teacher import Answer, Teacher
from syndistill.distill.terms import numbered
from syndistill.errors import SyndistillError
from syndistill.models.contract import OutputForm
from syndistill.models.tensors_file import load_tensors, save_tensors
from syndistill.sampling.shots import Shots
from syndistill.training.config import Strict
from syndistill.training.objective import joint_class

WHAT = "syndistill fusion"
Path_ = Literal["transformer", "state", "readout"]


class FusionConfig(Strict):
    """Which paths, how large their probes are, and how their logits become one."""

    paths: tuple[Path_, ...] = ("transformer", "state", "readout")
    """transformer: a probe inside the pass over the last slice; state: one on the recurrent state; readout: the
    Teacher's own logit."""
    layer: int | None = Field(default=None, ge=0, lt=64)
    """After which layer of the Teacher the transformer's probe reads; None: its middle one."""
    readout_width: int = Field(default=32, gt=0, le=4096)
    readout_layers: int = Field(default=1, ge=0, le=64)
    mode: Literal["mean", "fixed", "nll"] = "nll"
    """Weights of the paths: equal; `weights`; or those of the least NLL on shots of their own."""
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
        return {"transformer": numbered("ends", self.layer), "state": "temporal", "readout": "readout"}[path]


class Fusion(nn.Module):
    """Probes and weights: from shots and the Teacher's answer to z_fuse_BKLC = sum_p weights_P[p] logits of path p.

    A joint4 output is fused on its four logits.
    """

    weights_P: torch.Tensor

    def __init__(self, config: FusionConfig, layout: Layout, output: OutputForm, widths: dict[str, int]) -> None:
        super().__init__()
        self.config, self.layout, self.output, self.widths = config, layout, output, widths
        self.wants = frozenset(config.signal(path) for path in config.paths)
        self.probes = nn.ModuleDict(
            {
                path: PROBES[path](layout, widths[path], config.readout_width, config.readout_layers, output)
                for path in config.paths
                if path in PROBES
            }
        )
        n = len(config.paths)
        self.register_buffer("weights_P", torch.tensor(config.weights or [1 / n] * n))

    def probe_logits(self, shots: Shots, answer: Answer) -> dict[str, torch.Tensor]:
        return {path: probe(shots, answer.signals[self.config.signal(path)]) for path, probe in self.probes.items()}

    def path_logits(self, shots: Shots, answer: Answer) -> torch.Tensor:
        """logits_PBKLC in the order of the config's paths."""
        found = self.probe_logits(shots, answer) | {"readout": answer.logits_BKLC}
        return torch.stack([found[path].float() for path in self.config.paths])

    def forward(self, shots: Shots, answer: Answer) -> torch.Tensor:
        return torch.tensordot(self.weights_P, self.path_logits(shots, answer), 1)

    def key(self, teacher: str) -> str:
        """A hash of everything that z_fuse depends on."""
        digest = hashlib.sha256(f"{teacher} {self.config.model_dump_json()}".encode())
        for name, tensor in sorted(self.state_dict().items()):
            digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()


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


def save_fusion(path: Path, fusion: Fusion, teacher: Teacher, said: dict[str, Any]) -> None:
    """Probes and weights in a file of their own, with the Teacher that they belong to and what was found of them."""
    header = {
        "what": WHAT,
        "teacher": teacher.key(),
        "config": fusion.config.model_dump(mode="json"),
        "distance": fusion.layout.distance,
        "output": fusion.output,
        "widths": fusion.widths,
        "said": said,
    }
    save_tensors(path, fusion.state_dict(), header)


def load_fusion(path: Path, teacher: Teacher) -> tuple[Fusion, dict[str, Any]]:
    """The fusion (frozen) and what was said of it. SyndistillError for one of another Teacher, or no fusion."""
    tensors, header = load_tensors(path)
    if header.get("what") != WHAT:
        raise SyndistillError(f"{path} holds no fusion; the fuse stage writes one")
    if header["teacher"] != teacher.key():
        raise SyndistillError(f"{path} was fused from another Teacher than this run's; run the fuse stage on this one")
    config = FusionConfig.model_validate(header["config"])
    widths: dict[str, int] = header["widths"]  # type: ignore[assignment]
    with torch.random.fork_rng(devices=[]):
        fusion = Fusion(config, Layout(int(header["distance"])), header["output"], widths)  # type: ignore[arg-type, call-overload]
    try:
        fusion.load_state_dict(tensors)
    except RuntimeError:
        raise SyndistillError(f"{path}: weights and config do not fit each other; get a fresh copy") from None
    said: dict[str, Any] = header["said"]  # type: ignore[assignment]
    return fusion.eval().requires_grad_(False), said
