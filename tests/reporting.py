"""Reporters that remember what they are told; one ends the work at a report."""

from syndistill.reporter import Bar, Reporter


class Heard(Reporter):
    """said: the lines; totals: of the bars, by name; counted: every report, as (bar, done, values)."""

    def __init__(self):
        self.said, self.totals, self.counted = [], {}, []

    def say(self, line):
        self.said.append(line)

    def bar(self, name, total, shots=0):
        self.totals[name] = total
        return _Counted(self, name)


class Stopping(Heard):
    """Raises when the bar of that name has so much done."""

    def __init__(self, name, done, error=KeyboardInterrupt):
        super().__init__()
        self.at, self.error = (name, done), error


class Calling(Bar):
    """Calls a function at every report."""

    def __init__(self, at_report):
        self.at_report = at_report

    def to(self, done, values=None):
        super().to(done, values)
        self.at_report()


class _Counted(Bar):
    def __init__(self, heard, name):
        self.heard, self.name = heard, name

    def to(self, done, values=None):
        super().to(done)
        self.heard.counted.append((self.name, done, values or {}))
        if isinstance(self.heard, Stopping) and self.heard.at == (self.name, done):
            raise self.heard.error
