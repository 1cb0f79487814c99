"""What damage, a kill, a full disk or a second process does to the files of every verb that writes: counts.

    python benchmarks/file_trials.py [--damage 600] [--kills 40] [--exact 80] [--full 20] [--only train] [--json OUT]

Tiny recipes, each call in a forked process. Damage: one file of a half-done folder is changed at random and the command
that reads it runs again. Kills: at a random time, or at the n-th file operation; then the same command again.
Exit code 1 where anything went wrong: a traceback, a silently other result, a blocked folder, a temporary file left.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from file_trials_calls import VERBS, WRONG, Call, Outcome, Verb, begin, call, finish, prepared

TEMPORARY = re.compile(r"\..+\.\d+(\.tmp)?|.*\.cut")


def damaged(path: Path, others: list[Path], rng: random.Random) -> str:
    """Change a file in one of the ways that disks, editors and copying have; says which."""
    data = path.read_bytes()
    ways = ["flip", "flip", "flip", "cut", "empty", "swap"]
    if path.suffix == ".jsonl":
        ways += ["line", "line", "retype", "retype"]
    elif path.suffix == ".json":
        ways += ["line", "retype", "retype"]
    way = rng.choice(ways)
    if way == "flip" and data:
        at = rng.randrange(len(data))
        data = data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
    elif way == "cut":
        data = data[: rng.randrange(len(data) or 1)]
    elif way == "empty":
        data = b""
    elif way == "swap":
        alike = [other for other in others if other.suffix == path.suffix and other != path]
        if not alike:
            return damaged(path, others, rng)
        data = rng.choice(alike).read_bytes()
    elif way == "line":
        lines = data.splitlines(keepends=True)
        del lines[rng.randrange(len(lines))]
        data = b"".join(lines)
    elif way == "retype":
        data = _retyped(data, path.suffix == ".jsonl", rng)
    path.write_bytes(data)
    return way


def _retyped(data: bytes, lines: bool, rng: random.Random) -> bytes:
    """One value of a JSON text of another type; half of the time without the content's hash."""
    texts = data.decode().splitlines() if lines else [data.decode()]
    at = rng.randrange(len(texts))
    content = json.loads(texts[at])
    places = list(_places(content))
    if not places:
        return b"null\n"
    where, key = rng.choice(places)
    others = [value for value in (None, "x", -1, [], {}, [1], 1e30, True) if type(value) is not type(where[key])]
    where[key] = rng.choice(others)
    if isinstance(content, dict) and rng.random() < 0.5:
        content.pop("sha256", None)
    texts[at] = json.dumps(content)
    return ("\n".join(texts) + "\n").encode()


def _places(content: Any) -> Iterator[tuple[Any, Any]]:
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in list(items):
        yield content, key
        yield from _places(value)


class Trials:
    """Runs and counts; `wrong` says what happened where something went wrong."""

    def __init__(self, root: Path, seed: int) -> None:
        self.root, self.rng = root, random.Random(seed)
        self.counts: dict[str, Counter[str]] = {}
        self.wrong: list[str] = []
        self._work = 0

    def folder(self, source: Path | None) -> Path:
        self._work += 1
        work = self.root / f"work-{self._work}"
        shutil.copytree(source, work) if source else work.mkdir()
        return work

    def note(self, kind: str, outcome: str, said: str) -> None:
        self.counts.setdefault(kind, Counter())[outcome] += 1
        if outcome in WRONG:
            self.wrong.append(f"{kind}: {outcome}: {said}")
            print(self.wrong[-1][:1500], flush=True)

    def damage(self, verb: Verb, half_done: Path, number: int) -> None:
        files = [p.relative_to(half_done) for p in sorted(half_done.rglob("*")) if p.is_file()]
        files = [p for p in files if not (p.name.endswith("lock") or verb.is_input(p))]
        files = [p for p in files if (half_done / p).stat().st_size]
        for trial in range(number):
            work = self.folder(half_done)
            name = files[trial % len(files)]
            way = damaged(work / name, [work / other for other in files], self.rng)
            unsealed = way == "retype" and b"sha256" not in (work / name).read_bytes()
            found = call(verb.arguments, work)
            outcome = found.outcome(verb.result(work), verb.expected)
            if unsealed and outcome == "other result":
                outcome = "edited by hand"  # without the hash nobody can tell
            self.note(f"damage {verb.name}", outcome, f"{way} {name}: {found.said[-1200:]}")
            shutil.rmtree(work)

    def after_kill(self, kind: str, verb: Verb, work: Path, killed: str, tear: bool) -> None:
        if tear:
            for path in work.rglob("*.jsonl"):
                whole = path.read_bytes()
                path.write_bytes(whole[: len(whole) - self.rng.randrange(1, 60)] if whole else whole)
        found = call(verb.arguments, work)
        outcome = found.outcome(verb.result(work), verb.expected)
        if outcome == "refused":
            outcome = "finished before" if verb.result(work) == verb.expected else "blocked"
        elif left := [str(p.relative_to(work)) for p in work.rglob("*") if TEMPORARY.fullmatch(p.name)]:
            outcome, found = "left files", Call(found.code, f"{left}")
        self.note(kind, outcome, f"{killed}: {found.said[-1200:]}")
        shutil.rmtree(work)

    def kills(self, verb: Verb, number: int) -> None:
        for _ in range(number):
            work = self.folder(verb.inputs)
            seconds = self.rng.uniform(0.1, 0.95) * verb.seconds
            call(verb.arguments, work, kill_after=seconds)
            self.after_kill(f"kill {verb.name}", verb, work, f"after {seconds:.2f} s", tear=False)

    def exact(self, verb: Verb, number: int) -> None:
        for trial in range(number):
            work = self.folder(verb.inputs)
            at = 1 + trial * verb.operations // number
            call(verb.arguments, work, kill_at=at)
            self.after_kill(f"exact {verb.name}", verb, work, f"at operation {at}", verb.appends and trial % 2 == 1)

    def full(self, verb: Verb, number: int) -> None:
        """No file grows beyond a random size."""
        for _ in range(number):
            work = self.folder(verb.inputs)
            size = int(10 ** self.rng.uniform(1.5, 5.5))
            found = call(verb.arguments, work, largest_file=size)
            outcome = found.outcome(verb.result(work), verb.expected)
            if outcome in WRONG:
                self.note(f"full {verb.name}", outcome, f"{size} bytes: {found.said[-1200:]}")
                shutil.rmtree(work)
            else:
                self.after_kill(f"full {verb.name}", verb, work, f"{size} bytes", tear=False)

    def two(self, verb: Verb, second: Verb | None = None) -> None:
        """The same command twice at once, or one that shares a file with it."""
        work = self.folder(verb.inputs)
        both = [begin(each.arguments, work) for each in (verb, second or verb)]
        found = [finish(one) for one in both]
        kind = f"two {verb.name}" + (f" and {second.name}" if second else "")
        for one in found:
            bad = one.code not in (0, 2) or (one.code == 2 and (second or verb.name == "evaluate" or not one.refused))
            self.note(kind, "traceback" if bad else "refused" if one.code else "same", one.said[-1200:])
        self.after_kill(kind, verb, work, "after two at once", tear=False)


def shares(number: int, verbs: list[Verb]) -> Iterator[tuple[Verb, int]]:
    """Most trials to the verbs that take little time; no verb without."""
    total = sum(verb.weight for verb in verbs)
    for verb in verbs:
        yield verb, -(-number * verb.weight // total)


def timed(what: str, work: Callable[[], None]) -> None:
    began = time.monotonic()
    work()
    print(f"{what}: {time.monotonic() - began:.0f} s", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, number in (("damage", 600), ("kills", 40), ("exact", 80), ("full", 20), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=number)
    parser.add_argument("--only", nargs="+", choices=[verb.name for verb in VERBS], help="of the verbs")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="file-trials-"))
    trials = Trials(root, given.seed)
    verbs = [verb for verb in VERBS if given.only is None or verb.name in given.only]
    timed("undisturbed runs", lambda: prepared(verbs, root))
    by_name = {verb.name: verb for verb in verbs}
    writers = [verb for verb in verbs if verb.writes]
    for verb, number in shares(given.exact, writers):
        timed(f"exact {verb.name}", lambda verb=verb, number=number: trials.exact(verb, number))  # type: ignore[misc]
    for verb, number in shares(given.kills, writers):
        timed(f"kills {verb.name}", lambda verb=verb, number=number: trials.kills(verb, number))  # type: ignore[misc]
    for verb, number in shares(given.full, writers):
        timed(f"full {verb.name}", lambda verb=verb, number=number: trials.full(verb, number))  # type: ignore[misc]
    for verb in writers if given.kills else []:
        timed(f"two {verb.name}", lambda verb=verb: trials.two(verb))  # type: ignore[misc]
        if verb.beside in by_name:
            trials.two(verb, by_name[verb.beside])
    for verb, number in shares(given.damage, [verb for verb in verbs if verb.half_done is not None]):
        assert verb.half_done is not None
        where = verb.half_done
        timed(f"damage {verb.name}", lambda v=verb, w=where, n=number: trials.damage(v, w, n))  # type: ignore[misc]
    for kind, counts in sorted(trials.counts.items()):
        print(f"{kind:<28} {dict(counts)}")
    total: Counter[Outcome] = Counter()
    for counts in trials.counts.values():
        total.update(counts)
    print(f"{sum(total.values())} in all: {dict(total)}")
    if given.json is not None:
        given.json.write_text(json.dumps({"counts": trials.counts, "wrong": trials.wrong}, indent=1) + "\n")
    shutil.rmtree(root)
    return int(bool(trials.wrong))


if __name__ == "__main__":
    sys.exit(main())
