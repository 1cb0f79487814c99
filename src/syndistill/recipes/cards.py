"""The cards of shipped networks, from the network files and the rows of `recipes.scores` alone.

    python -m syndistill.recipes.cards --rows results/d3.jsonl
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from pathlib import Path
from typing import Any

from syndistill.errors import SyndistillError
from syndistill.evaluation.rows import Row, RowsFile, combine
from syndistill.models.saving import weights_hash
from syndistill.models.zoo import load_any, network_path, shipped_names
from syndistill.training.run_folder import write_json

_SCORES = ("experiment", "shots", "errors", "ler", "low", "high", "nll", "ece", "best_temperature", "us_per_shot")


def card_of(name: str, rows: list[Row]) -> dict[str, Any]:
    """Recipe, seeds and shots seen as the file says them; size, hashes; scores of exactly these weights."""
    network, metadata = load_any(name)
    path = network_path(name)
    assert path is not None
    key = weights_hash(network)
    scored = sorted((r for r in rows if r.decoder_id == key), key=lambda r: r.experiment)
    return {
        "name": name,
        "weights_sha256": key,
        "file_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "config": network.config.model_dump(mode="json"),
        "parameters": network.n_parameters(),
        "multiply_adds_per_round": {f"r={r}": round(network.multiply_adds(r)) for r in (3, 9, 25)},
        "made_by": metadata,
        "scores": [{what: getattr(row, what) for what in _SCORES} for row in scored],
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=Path, required=True, help="rows file of recipes.scores")
    args = parser.parse_args(arguments)
    try:
        if not args.rows.is_file():
            raise SyndistillError(f"no rows file {args.rows}; python -m syndistill.recipes.scores makes it")
        rows = combine(list(RowsFile(args.rows).rows.values()))
        for name in shipped_names():
            path = network_path(name)
            assert path is not None
            write_json(path.with_suffix(".json"), card_of(name, rows))
            print(path.with_suffix(".json"))
    except SyndistillError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
