"""What confidence is worth: error rate against kept fraction, and reliability, of networks beside matching's gap.

    python scripts/confidence.py --json results/confidence.json --picture docs/confidence.png

Decoders are named as for `syndistill evaluate`; matching-gap is there too.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matching_gap import MatchingGapDecoder

from syndistill.decoders.contract import Decoder
from syndistill.errors import SyndistillError
from syndistill.evaluation.subject import Subject
from syndistill.runs.picture import new_figure, plain, save_png
from syndistill.safe_files import write_json
from syndistill.sampling.stored import StoredShots, evaluation_seed
from syndistill.statistics.calibration import Kept, best_temperature, ece, kept_curve, log_odds, reliability

EXPERIMENT = "d=3,rounds=3,basis=z,noise=si1000,p=0.004"
DECODERS = ("matching-gap", "student-d3", "optimal")
FRACTIONS = (1.0, 0.995, 0.99, 0.98, 0.97, 0.95, 0.93, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5)
SEED = 27_182
COLOURS = ("#475569", "#c2410c", "#15803d", "#1d4ed8", "#7e22ce")


def confidence_of(decoder: Decoder, shots: StoredShots, experiment: str) -> dict[str, Any]:
    """One decoder's figures on some shots."""
    if not decoder.gives_probabilities:
        raise SyndistillError(f"{decoder.name} gives no probabilities; take matching-gap, a network or optimal")
    flips_BO, labels_BO = decoder.decode(shots), shots.observables()
    bins = reliability(flips_BO, labels_BO, equal_mass=False)  # by mass nearly all would lie at the two ends
    return {
        "decoder": decoder.name,
        "decoder_id": decoder.content_id,
        "experiment": experiment,
        "shots": shots.n_shots,
        "shots_sha256": shots.sha256,
        "ece": ece(flips_BO, labels_BO),
        "best_temperature": best_temperature(log_odds(flips_BO), labels_BO),
        "kept": [[kept.shots, kept.errors] for kept in kept_curve(flips_BO, labels_BO, FRACTIONS)],
        "reliability": {name.removesuffix("_G"): values.tolist() for name, values in bins._asdict().items()},
    }


def measure(subject: Subject, names: Sequence[str], n_shots: int) -> list[dict[str, Any]]:
    """Every decoder on the same shots."""
    decoders = [_decoder(subject, name) for name in names]
    seed = evaluation_seed(SEED, 0, n_shots)
    shots = StoredShots.sample(subject.circuit, n_shots, seed, subject.dem())
    return [confidence_of(decoder, shots, subject.label) for decoder in decoders]


def _decoder(subject: Subject, name: str) -> Decoder:
    return MatchingGapDecoder(subject.dem()) if name == "matching-gap" else subject.decoder(name)


def draw(found: Sequence[dict[str, Any]], path: Path) -> None:
    """Left: LER of the kept shots; right: predicted against observed flips. Written whole or not at all."""
    figure = new_figure(10, 4.4)
    kept_axes, bins_axes = figure.subplots(1, 2)
    for colour, one in zip(COLOURS * len(found), found, strict=False):
        _draw_kept(kept_axes, one, colour)
        full = [k for k, count in enumerate(one["reliability"]["counts"]) if count]
        predicted, observed = ([one["reliability"][side][k] for k in full] for side in ("predicted", "observed"))
        label = f"{one['decoder']}: ECE {one['ece']:.4f}, T {one['best_temperature']:.2f}"
        bins_axes.plot(predicted, observed, "o-", color=colour, markersize=4, linewidth=1, label=label)
    kept_axes.set(yscale="log", xlabel="discarded, the least certain first, %", ylabel="logical error rate of the rest")
    bins_axes.plot([0, 1], [0, 1], color="#94a3b8", linewidth=1, linestyle=(0, (5, 3)), zorder=1)
    bins_axes.set(xlabel="predicted probability of a flip (15 bins)", ylabel="observed share of flips")
    for axes in (kept_axes, bins_axes):
        plain(axes)
        axes.legend(frameon=False, fontsize=8)
    title = f"{found[0]['experiment']}: the same {found[0]['shots']:,} shots for every decoder"
    figure.suptitle(title, x=0.01, ha="left", fontsize=10, fontweight="bold")
    save_png(figure, path)


def _draw_kept(axes: Any, one: dict[str, Any], colour: str) -> None:
    points = [Kept(shots, errors, one["shots"]) for shots, errors in one["kept"]]
    x = [100 * (1 - point.fraction) for point in points]
    low, high = zip(*(point.interval for point in points), strict=True)
    axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.plot(x, [point.ler for point in points], "o-", color=colour, markersize=4, linewidth=1.2, label=one["decoder"])


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("decoders", nargs="*", default=DECODERS)
    parser.add_argument("--experiment", default=EXPERIMENT)
    parser.add_argument("--shots", type=int, default=200_000)
    parser.add_argument("--json", type=Path, required=True, help="where the figures go")
    parser.add_argument("--picture", type=Path, help="where the picture goes")
    args = parser.parse_args(arguments)
    try:
        found = measure(Subject.from_experiment(args.experiment), args.decoders, args.shots)
        write_json(args.json, {"rows": found})
        if args.picture is not None:
            draw(found, args.picture)
    except SyndistillError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for one in found:
        kept = {f"{100 * shots / one['shots']:g} %": round(errors / shots, 6) for shots, errors in one["kept"]}
        print(f"{one['decoder']}: T {one['best_temperature']:.3f}, ECE {one['ece']:.4f}, LER of the kept {kept}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
