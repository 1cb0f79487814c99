"""Whom a long piece of work tells how far it is. These classes tell nobody; `runs.console` shows it on a terminal."""

from __future__ import annotations

from collections.abc import Mapping


class Bar:
    """How much of one part of the work is done."""

    done = 0

    def to(self, done: int, values: Mapping[str, float] | None = None) -> None:
        """values: what was measured last, by name."""
        self.done = done

    def advance(self, more: int) -> None:
        self.to(self.done + more)


class Reporter:
    """Lines and bars."""

    def say(self, line: str) -> None:
        """One line, at once."""

    def bar(self, name: str, total: int, shots: int = 0) -> Bar:
        """A bar that appears with its first report. shots: in a unit of it, where shots a second are of interest."""
        return Bar()


SILENT = Reporter()
