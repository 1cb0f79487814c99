"""The calls of `file_trials`: verbs with tiny recipes in forked processes, killed where wanted, and their results."""

from __future__ import annotations

import hashlib
import io
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pytorch_optimizer  # noqa: F401  # once here, not in every call
import stim
import torch
import torch._dynamo  # as above
from safetensors import safe_open

import syndistill.ablation.judge
import syndistill.ablation.page
import syndistill.ablation.runner
import syndistill.distill.cache.source
import syndistill.runs.gated
from syndistill.ablation.backends import Inline
from syndistill.cli import ablate
from syndistill.cli import main as cli
from syndistill.models.networks import build, save_network
from syndistill.sampling.stored import StoredShots
from syndistill.sampling.stream import SimulatedSource

Outcome = Literal[
    "same", "refused", "traceback", "other result", "blocked", "left files", "finished before", "edited by hand", "said"
]
WRONG: tuple[Outcome, ...] = ("traceback", "other result", "blocked", "left files")
CRASHED = 99
TEACHER = "teacher.safetensors"
_TIMES = ("us_per_shot", "seconds", "train_seconds", "sha256")


class Call(NamedTuple):
    """How a call ended and what it printed."""

    code: int
    said: str

    @property
    def refused(self) -> bool:
        """In one line, with the exit code of bad input."""
        errors = [line for line in self.said.splitlines() if line.startswith("error: ")]
        return self.code == 2 and len(errors) == 1 and "Traceback" not in self.said

    def outcome(self, result: object, expected: object) -> Outcome:
        if self.code == 0 and result != expected:
            # A line that is missing from rows which are only read: the report warns, or shows the gap.
            return "said" if "cut short" in self.said or "**Gap.**" in str(result) else "other result"
        if self.code == 0:
            return "same"
        return "refused" if self.refused else "traceback"


class Begun(NamedTuple):
    pid: int
    output: Path


def begin(
    arguments: Sequence[str] | Callable[[], None],
    work: Path,
    kill_at: int = 0,
    largest_file: int = 0,
    count_to: Path | None = None,
) -> Begun:
    """A command line (or a function) in a forked process, in the folder `work`.

    kill_at: SIGKILL before so many file operations below `work`; count_to: write their number there.
    """
    handle, name = tempfile.mkstemp(prefix="said-", dir=work.parent)
    if pid := os.fork():
        os.close(handle)
        return Begun(pid, Path(name))
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.chdir(work)
    code, said = CRASHED, io.StringIO()
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        torch.set_num_threads(1)
        operations = _Operations(work, kill_at)
        if largest_file:
            sys.stdout = sys.stderr = said  # in memory: the limit holds for the file of what is printed too
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, hard))
        code = arguments() or 0 if callable(arguments) else cli.run_app(arguments)
        if count_to is not None:
            count_to.write_text(str(operations.seen))
    except BaseException:
        traceback.print_exc()
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    os.write(1, said.getvalue().encode())
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def finish(begun: Begun, after: float = 0) -> Call:
    if after:
        time.sleep(after)
        os.kill(begun.pid, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(begun.pid, 0)[1])
    said = begun.output.read_text(errors="replace")
    begun.output.unlink()
    return Call(code, said)


def call(arguments: Any, work: Path, kill_after: float = 0, **options: Any) -> Call:
    return finish(begin(arguments, work, **options), kill_after)


class _Operations:
    """Counts what this process does to files below a folder: opening for writing, renaming, removing, making."""

    def __init__(self, work: Path, kill_at: int) -> None:
        self.seen, self.kill_at, self.work = 0, kill_at, str(work)
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event not in ("open", "os.rename", "os.remove", "os.mkdir", "os.truncate", "os.rmdir"):
            return
        path = arguments[0]
        if isinstance(path, int) or (event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR)):
            return
        text = os.fsdecode(path)
        if text.startswith("/") and not text.startswith(self.work):
            return
        self.seen += 1
        if self.seen == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)


@dataclass
class Verb:
    """A command that is tried. result: what it leaves, without times; half_at: at which share of its file operations
    it is killed for the damage trials; beside: a verb that shares a file with it and runs at once."""

    name: str
    arguments: Any
    result: Callable[[Path], Any]
    half_at: float = 0.0
    writes: bool = True
    beside: str = ""
    weight: int = 4
    appends: bool = False
    begins: Callable[[Path], None] | None = None
    expected: Any = None
    seconds: float = 0.0
    operations: int = 0
    inputs: Path = field(default_factory=Path)
    half_done: Path | None = None

    def is_input(self, path: Path) -> bool:
        return path.name == TEACHER and len(path.parts) == 1


def prepared(verbs: list[Verb], root: Path) -> None:
    """Undisturbed runs: results, times, numbers of operations; and the half-done folders."""
    patched()
    inputs = root / "inputs"
    inputs.mkdir()
    assert call(_make_teacher, inputs).code == 0
    for verb in verbs:
        verb.inputs = inputs
        if verb.begins is not None:
            verb.inputs = root / f"inputs-{verb.name}"
            shutil.copytree(inputs, verb.inputs)
            verb.begins(verb.inputs)
        work = root / f"whole-{verb.name}"
        shutil.copytree(verb.inputs, work)
        began = time.monotonic()
        done = call(verb.arguments, work, count_to=root / "count")
        assert done.code == 0, done.said
        verb.seconds, verb.operations = time.monotonic() - began, int((root / "count").read_text())
        verb.expected = verb.result(work)
        print(f"{verb.name}: {verb.seconds:.1f} s, {verb.operations} file operations", flush=True)
        if verb.half_at:
            verb.half_done = root / f"half-{verb.name}"
            shutil.copytree(verb.inputs, verb.half_done)
            if verb.half_at < 1:
                call(verb.arguments, verb.half_done, kill_at=int(verb.half_at * verb.operations))


def patched() -> None:
    """Smaller gates and statistics than any option allows; one process."""
    gated = syndistill.runs.gated.distil_gated
    syndistill.runs.gated.distil_gated = lambda *a, **k: gated(*a, **{**k, "gate_shots": 200})
    syndistill.distill.cache.source.STATISTICS_SHOTS = 256
    syndistill.distill.cache.source.STATISTICS_RATES = 1
    simulated = syndistill.distill.cache.source.simulated
    syndistill.distill.cache.source.simulated = lambda *a: _short_chunks(simulated(*a))
    syndistill.ablation.judge.FlatGruDials = int  # type: ignore[assignment,misc]  # to compile would take longer
    ablate._backend = lambda *_: Inline  # type: ignore[assignment,return-value]


def _short_chunks(source: SimulatedSource) -> SimulatedSource:
    source.batches_per_chunk = 2
    return source


def _make_teacher() -> None:
    torch.manual_seed(0)
    save_network(Path(TEACHER), build("teacher-tiny", 3), {})


def networks(*names: str) -> Callable[[Path], Any]:
    """Hashes of tensors and of what the files say beside them; None for one that can't be read."""

    def result(work: Path) -> Any:
        return [_network(work / name) for name in names]

    return result


def _network(path: Path) -> str | None:
    try:
        with safe_open(path, "numpy") as file:
            said = sorted((key, value) for key, value in (file.metadata() or {}).items() if "sha256" not in key)
            digest = hashlib.sha256(repr(said).encode())
            for key in sorted(file.keys()):
                digest.update(key.encode() + file.get_tensor(key).tobytes())
    except Exception:
        return None
    return digest.hexdigest()


def _without_times(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _without_times(value) for key, value in content.items() if key not in _TIMES}
    return [_without_times(one) for one in content] if isinstance(content, list) else content


def comparison(work: Path) -> Any:
    try:
        return _without_times(json.loads((work / "out.json").read_text()))
    except (OSError, ValueError):
        return None


def scores(*names: str) -> Callable[[Path], Any]:
    """Of an ablation's rows, in any order."""

    def result(work: Path) -> Any:
        found: list[str] = []
        for name in names:
            try:
                lines = [json.loads(line) for line in (work / name).read_text().splitlines()]
                found += {json.dumps(_without_times(x), sort_keys=True) for x in lines if x["kind"] == "score"}
            except (OSError, ValueError, KeyError, TypeError):
                return None
        return sorted(found)

    return result


def text(name: str) -> Callable[[Path], Any]:
    return lambda work: (work / name).read_text() if (work / name).exists() else None


def _make_circuit(work: Path) -> None:
    circuit = stim.Circuit.generated(
        "surface_code:rotated_memory_z", distance=3, rounds=3, after_clifford_depolarization=0.008,
        before_measure_flip_probability=0.01,
    )  # fmt: skip
    circuit.to_file(work / "mine.stim")


def _store_shots(work: Path) -> None:
    from syndistill.circuits.experiment import Experiment

    def store() -> None:
        circuit = Experiment.parse("d=3,rounds=3,basis=z,noise=si1000,p=0.004").circuit()
        StoredShots.sample(circuit, 50, 1).save(work / "shots.npz")

    assert call(store, work).code == 0


def _run(arguments: Any) -> Callable[[Path], None]:
    def begin_with(work: Path) -> None:
        done = call(arguments, work)
        assert done.code == 0, done.said

    return begin_with


def _load_shots_guarded() -> int:
    """As a verb does it: a SyndistillError is one line."""
    from syndistill.errors import SyndistillError

    try:
        Path("loaded").write_text(StoredShots.load("shots.npz").sha256)
    except SyndistillError as error:
        print(f"error: {error}")
        return 2
    return 0


def _set(*changes: str) -> list[str]:
    return [word for change in changes for word in ("--set", change)]


_TRAINING = ("steps=5", "batch_size=32", "log_every=1", "checkpoint_minutes=0")
_TRAIN = ["train", "teacher-tiny", "--out", "t", *_set(*(f"training.{one}" for one in _TRAINING))]
_EVALUATE = [
    "evaluate", "pymatching", "pymatching-correlated", TEACHER, "--experiment",
    "d=3,rounds=3,basis=z,noise=si1000,p=0.01", "--shots", "800", "--batch", "100", "--rows", "rows.jsonl", "--json",
    "out.json", "--force",
]  # fmt: skip
_DATA = ("data.cached_shots=1024", f"teacher={TEACHER}")
_DISTILL = [
    "distill", "baseline-tiny", "--accept-any-teacher", "--cache", "cache",
    *_set("terms.spatial.weight=1", "terms.temporal.weight=1", *_DATA),
    *_set(*(f"training.{one}" for one in _TRAINING)),
]  # fmt: skip
_STAGES = ("no_kd", "baseline.training", "stage1.training", "stage2.training", "fuse.training")
_ROAD = [
    "distill", "road-tiny", "--accept-any-teacher", "--out", "r", *_set(*_DATA, "data.cached_shots=512"),
    *_set(*(f"{stage}.{one}" for stage in _STAGES for one in ("steps=2", "batch_size=32", "checkpoint_minutes=0"))),
    *_set("fuse.fit_shots=64", "fuse.report_shots=64"),
]  # fmt: skip
_ABLATE = [
    "ablate", "ablation-tiny", "--accept-any-teacher",
    *_set("steps=8", "base.batch_size=32", "probing.steps=2", "probing.fit_shots=64", "probing.report_shots=64",
          "judging.cases=[[3,300]]", "judging.optimum=false", "judging.teacher_shots=100", "gate_shots=100",
          "base.data.cached_shots=512", "questions=[]", f"teacher={TEACHER}",
          'sweeps=[{"student":"flat-gru-5k","budget":1,"arms":["baseline"]}]'),
]  # fmt: skip
_OWN = [
    "distill", "--circuit", "mine.stim", "--out", "o", "--shots", "1000",
    *_set(*(f"student.training.{one}" for one in _TRAINING), "student.data.simulated.curriculum.n_rates=2"),
]  # fmt: skip
_ROAD_FILES = [f"r/{stage}/student.safetensors" for stage in ("no_kd", "baseline", "stage1", "stage2")]
VERBS = [
    Verb("evaluate", _EVALUATE, comparison, half_at=0.5, appends=True),
    Verb("evaluate-again", _EVALUATE, comparison, half_at=1.0, writes=False, begins=_run(_EVALUATE)),
    Verb("train", _TRAIN, networks("t/teacher.safetensors"), half_at=0.6, weight=3, appends=True),
    Verb("train-again", ["train", "t/run.json", "--out", "again"], networks("again/teacher.safetensors"), half_at=1.0,
         writes=False, begins=_run(_TRAIN), weight=2),
    Verb("distill", [*_DISTILL, "--out", "d"], networks("d/student.safetensors"), half_at=0.8, beside="distill-other",
         weight=2, appends=True),
    Verb("distill-other", [*_DISTILL, "--out", "other"], networks("other/student.safetensors"), half_at=0.3,
         writes=False, weight=2),
    Verb("road", _ROAD, networks("r/fuse/fusion.safetensors", *_ROAD_FILES), half_at=0.7, weight=1, appends=True),
    Verb("own", _OWN, networks("o/student.safetensors"), half_at=0.6, weight=1, begins=_make_circuit),
    Verb("ablate", [*_ABLATE, "--out", "a", "--rows", "rows.jsonl"], scores("rows.jsonl"), half_at=0.7,
         beside="ablate-other", weight=1, appends=True),
    Verb("ablate-other", [*_ABLATE, "--out", "b", "--rows", "rows.jsonl"], scores("rows.jsonl"), half_at=0.4,
         writes=False, weight=1),
    Verb("report", ["report", "rows.jsonl"], text("report.md"), half_at=1.0,
         begins=_run([*_ABLATE, "--out", "a", "--rows", "rows.jsonl"])),
    Verb("stored", _load_shots_guarded, text("loaded"), half_at=1.0, writes=False, begins=_store_shots),
]  # fmt: skip
