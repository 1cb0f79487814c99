"""The mean of the weights of networks of one kind, such as the ends of two legs: often better than each, for nothing.

    python scripts/mean_of_weights.py runs/10/teacher.safetensors runs/12/teacher.safetensors --out mean.safetensors

The file says whose mean it is, and beside that what the last one says of itself. Judge it on select shots before you
take it: legs from one start lie near each other, others do not, and their mean is no network at all.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from syndistill.errors import SyndistillError
from syndistill.models.networks import load_network, save_network, weights_hash
from syndistill.sampling.recorded import SEEN_KEY, most_of_each, shots_seen


def mean_of(names: list[str], out: Path) -> None:
    """SyndistillError where they are not of one configuration, or one is named twice."""
    if len(set(names)) < len(names):
        raise SyndistillError(f"a network is named twice in {', '.join(names)}; name each once")
    found = [load_network(name) for name in names]
    mean, said = found[-1]
    for name, (network, _) in zip(names, found, strict=True):
        if network.config != mean.config:
            raise SyndistillError(f"{name} and {names[-1]} are of other configurations; name networks of one")
    of = {name: weights_hash(network) for name, (network, _) in zip(names, found, strict=True)}
    states = [network.state_dict() for network, _ in found]
    mean.load_state_dict({key: torch.stack([state[key] for state in states]).mean(0) for key in states[0]})
    seen = most_of_each(shots_seen(metadata) for _, metadata in found)
    save_network(out, mean, said | {"mean_of": of} | ({SEEN_KEY: seen} if seen else {}))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="+", help="files or shipped names, two or more")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(arguments)
    try:
        if len(args.networks) < 2:
            raise SyndistillError("a mean of one network is that network; name two or more")
        mean_of(args.networks, args.out)
    except SyndistillError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
