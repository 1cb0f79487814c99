"""What bends a Teacher's learning curve: the same network from scratch under one change at a time, d=3, r=5.

Each arm trains for the same processor time on one thread (compilation left out) and is compared with the exact
posterior of held-out shots: at equal shots and at equal time.

    python benchmarks/learning_per_second.py [--seconds 60] [--arms base muon ...]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from syndistill.circuits.experiment import Experiment
from syndistill.models.networks import preset
from syndistill.sampling.exact_labels import with_exact_labels
from syndistill.sampling.shots import simulate
from syndistill.training.config import Curriculum, DataConfig, OptimiserConfig, RoundsPhase, TrainingConfig
from syndistill.training.loop import Trainer
from syndistill.training.objective import GroundTruth, posterior_loss
from syndistill.training.source import simulated_source
from syndistill.training.start import fresh_network

MUON = {"name": "muon", "matrix_rate": 0.01}
ALL_BUT_EXACT = {"data": {"labels": "revealed", "ends": 1}, "network": {"agree_lines": True}, "optimiser": MUON}
ARMS: dict[str, dict[str, Any]] = {
    "base": {},
    "two ends": {"data": {"ends": 2}},
    "agreeing lines": {"network": {"agree_lines": True}},
    "turned": {"network": {"turn_x": True}},
    "muon": {"optimiser": MUON},
    "revealed": {"data": {"labels": "revealed", "ends": 1}},
    "exact": {"data": {"labels": "exact"}},
    "all but exact": ALL_BUT_EXACT,
    "all but exact, turned": {**ALL_BUT_EXACT, "network": {"agree_lines": True, "turn_x": True}},
}
ROUNDS, P = 5, 0.004
CHECKS = 4  # evaluations along the way


def make_trainer(arm: dict[str, Any], batch: int, folder: Path) -> Trainer:
    phases = (RoundsPhase(from_shots=0, rounds=(ROUNDS,)),)
    data = DataConfig(distance=3, curriculum=Curriculum(p_min=P, p_max=P, rounds=phases), **arm.get("data", {}))
    optimiser = OptimiserConfig(learning_rate=1e-3, warmup_steps=50, ema_decay=0.98, **arm.get("optimiser", {}))
    training = TrainingConfig(
        steps=10**6, batch_size=batch, seed=1, precision="bf16", compile=True, threads=1, optimiser=optimiser
    )
    config = replace(preset("teacher-small", 3), **arm.get("network", {}))
    network = fresh_network(config, 1)
    return Trainer(network, GroundTruth(), simulated_source(data, training.batch_size, training.seed), training, folder)


def excess(trainer: Trainer, n_shots: int = 2_000) -> tuple[float, float]:
    """NLL above the optimum's (nats), and LER over the optimum's, of the averaged weights; both bases."""
    network = fresh_network(trainer.model.config, 0)
    network.load_state_dict(trainer.ema_state())
    nll, errors, least = [], [], []
    for basis, seed in (("x", 91), ("z", 92)):
        experiment = Experiment(3, ROUNDS, basis, "si1000", P)
        shots = with_exact_labels(simulate(experiment, n_shots, seed), experiment).only_last_end()
        with torch.no_grad():
            z_B1LC = network(shots).logits_BKLC[:, :, :1]
        posterior_B1LP = shots.posterior_BKLP[:, :, :1]
        p_B = posterior_B1LP[:, 0, 0, 1].clamp(1e-7, 1 - 1e-7)
        entropy = -(p_B * p_B.log() + (1 - p_B) * (1 - p_B).log()).mean()
        nll.append(posterior_loss(z_B1LC, posterior_B1LP).mean() - entropy)
        errors.append(torch.where(z_B1LC.flatten() > 0, 1 - p_B, p_B).mean())
        least.append(torch.minimum(p_B, 1 - p_B).mean())
    return float(sum(nll)) / 2, float(sum(errors) / sum(least))


def run(arm: dict[str, Any], seconds: float, batch: int) -> list[tuple[float, int, float, float]]:
    """(processor seconds, shots, excess NLL, LER ratio) at CHECKS moments."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(arm, batch, Path(folder))
        found: list[tuple[float, int, float, float]] = []
        spent, chunk, warm = 0.0, 0, 6
        while len(found) < CHECKS:
            start = time.process_time()
            batches = trainer.source.chunk(chunk)
            chunk += 1
            for shots in batches:
                if trainer.step == warm:
                    start, spent = time.process_time(), 0.0  # compiled by now
                trainer.train_step(shots)
            spent += time.process_time() - start
            if spent >= seconds * (len(found) + 1) / CHECKS:
                found.append((spent, trainer.shots_seen, *excess(trainer)))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="processor time of each arm")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(f"d=3, r={ROUNDS}, SI1000 p={P}, batch {args.batch}, one thread; excess NLL in nats / LER over the optimum's")
    for name in args.arms:
        points = run(ARMS[name], args.seconds, args.batch)
        rate = points[-1][1] / points[-1][0]
        curve = ", ".join(f"{shots / 1e3:.0f} k: {nll:.4f} / {ler:.3f}" for _, shots, nll, ler in points)
        print(f"{name:15} {rate:5.0f} shots/s | {curve}", flush=True)


if __name__ == "__main__":
    main()
