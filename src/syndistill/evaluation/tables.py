"""A comparison as text: what a terminal shows."""

from __future__ import annotations

from rich import box
from rich.table import Table

from syndistill.evaluation.compare import Comparison
from syndistill.evaluation.rows import Pair, Row


def rows_table(found: Comparison, title: str, against: str | None = None) -> Table:
    """A line per decoder; ratios are to the one named `against` (default: the first), with the paired 95 % interval."""
    first = next(row for row in found.rows if against in (None, row.decoder))
    table = Table(title=title, box=box.SIMPLE_HEAD, caption=_caption(found), caption_justify="left")
    table.add_column("decoder", no_wrap=True)
    for column in ("LER", "95 % interval", f"LER / {first.decoder}", "NLL", "ECE", "T", "us/shot", "parameters"):
        table.add_column(column, justify="right")
    for row in found.rows:
        table.add_row(
            row.decoder,
            f"{row.ler:.5f}",
            f"{row.low:.5f} .. {row.high:.5f}",
            _ratio(row, first, found.pairs),
            _number(row.nll, ".5f"),
            _number(row.ece, ".4f"),
            _number(row.best_temperature, ".3f"),
            f"{row.us_per_shot:.3g}",
            _number(row.parameters, ","),
        )
    return table


def pairs_table(found: Comparison) -> Table:
    """A line per pair of decoders: who was wrong where the other was not, and the exact McNemar p-value."""
    table = Table(title="pairs, on the same shots", box=box.SIMPLE_HEAD)
    for column in ("a", "b"):
        table.add_column(column)
    for column in ("only a wrong", "only b wrong", "p-value"):
        table.add_column(column, justify="right")
    for pair in found.pairs:
        table.add_row(pair.a, pair.b, f"{pair.only_a_wrong:,}", f"{pair.only_b_wrong:,}", f"{pair.p_value:.2g}")
    return table


def _caption(found: Comparison) -> str:
    return (
        f"{found.rows[0].shots:,} shots, the same for every decoder. NLL in nats, ECE and best temperature T only "
        "for decoders that give probabilities."
    )


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _ratio(row: Row, first: Row, pairs: list[Pair]) -> str:
    if row.decoder_id == first.decoder_id:
        return "1"
    for pair in pairs:
        if {pair.a_id, pair.b_id} == {row.decoder_id, first.decoder_id}:
            ratio = (pair if pair.a_id == row.decoder_id else pair.flipped()).ratio
            return "-" if ratio is None else f"{ratio.ratio:.3f} ({ratio.low:.3f} .. {ratio.high:.3f})"
    return "-"
