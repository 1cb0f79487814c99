"""Achieved FLOP/s of Teacher and Student, training and inference, as a share of the machine's own matrix products.

The operations are those of all matrix products and convolutions, counted by PyTorch on an uncompiled call. Least time
of several calls: processor time on one CPU thread (other work on the machine then counts less), wall time otherwise.

    python benchmarks/share_of_matmul.py [--distances 3 5] [--batch 128] [--threads 1] [--devices cpu cuda]
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from syndistill.models.networks import preset
from syndistill.training.config import Curriculum, DataConfig, OptimiserConfig, RoundsPhase, TrainingConfig
from syndistill.training.loop import Trainer
from syndistill.training.objective import GroundTruth
from syndistill.training.source import simulated_source
from syndistill.training.start import fresh_network

NETWORKS = {"Teacher": "teacher-small", "Student": "flat-gru-20k"}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def least_time(call: Callable[[], object], device: str, repeats: int) -> float:
    one_thread = device == "cpu" and torch.get_num_threads() == 1
    clock = time.process_time if one_thread else time.perf_counter
    times = []
    for _ in range(repeats + 3):  # three to warm up and compile
        start = clock()
        call()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(clock() - start)
    return min(times[3:])


def matmul_rate(precision: str, device: str) -> float:
    """FLOP/s of a square product."""
    side = 2048 if device == "cpu" else 8192
    a, b = (torch.randn(side, side, device=device, dtype=DTYPES[precision]) for _ in range(2))
    return 2 * side**3 / least_time(lambda: a @ b, device, 10)


def calls(
    network: str, distance: int, precision: str, device: str, args: argparse.Namespace, compiled: bool
) -> dict[str, Callable[[], object]]:
    """A training step (answers at all ends) and a decoding call (the answer at the last) of one fixed batch."""
    rounds = RoundsPhase(from_shots=0, rounds=(distance,))
    data = DataConfig(distance=distance, curriculum=Curriculum(p_min=0.001, p_max=0.006, rounds=(rounds,)))
    training = TrainingConfig(
        steps=10**6, batch_size=args.batch, precision=precision, compile=compiled, threads=args.threads,
        device=device, optimiser=OptimiserConfig(),
    )  # fmt: skip
    model = fresh_network(preset(NETWORKS[network], distance), 0)
    objective = GroundTruth(next_event_weight=0.02 if network == "Teacher" else 0.0)
    source = simulated_source(data, training.batch_size, training.seed)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(model, objective, source, training, Path(folder))
    batch = source.chunk(0)[0].to(device)
    last = batch.only_last_end()

    def decode() -> torch.Tensor:
        with torch.inference_mode(), torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
            return model(last).logits_BKLC

    return {"training": lambda: trainer.train_step(batch), "inference": decode}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--distances", type=int, nargs="+", default=[3, 5])
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--devices", nargs="+", default=["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"])
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    for device, precision in itertools.product(args.devices, DTYPES):
        rate = matmul_rate(precision, device)
        print(f"\n{device}, {precision}: products {rate / 1e9:.0f} GFLOP/s\n")
        print("| network | d = r | call | shots/s | MFLOP a shot | GFLOP/s | share |\n" + "|---" * 7 + "|")
        for network, distance in itertools.product(args.networks, args.distances):
            # counted in fp32 on the CPU, where the counter sees into nn.GRU
            eager = calls(network, distance, "fp32", "cpu", args, compiled=False)
            for name, call in calls(network, distance, precision, device, args, compiled=True).items():
                with FlopCounterMode(display=False) as counter:
                    eager[name]()
                flops = counter.get_total_flops() / args.batch
                speed = args.batch / least_time(call, device, args.repeats)
                achieved = flops * speed
                print(f"| {network} | {distance} | {name} | {speed:.0f} | {flops / 1e6:.1f} | {achieved / 1e9:.1f} | "
                      f"{achieved / rate:.0%} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
