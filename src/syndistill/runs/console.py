"""What the command lines show while they work, all of it on stderr."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from syndistill.reporter import Bar, Reporter


class _Line(Bar):
    """A bar's line, with the loss and the LER of the last end in a training, shots a second, and the time left."""

    def __init__(self, bars: Progress, name: str, total: int, shots: int) -> None:
        self._bars, self._shots = bars, shots
        self._task = bars.add_task(name, total=total, visible=False, numbers="")

    def to(self, done: int, values: Mapping[str, float] | None = None) -> None:
        super().to(done)
        values = values or {}
        numbers = [f"loss {values['loss']:.4f}"] if "loss" in values else []
        if "ler_last" in values:
            numbers.append(f"LER {values['ler_last']:.4f}")
        speed = next(one.speed for one in self._bars.tasks if one.id == self._task)
        if speed and self._shots:
            numbers.append(f"{speed * self._shots:,.0f}/s")
        # Begun with the first report: an error before it is one line, without an empty one above.
        self._bars.start()
        self._bars.update(self._task, completed=done, visible=True, numbers="  ".join(numbers))


class _Terminal(Reporter):
    """Lines above bars."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars

    def say(self, line: str) -> None:
        self._bars.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def bar(self, name: str, total: int, shots: int = 0) -> Bar:
        return _Line(self._bars, name, total, shots)


@contextmanager
def terminal_reporter() -> Iterator[Reporter]:
    bars = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=12),
        MofNCompleteColumn(),
        TextColumn("{task.fields[numbers]}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
    try:
        yield _Terminal(bars)
    finally:
        if bars.live.is_started:
            bars.stop()
