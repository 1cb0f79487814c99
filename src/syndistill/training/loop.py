"""The loop: one for Teacher and Student, resumable to the bit.

A run folder holds run.json (what to do), state.safetensors (where it stands), metrics.jsonl (what happened)
and, when done, whatever its caller saves.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch

from syndistill.errors import SyndistillError
from syndistill.models.contract import DecoderNetwork
from syndistill.models.device import usable_device
from syndistill.models.tensors_file import Tensors, load_tensors, save_tensors
from syndistill.reporter import Bar
from syndistill.safe_files import parsed, reason, write_text
from syndistill.safe_lines import append_text, cut_torn_line
from syndistill.sampling.stream import BatchSource, ShotStream
from syndistill.training.carried import CarriedStates
from syndistill.training.config import OptimiserConfig, TrainingConfig
from syndistill.training.distributed import LossModule, join_world, parallel, share, wait_for_all
from syndistill.training.precision import denormals_flushed, warn_if_emulated
from syndistill.training.run_folder import run_key
from syndistill.training.watch import Watch

STATE = "state.safetensors"
METRICS = "metrics.jsonl"


def make_optimiser(parameters: list[torch.nn.Parameter], config: OptimiserConfig) -> torch.optim.Optimizer:
    if config.name == "adamw":
        return torch.optim.AdamW(
            parameters, lr=config.learning_rate, betas=config.betas, weight_decay=config.weight_decay, fused=True
        )
    from pytorch_optimizer import Muon

    shared: dict[str, Any] = {"lr": config.learning_rate, "weight_decay": config.weight_decay}
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "use_muon": True},
        {"params": [p for p in parameters if p.ndim < 2], "use_muon": False, "betas": config.betas},
    ]
    optimiser = Muon([shared | group for group in groups if group["params"]])
    for group in optimiser.param_groups:
        group["times"] = config.matrix_rate / config.learning_rate if group["use_muon"] else 1.0
    return optimiser


class StartDecay:
    """The pull back to the weights that a network has now, of the strength of `OptimiserConfig.start_decay`.

    After the optimiser's step and decoupled from its gradients, at the rate of each weight's group.
    """

    def __init__(self, model: torch.nn.Module, optimiser: torch.optim.Optimizer) -> None:
        self.optimiser = optimiser  # its groups are others after `load_state_dict`
        self.start = {p: p.detach().clone() for p in model.parameters() if p.requires_grad}

    @torch.no_grad()
    def step(self, strength: float) -> None:
        for group in self.optimiser.param_groups:
            if parameters := [p for p in group["params"] if p in self.start]:
                way = min(1.0, group["lr"] * strength)
                torch._foreach_lerp_(parameters, [self.start[p] for p in parameters], way)


class Batch(Protocol):
    """What sources make and objectives take."""

    def __len__(self) -> int: ...

    def to(self, device: torch.device | str) -> Batch: ...


class Trainer:
    """Steps a network through a source of batches.

    model: with the weights that it starts from, also where the folder holds a later state. extra: train-only modules
    (adapters and the like). shared: under torchrun, whether the source makes this process's
    share of each batch, which is otherwise taken of the whole. carried: the objective's, saved and resumed. watch: ends
    the run early.
    """

    def __init__(
        self,
        model: DecoderNetwork,
        objective: Callable[[DecoderNetwork, Any], tuple[torch.Tensor, dict[str, torch.Tensor]]],
        source: BatchSource[Any],
        config: TrainingConfig,
        folder: Path,
        extra: torch.nn.Module | None = None,
        shared: bool = False,
        carried: CarriedStates | None = None,
        watch: Watch | None = None,
    ) -> None:
        self.carried, self.watch = carried or CarriedStates(), watch
        self.model, self.source, self.config, self.folder = model, source, config, folder
        self.shared = shared
        if config.threads:
            torch.set_num_threads(config.threads)
        self.device = usable_device(config.device)
        warn_if_emulated(config.precision, self.device)
        self.trained = torch.nn.ModuleDict({"model": model} | ({"extra": extra} if extra is not None else {}))
        self.trained.to(self.device)
        self.world = join_world(self.device)
        if config.compile:
            model.compile_blocks()
        self.parameters = [p for p in self.trained.parameters() if p.requires_grad]
        self.loss_module = parallel(LossModule(self.trained, objective), self.world)
        self.optimiser = make_optimiser(self.parameters, config.optimiser)
        self.start_decay = StartDecay(model, self.optimiser) if config.optimiser.start_decay else None
        self.ema = {k: v.detach().clone() for k, v in self.trained.state_dict().items()}
        self.step = 0

    def run(self, bar: Bar | None = None) -> None:
        """Train to `config.steps`, going on from the folder's state if there is one."""
        if (self.folder / STATE).exists():
            self.load()
        if self._looks_done():
            return
        stream = ShotStream(self.source, self.config.batches_before(self.step))
        log = _Log(self.folder, self.config, self.step) if self.world.is_first else None
        saved = time.monotonic()
        try:
            batches = iter(stream)
            while self.step < self.config.steps:
                mine = [next(batches) for _ in range(self.config.batches_at(self.step))]
                rate = self._rate()
                values = self.train_step(*mine)
                if log is not None:
                    log.add(self.step, values, len(mine) * self.config.batch_size, rate)
                    if bar is not None:
                        bar.to(self.step, log.latest)
                if self._looks_done():
                    break
                if self.world.is_first and time.monotonic() - saved > 60 * self.config.checkpoint_minutes:
                    self.save()
                    saved = time.monotonic()
        finally:
            stream.close()
            if log is not None:
                log.close()
        if self.world.is_first:
            self.save()
        wait_for_all(self.world)

    def _looks_done(self) -> bool:
        """Whether no step is to follow, after a look at the development shots where there are some."""
        if self.watch is not None:
            self.watch.look(self.step, self.ema_state)
        return self.step >= self.config.steps or (self.watch is not None and self.watch.has_ended)

    def train_step(self, *batches: Batch) -> dict[str, torch.Tensor]:
        """One optimiser step by the mean of the batches' gradients; returns the means of the objective's values, and
        the gradient norm."""
        self.trained.train()
        for group in self.optimiser.param_groups:
            group["lr"] = self._rate() * group.get("times", 1.0)
        found = [self._add_gradient(shots, len(batches)) for shots in batches]
        means = {key: torch.stack([values[key] for values in found if key in values]).mean() for key in found[-1]}
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.config.optimiser.clip_norm)
        if not torch.isfinite(norm):
            raise SyndistillError(
                f"the gradient is not finite at step {self.step}; lower the learning rate, the last checkpoint stands"
            )
        self.optimiser.step()
        if self.start_decay is not None:
            self.start_decay.step(self.config.optimiser.start_decay)
        self.optimiser.zero_grad()
        self.step += 1
        self._update_ema()
        return {**means, "gradient_norm": norm.detach()}

    def _add_gradient(self, shots: Batch, n_batches: int) -> dict[str, torch.Tensor]:
        """Of one of the step's batches; returns its loss and the objective's values."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16"):
            mine = shots if self.shared else share(shots, self.world)
            loss, values = self.loss_module(mine.to(self.device))
        with denormals_flushed():
            (loss / n_batches).backward()
        return {"loss": loss.detach(), **values}

    @property
    def shots_seen(self) -> int:
        return self.config.batches_before(self.step) * self.config.batch_size

    def _rate(self) -> float:
        return self.config.optimiser.rate_at(self.step, self.config.steps)

    def _update_ema(self) -> None:
        # Warm-up as 1 - 1/(step + 1): a short run must not carry its initial weights.
        decay = min(self.config.optimiser.ema_decay, 1 - 1 / (self.step + 1))
        current = self.trained.state_dict()
        floats = [k for k, v in current.items() if v.is_floating_point()]
        torch._foreach_lerp_([self.ema[k] for k in floats], [current[k] for k in floats], 1 - decay)

    def ema_state(self) -> dict[str, torch.Tensor]:
        """The averaged weights of the model alone: what is evaluated and shipped."""
        return {k.removeprefix("model."): v for k, v in self.ema.items() if k.startswith("model.")}

    def ema_extra_state(self) -> dict[str, torch.Tensor]:
        return {k.removeprefix("extra."): v for k, v in self.ema.items() if k.startswith("extra.")}

    def save(self) -> None:
        tensors = {f"weights.{k}": v for k, v in self.trained.state_dict().items()}
        tensors |= {f"ema.{k}": v for k, v in self.ema.items()}
        tensors |= self.carried.tensors()
        tensors |= {} if self.watch is None else self.watch.tensors()
        save_tensors(self.folder / STATE, tensors | _pack_optimiser(self.optimiser), self._said())

    def _said(self) -> dict[str, object]:
        run = run_key(self.folder)
        return {"step": self.step} | ({} if run is None else {"run": run})

    def load(self) -> None:
        tensors, metadata = load_tensors(self.folder / STATE)
        weights = {k.removeprefix("weights."): v for k, v in tensors.items() if k.startswith("weights.")}
        step, run = metadata.get("step"), run_key(self.folder)
        if not isinstance(step, int) or metadata.get("run", run) != run:
            raise SyndistillError(f"{self.folder / STATE} is of another run than this folder's; use a fresh folder")
        try:
            self.trained.load_state_dict(weights)
            self.ema = {k: tensors[f"ema.{k}"].to(self.device) for k in self.ema}
            _unpack_optimiser(self.optimiser, tensors)
            self.carried.load(tensors, self.device)
            if self.watch is not None:
                self.watch.load(tensors)
        except (RuntimeError, KeyError, ValueError):  # PyTorch's message has a line per weight
            raise SyndistillError(
                f"{self.folder / STATE} is of another network than this run's; use a fresh folder"
            ) from None
        self.step = step


class _Log:
    """metrics.jsonl: means over `log_every` steps, one line each; a resumed run cuts what it will write again."""

    def __init__(self, folder: Path, config: TrainingConfig, step: int) -> None:
        self.every = config.log_every
        self.latest: dict[str, float] = {}  # nothing is known before the first line
        self.path = folder / METRICS
        _cut(self.path, step)
        self.writer = _tensorboard(folder) if config.tensorboard else None
        self._reset()

    def _reset(self) -> None:
        self.sums: dict[str, torch.Tensor] = {}
        self.steps, self.shots, self.started = 0, 0, time.monotonic()

    def add(self, step: int, values: dict[str, torch.Tensor], shots: int, rate: float) -> None:
        for key, value in values.items():
            self.sums[key] = self.sums.get(key, torch.zeros(())) + value.float()
        self.steps += 1
        self.shots += shots
        if step % self.every == 0:
            self.latest = {k: float(v) / self.steps for k, v in self.sums.items()}
            speed = self.shots / (time.monotonic() - self.started)
            line = {"step": step, **self.latest, "learning_rate": rate, "shots_per_second": speed}
            append_text(self.path, json.dumps(line) + "\n", sync=False)
            if self.writer is not None:
                for name, number in line.items():
                    self.writer.add_scalar(name, number, step)
            self._reset()

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()


def _cut(path: Path, step: int) -> None:
    """The log as it was at this step."""
    cut_torn_line(path)
    try:
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    except OSError as error:
        raise SyndistillError(f"cannot read {path}: {reason(error)}; move it away, the log then begins anew") from None
    steps = [_step_of(path, number, line) for number, line in enumerate(lines, start=1)]
    if any(at > step for at in steps):
        write_text(path, b"".join(line for line, at in zip(lines, steps, strict=True) if at <= step).decode())


def _step_of(path: Path, number: int, line: bytes) -> int:
    try:
        content = parsed(line)
        if type(content["step"]) is int:
            return int(content["step"])
    except (ValueError, KeyError, TypeError):
        pass
    raise SyndistillError(f"{path} line {number} is damaged: delete that line, nothing is learned from it")


def _tensorboard(folder: Path):  # type: ignore[no-untyped-def]
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise SyndistillError("TensorBoard is not installed: pip install 'syndistill[tensorboard]'") from None
    return SummaryWriter(folder / "tensorboard")


def _pack_optimiser(optimiser: torch.optim.Optimizer) -> Tensors:
    """Flat tensors "optimiser.<parameter>.<key>" of everything the optimiser remembers."""
    flat: Tensors = {}
    for index, state in optimiser.state_dict()["state"].items():
        for key, value in state.items():
            if value is not None:
                flat[f"optimiser.{index}.{key}"] = torch.as_tensor(value)
    for index, group in enumerate(optimiser.param_groups):
        if "step" in group:  # where pytorch_optimizer counts
            flat[f"optimiser.group{index}.step"] = torch.as_tensor(group["step"])
    return flat


def _unpack_optimiser(optimiser: torch.optim.Optimizer, tensors: Tensors) -> None:
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimiser.") and not name.startswith("optimiser.group"):
            _, index, key = name.split(".", 2)
            state.setdefault(int(index), {})[key] = value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
    for number, group in enumerate(optimiser.param_groups):
        if (steps := tensors.get(f"optimiser.group{number}.step")) is not None:
            group["step"] = int(steps)
