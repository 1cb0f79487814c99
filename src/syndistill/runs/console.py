"""What the command lines show while they work, all of it on stderr."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn


class Bars:
    """Progress bars of one piece of work, one line each; a line appears with its first report."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars

    def say(self, line: str) -> None:
        """A line above the bars."""
        self._bars.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def counting(self, what: str) -> Callable[[int, int], None]:
        """A bar for (done, total) reports."""
        task = self._bars.add_task(what, total=None, visible=False, numbers="")
        return lambda done, total: self._update(task, done, total)

    def training(self, what: str, batch_size: int) -> Callable[[int, int, dict[str, float]], None]:
        """A bar for a Trainer's reports: steps, loss, LER of the last end, shots a second, time left."""
        task = self._bars.add_task(what, total=None, visible=False, numbers="")

        def report(step: int, steps: int, latest: dict[str, float]) -> None:
            speed = next(one.speed for one in self._bars.tasks if one.id == task)
            numbers = f"loss {latest['loss']:.4f}" if "loss" in latest else ""
            if "ler_last" in latest:
                numbers += f"  LER {latest['ler_last']:.4f}"
            if speed:
                numbers += f"  {speed * batch_size:,.0f}/s"
            self._update(task, step, steps, numbers)

        return report

    @contextmanager
    def stage(self, name: str, batch_size: int) -> Iterator[Callable[[int, int, dict[str, float]], None]]:
        """The bar of one stage of a road."""
        yield self.training(name, batch_size)

    def _update(self, task: TaskID, done: int, total: int, numbers: str = "") -> None:
        # Begun with the first report: an error before it is one line, without an empty one above.
        self._bars.start()
        self._bars.update(task, completed=done, total=total, visible=True, numbers=numbers)


@contextmanager
def progress_bars() -> Iterator[Bars]:
    bars = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=12),
        MofNCompleteColumn(),
        TextColumn("{task.fields[numbers]}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
    try:
        yield Bars(bars)
    finally:
        if bars.live.is_started:
            bars.stop()
