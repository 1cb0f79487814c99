"""A comparison as text: what a terminal shows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.table import Table

from syndistill.evaluation.compare import Comparison
from syndistill.evaluation.rows import Pair, Row
from syndistill.statistics.rates import LEAST_LENGTHS, PerRoundFit, fit_per_round

_TIGHT: dict[str, Any] = {"box": box.SIMPLE_HEAD, "padding": (0, 1, 0, 0), "pad_edge": False}  # fits 80 columns


def rows_table(found: Comparison, title: str, against: str | None = None) -> Table:
    """A line per decoder; ratios of LER are to the one named `against` (default: the first)."""
    base = next(row for row in found.rows if against in (None, row.decoder))
    caption = (
        f"{base.shots:,} shots, the same for every decoder; ratio: LER to that of {base.decoder}; "
        "NLL (nats), ECE and best temperature T for decoders that give probabilities"
    )
    table = Table(title=title, caption=caption, caption_justify="left", **_TIGHT)
    table.add_column("decoder", overflow="fold")
    for column in ("LER, %", "95 %", "ratio", "NLL", "ECE", "T", "us/shot", "parameters"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in found.rows:
        table.add_row(
            row.decoder,
            f"{100 * row.ler:.4g}",
            f"{100 * row.low:.3g}-{100 * row.high:.3g}",
            f"{row.ler / base.ler:.3f}" if base.errors else "-",
            _number(row.nll, ".4f"),
            _number(row.ece, ".4f"),
            _number(row.best_temperature, ".2f"),
            f"{row.us_per_shot:,.1f}",
            _number(row.parameters, ","),
        )
    return table


def per_round_table(by_rounds: Mapping[int, Comparison], title: str) -> Table:
    """Logical error per round of each decoder by the fit over rounds, as the field makes it: one round is left out.

    A decoder that was left out of some of them is fitted to the others; "-" where no fit can be made.
    """
    found = {rounds: comparison for rounds, comparison in sorted(by_rounds.items()) if rounds > 1}
    table = Table(title=title, **_TIGHT)
    table.add_column("decoder", overflow="fold")
    for column in ("error per round, %", "95 %", "R^2", "shots", "LER by rounds"):
        table.add_column(column, justify="right")
    for name in dict.fromkeys(row.decoder for one in found.values() for row in one.rows):
        rows = {rounds: row for rounds, one in found.items() for row in one.rows if row.decoder == name}
        lers = (f"{rows[rounds].ler:.3f}" if rounds in rows else "-" for rounds in found)
        table.add_row(name, *_fitted(rows), f"{sum(row.shots for row in rows.values()):,}", " ".join(lers))
    return table


def fit_or_why(rows: Mapping[int, Row]) -> PerRoundFit | str:
    """The error per round of a decoder's rows by their rounds, or why there is none."""
    if coin := [rounds for rounds, row in rows.items() if 2 * row.errors >= row.shots]:
        return f"a coin after {min(coin)} rounds"
    if len(rows) < LEAST_LENGTHS:
        return f"{len(rows)} numbers of rounds"
    return fit_per_round(list(rows), [row.errors for row in rows.values()], [row.shots for row in rows.values()])


def _fitted(rows: Mapping[int, Row]) -> tuple[str, str, str]:
    """Error per round, its interval and R^2, or why there is none."""
    fit = fit_or_why(rows)
    if isinstance(fit, str):
        return fit, "-", "-"
    return f"{100 * fit.epsilon:.3f}", f"{100 * fit.low:.3f}-{100 * fit.high:.3f}", f"{fit.r_squared:.4f}"


def pairs_table(found: Comparison) -> Table:
    """A line per pair: who was wrong where the other was not, the ratio of LER and its paired interval, McNemar."""
    table = Table(title="pairs: shots that one of two got wrong alone", **_TIGHT)
    for column in ("a", "b"):
        table.add_column(column, overflow="fold")
    for column in ("only a", "only b", "LER a / b (95 %)", "p-value"):
        table.add_column(column, justify="right", no_wrap=True)
    for pair in found.pairs:
        counts = (f"{pair.only_a_wrong:,}", f"{pair.only_b_wrong:,}")
        table.add_row(pair.a, pair.b, *counts, _ratio(pair), f"{pair.p_value:.2g}")
    return table


def _ratio(pair: Pair) -> str:
    ratio = pair.ratio if pair.only_a_wrong + pair.only_b_wrong else None  # no shot tells them apart
    return "-" if ratio is None else f"{ratio.ratio:.3f} ({ratio.low:.3f}-{ratio.high:.3f})"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
