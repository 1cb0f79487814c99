"""How fast a Teacher trains, as a share of what this machine's matrix products reach in the same run.

The benchmark trains for real (Trainer, fresh shots, bf16, compiled layers) and counts the operations of all
matrix products and convolutions, forward and backward, with PyTorch's own counter on an uncompiled step.

    python benchmarks/training_throughput.py [--distance 3 --rounds 5 --batch 256 --processes 2]
    python benchmarks/training_throughput.py --distance 5 --batch 128 --processes 1 --labels revealed --ends 1
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from syndistill.models.networks import preset
from syndistill.training.config import Curriculum, DataConfig, OptimiserConfig, RoundsPhase, TrainingConfig
from syndistill.training.loop import Trainer
from syndistill.training.objective import GroundTruth
from syndistill.training.source import simulated_source
from syndistill.training.start import fresh_network


def matmul_rate(dtype: torch.dtype, seconds: float = 1.0) -> float:
    """FLOP/s of a 2048 x 2048 x 2048 product on the threads of this process."""
    a, b = (torch.randn(2048, 2048).to(dtype) for _ in range(2))
    for _ in range(3):
        a @ b
    done, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        a @ b
        done += 1
    return done * 2 * 2048**3 / (time.perf_counter() - start)


def make_trainer(args: argparse.Namespace, folder: Path, compiled: bool) -> Trainer:
    data = DataConfig(
        distance=args.distance,
        labels=args.labels,
        ends=args.ends,
        curriculum=Curriculum(
            p_min=0.001, p_max=0.006, n_rates=4, rounds=(RoundsPhase(from_shots=0, rounds=(args.rounds,)),)
        ),
    )
    training = TrainingConfig(
        steps=10**6, batch_size=args.batch, precision=args.precision, compile=compiled, threads=args.threads,
        optimiser=OptimiserConfig(),
    )  # fmt: skip
    network = fresh_network(preset("teacher-small", args.distance), 0)
    return Trainer(network, GroundTruth(), simulated_source(data, training.batch_size, training.seed), training, folder)


def train(args: argparse.Namespace) -> None:
    """One process's share: steps for `seconds` after a warm-up; prints a line of JSON from the first process."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(args, Path(folder), compiled=not args.eager)
        batches = trainer.source.chunk(0)  # prepares its models of the error rates too
        start = time.perf_counter()
        trainer.source.chunk(1)
        making = (time.perf_counter() - start) / (len(batches) * args.batch)
        for batch in batches[:4]:
            trainer.train_step(batch)
        steps, start = 0, time.perf_counter()
        while steps < args.steps:
            trainer.train_step(batches[steps % len(batches)])
            steps += 1
        seconds = time.perf_counter() - start
    if trainer.world.is_first:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        learning = seconds / (steps * args.batch)
        rates = {"shots_per_second": 1 / learning, "with_shots_made": 1 / (learning + making)}
        print(json.dumps(rates | {"peak_gib_per_process": peak}))


def flops_per_shot(args: argparse.Namespace) -> float:
    shots = 32
    small = argparse.Namespace(**{**vars(args), "batch": shots})
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(small, Path(folder), compiled=False)
        batch = trainer.source.chunk(0)[0]
        with FlopCounterMode(display=False) as counter:
            trainer.train_step(batch)
    return counter.get_total_flops() / shots


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--distance", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=256, help="of all processes together")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1, help="of each process")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--labels", choices=("sampled", "revealed"), default="sampled")
    parser.add_argument("--ends", type=int, default=0, help="at how many ends a shot is taught, 0: all")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="bf16")
    parser.add_argument("--eager", action="store_true", help="without torch.compile")
    parser.add_argument("--train-only", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.train_only:
        train(args)
        return
    torch.set_num_threads(args.processes * args.threads)
    before = matmul_rate(torch.float32)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={args.processes}"]
    environment = {**os.environ, "OMP_NUM_THREADS": str(args.threads)}
    command = [*launcher, __file__, *sys.argv[1:], "--train-only"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if result.returncode:
        sys.exit(f"training failed:\n{result.stderr[-2000:]}")
    after, bf16 = matmul_rate(torch.float32), matmul_rate(torch.bfloat16)
    measured = json.loads(result.stdout.strip().splitlines()[-1])
    flops = flops_per_shot(args)
    achieved = flops * measured["shots_per_second"]
    fp32 = (before + after) / 2
    print(f"teacher-small d={args.distance} r={args.rounds} batch {args.batch}, {args.labels} labels, "
          f"{args.processes} process(es) of {args.threads} thread(s), {args.precision}, "
          f"{'eager' if args.eager else 'compiled'}")
    print(f"  {measured['with_shots_made']:.0f} shots/s with the making of shots and labels on the same core")
    print(f"  {measured['shots_per_second']:.0f} shots/s of learning alone, "
          f"{flops / 1e6:.1f} MFLOP a shot (products, both ways)")
    print(f"  achieved {achieved / 1e9:.0f} GFLOP/s = {achieved / fp32:.0%} of the fp32 matmul rate, "
          f"{achieved / bf16:.0%} of the bf16 one (fp32 {before / 1e9:.0f} GFLOP/s before, {after / 1e9:.0f} after)")
    print(f"  peak memory {measured['peak_gib_per_process']:.1f} GiB a process")


if __name__ == "__main__":
    main()
