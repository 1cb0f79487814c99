"""A Student's run: Teacher, shots, terms and training in; a saved Student out, and nothing else of it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from pydantic import computed_field, model_validator

from syndistill.circuits.training_noise import NOISE_KEY
from syndistill.distill.cache.source import (
    MANY_SHOTS,
    LiveSource,
    StudentData,
    cached_source,
    cached_statistics,
    check_cache,
    recorded,
    simulated,
)
from syndistill.distill.signals.ensemble import EnsembleTeacher, check_labels_for, teacher_named
from syndistill.distill.signals.fusion import SAME, Fusion, load_fusion
from syndistill.distill.signals.teacher import BF16, TaughtShots, Teacher
from syndistill.distill.stage import StageInputs, check_student_signals, prepare_stage, stage_statistics
from syndistill.distill.terms import Terms
from syndistill.errors import SyndistillError
from syndistill.files.families import Dials
from syndistill.files.network_file import network_path, read_header
from syndistill.models.contract import DecoderNetwork
from syndistill.models.device import usable_device
from syndistill.models.networks import fresh_network, load_network, save_network, weights_hash
from syndistill.reporter import SILENT, Reporter
from syndistill.sampling.recorded import SEEN_KEY, RecordingProperties, most_of_each, shots_seen
from syndistill.sampling.recorded_shots import RecordedShots
from syndistill.sampling.stream import BatchSource
from syndistill.training.config import (
    Name,
    Precision,
    Strict,
    TrainingConfig,
    check_constant_batch,
    check_network_fits,
    check_start,
)
from syndistill.training.distributed import World, join_world, wait_for_all
from syndistill.training.loop import Trainer
from syndistill.training.objective import label_loss
from syndistill.training.run import ANCESTORS
from syndistill.training.run_folder import open_run
from syndistill.training.source import data_hashes, signature, statistics_shots
from syndistill.training.start import AnyDials, check_told_frame, start_weights
from syndistill.training.watch import Watch

STUDENT_FILE = "student.safetensors"
JUDGED_AT_A_TIME = 2_048


class Shared(NamedTuple):
    """What all stages of one road have in common; fields as in `StudentRun`."""

    network: AnyDials
    teacher: str
    data: StudentData


class StudentRun(Strict):
    """Everything one stage of a Student's training depends on."""

    network: AnyDials
    teacher: Name
    """A shipped network's name, a path, or an ensemble: several of them, and beside them `exact` or reference decoders,
    as `pymatching-correlated`, between commas."""
    teacher_precision: Precision = "fp32"
    """bf16: the Teacher answers twice as fast on a CPU, to the third digit."""
    data: StudentData
    terms: Terms = Terms()
    training: TrainingConfig
    start_from: Name | None = None
    """The same Student after an earlier stage, or a local GRU of narrower states, or one without a frame memory; None:
    fresh weights."""
    fusion: Name | None = None
    """The fuse stage's file, for the fused term."""

    @model_validator(mode="after")
    def _stage_fits(self) -> StudentRun:
        terms = self.terms
        if self.data.simulated.part_rounds is not None and terms.needs_teacher:
            raise ValueError("a Teacher answers whole experiments; with data.simulated.part_rounds take labels alone")
        check_network_fits(self.network.distance, self.network.output, self.data.simulated)
        check_labels_for(self.teacher, self.data.simulated)
        check_start(self.training, self.start_from)
        check_constant_batch(self.training)
        if self.data.recorded and terms.needs_whole_history:
            raise ValueError("data.recorded has the labels of the last end alone; terms must look at that one")
        if self.data.cached_ends == "last" and terms.needs_every_end:
            raise ValueError("data.cached_ends=last has no answers of earlier ends; terms must look at the last one")
        if terms.final.most_rounds and (self.data.cached_shots or terms.goes_inside or terms.fused.weight):
            raise ValueError("most_rounds is for fresh shots and a Teacher's final logits alone; leave it out")
        if terms.frame.weight:
            self._frame_fits()
        if bool(self.fusion) != bool(terms.fused.weight):
            raise ValueError("fusion and a fused term of weight above 0 belong together; give both or none")
        return self

    def _frame_fits(self) -> None:
        if not getattr(self.network, "frame_memory", False):
            raise ValueError("terms.frame is for a network with a frame; set network.frame_memory, or leave it out")
        if self.data.recorded or self.data.cached_shots or self.data.simulated.labels == "revealed":
            raise ValueError("terms.frame needs fresh simulated shots with sampled or exact labels; leave it out")
        if "both" in self.data.simulated.bases:
            raise ValueError("terms.frame is for bases x and z; leave it out")
        rounds = self.data.simulated.part_rounds or self.data.simulated.curriculum.longest
        if self.terms.frame.delay >= rounds:
            raise ValueError(f"terms.frame.delay={self.terms.frame.delay} leaves nothing of {rounds} rounds; lower it")

    @model_validator(mode="before")
    @classmethod
    def _without_kind(cls, content: Any) -> Any:
        """Files say it for their readers; it follows from the rest."""
        return {key: value for key, value in content.items() if key != "kind"} if isinstance(content, dict) else content

    @computed_field  # type: ignore[prop-decorator]
    @property
    def kind(self) -> Literal["baseline", "stage1", "fused", "stage2"]:
        """baseline: labels and final logits; stage1: any signal of the Teacher beside; fused: z_fuse from fresh
        weights; stage2: z_fuse, from an earlier stage."""
        if self.terms.fused.weight:
            return "stage2" if self.start_from else "fused"
        return "stage1" if self.terms.goes_inside else "baseline"


def train_student(
    run: StudentRun,
    folder: Path,
    cache: Path | None = None,
    reporter: Reporter = SILENT,
    teacher: Teacher | None = None,
    first: Callable[[], None] = lambda: None,
) -> Path:
    """Train one stage (or go on) in `folder`; returns the saved Student's path (averaged weights).

    cache: where the Teacher's answers are kept, shared by runs that ask the same; default: in `folder`. teacher: one
    of your own, of which run.teacher is then only the name. first: called once the run has its folder, before it
    learns.
    """
    teacher = teacher or teacher_named(run.teacher, run.teacher_precision, run.data.simulated)
    cache = cache or folder / "cache"
    network, fusion, said = _start_of(run, teacher)
    check_cache(run.data, teacher, cache)
    world = join_world(torch.device(run.training.device))
    with open_run(folder, run, student_hashes(run, teacher), STUDENT_FILE, world):
        first()
        return _train(run, folder, cache, teacher, network, fusion, said, reporter, world)


def _train(
    run: StudentRun,
    folder: Path,
    cache: Path,
    teacher: Teacher,
    network: DecoderNetwork,
    fusion: Fusion | None,
    said: dict[str, Any] | None,
    reporter: Reporter,
    world: World,
) -> Path:
    if said is not None and (said.get("verdict") == SAME or not said.get("better")):
        found = f"{SAME} as" if said.get("verdict") == SAME else "not better in NLL than"
        reporter.say(
            f"WARNING: z_fuse is {found} the Teacher's calibrated final logit (see fuse_report.json); "
            f"{run.kind} learns from it all the same"
        )
    measured = bool(run.terms.features) or run.terms.readout.gated or run.terms.eyes.weight > 0
    shots = statistics_shots(run.data.simulated, run.data.cache_seed, labels=teacher.labels) if measured else []
    known = cached_statistics(run.terms, run.data, teacher, cache)
    statistics = stage_statistics(run.terms, teacher, shots, folder, known)
    given = StageInputs(run.terms, teacher, statistics, shots, run.training, fusion, {"fusion": said})
    source = _source(run, given, cache, reporter, world)
    stage = prepare_stage(given, network, source, folder)
    carried = stage.objective.carried
    watch = _watch(run, source, network)
    trainer = Trainer(
        network, stage.objective, source, run.training, folder, stage.extra, shared=_is_fresh(run.data),
        carried=carried, watch=watch,
    )  # fmt: skip
    name = run.kind if run.terms.needs_teacher else "labels alone"
    trainer.run(reporter.bar(name, run.training.steps, run.training.batch_size))
    path = folder / STUDENT_FILE
    if trainer.world.is_first:
        stage.save_adapters(folder, trainer.ema_extra_state())
        network.load_state_dict(trainer.ema_state() if watch is None else watch.best)
        if watch is not None:
            reporter.say(f"{name}: the weights of step {watch.best_step} did best on the development shots")
        save_network(path, network, _said_of(run, teacher, trainer, said))
    wait_for_all(trainer.world)
    return path


def _watch(run: StudentRun, source: BatchSource[TaughtShots], network: DecoderNetwork) -> Watch | None:
    """Early stop on the development shots of recordings, each counting alike; None without such."""
    of = run.data.recorded
    if of is None or not of.dev_shots:
        return None
    assert isinstance(source, LiveSource)
    assert isinstance(source.source, RecordedShots)
    judged = copy.deepcopy(network)  # before the network is compiled
    parts = [
        dev.take(slice(at, at + JUDGED_AT_A_TIME))
        for dev in source.source.dev
        for at in range(0, len(dev), JUDGED_AT_A_TIME)
    ]
    labels_BKLO = torch.cat([known[:, -1:, :1] for part in parts if (known := part.labels_BKLO) is not None])

    @torch.no_grad()
    def judge(weights: Mapping[str, torch.Tensor]) -> float:
        judged.load_state_dict(weights)
        logits_BKLC = torch.cat([judged(part).logits_BKLC[:, -1:, :1] for part in parts])
        return float(label_loss(logits_BKLC, labels_BKLO).mean())

    return Watch(judge, of.dev_every, of.patience)


def _said_of(run: StudentRun, teacher: Teacher, trainer: Trainer, said: dict[str, Any] | None) -> dict[str, Any]:
    before = {} if run.start_from is None else load_network(run.start_from)[1]
    of, noise = teacher.key(), signature(run.data.simulated).to_json()
    if not run.terms.needs_teacher:  # labels alone leave it whose Student it was
        of = before.get("teacher_hash", of)
    if run.data.recorded is not None:  # one day's noise, known beside that of the start
        noise = before.get(NOISE_KEY, noise)
    metadata: dict[str, Any] = {
        "run": run.model_dump(mode="json"), "teacher_hash": of, "shots_seen": trainer.shots_seen, NOISE_KEY: noise,
    }  # fmt: skip
    if seen := _seen(run, before):
        metadata[SEEN_KEY] = seen
    if said is not None:
        metadata["fused_better_than_calibrated_final"] = bool(said.get("better"))
    return metadata


def _seen(run: StudentRun, before: Mapping[str, Any]) -> dict[str, int]:
    """Of which recordings how many first shots this Student or the one that it began from has learned or looked at."""
    seen, of = shots_seen(before), run.data.recorded
    if of is None:
        return seen
    labels = [RecordingProperties.load(folder).label for folder in of.folders]
    return most_of_each([seen, dict.fromkeys(labels, of.shots + of.dev_shots)])


def _start_of(run: StudentRun, teacher: Teacher) -> tuple[DecoderNetwork, Fusion | None, dict[str, Any] | None]:
    """The network before its first step, the fusion and what was said of it; all that can be refused before a file
    is written is refused here."""
    usable_device(run.training.device)
    check_fit(run.network, teacher, run.teacher)
    teacher.require(run.terms.asked, f"{run.kind}")
    fusion, said = _fusion(run, teacher)
    network = first_weights(run, teacher)
    check_student_signals(network, run.terms)
    return network, fusion, said


def first_weights(run: StudentRun, teacher: Teacher) -> DecoderNetwork:
    """The Student as a run begins it: fresh, or with the weights of `start_from`."""
    network = fresh_network(run.network, run.training.seed)
    if run.start_from is not None:
        _start(network, run, teacher)
    check_told_frame(network, run.data.simulated)
    return network


def check_fit(network: Dials, teacher: Teacher, name: str) -> None:
    found, wanted = (teacher.layout.distance, teacher.output), (network.distance, network.output)
    if found != wanted:
        raise SyndistillError(
            f"the Teacher {name} is of distance {found[0]} and output {found[1]}, the Student of {wanted[0]} and "
            f"{wanted[1]}; give them the same"
        )


def student_hashes(run: StudentRun, teacher: Teacher) -> dict[str, str]:
    """Of everything outside run.json that the run starts from."""
    hashes = {"teacher": teacher.key()} | data_hashes(run.data.simulated)
    if run.start_from is not None:
        hashes["start_from"] = weights_hash(load_network(run.start_from)[0])
    if run.data.unsure is not None and not run.data.cached_shots:  # a cache knows it by its key
        hashes["unsure"] = run.data.unsure.chooser_hash()
    if run.data.recorded is not None:
        hashes["recorded"] = recorded(run.data, run.training.batch_size, run.training.seed).sha256
    if run.fusion is not None:
        hashes["z_fuse"] = load_fusion(Path(run.fusion), teacher)[0].key(teacher.key())
    return hashes


def _fusion(run: StudentRun, teacher: Teacher) -> tuple[Fusion | None, dict[str, Any] | None]:
    if run.fusion is None:
        return None, None
    fusion, said = load_fusion(Path(run.fusion), teacher)
    teacher.require(fusion.wants, f"{run.kind}'s fusion")
    return fusion, said


def _start(network: DecoderNetwork, run: StudentRun, teacher: Teacher) -> None:
    """Take up the weights of an earlier stage of the same Student, and of nothing else."""
    assert run.start_from is not None
    check_goes_on(run.start_from, run.teacher, teacher if run.terms.needs_teacher else None)
    start_weights(network, run.start_from)


def check_goes_on(start: str, name: str, teacher: Teacher | None) -> None:
    """SyndistillError where `start` is no Student after its baseline or stage 1, or one of another Teacher than this
    one of that name (None: from labels alone any will do) and no member of the ensemble that it is."""
    is_member = isinstance(teacher, EnsembleTeacher) and weights_hash(load_network(start)[0]) in teacher.kin
    key = None if teacher is None or is_member else teacher.key()
    metadata = read_header(start).metadata
    said = metadata.get("run")
    kind = said.get("kind") if isinstance(said, dict) else None
    if kind not in ("baseline", "stage1"):
        raise SyndistillError(
            f"{start} is no Student after its baseline or stage 1 (kind {kind!r}); name such a file with start_from"
        )
    of = str(metadata.get("teacher_hash")).removesuffix(BF16)
    if key is not None and of not in (key.removesuffix(BF16), *_ancestors(name)):
        raise SyndistillError(
            f"{start} is the Student of another Teacher than {name}; name a checkpoint of this road"
        )


def _ancestors(teacher: str) -> list[str]:
    """Of a tuned Teacher's file: whose Students may go on with it."""
    path = network_path(teacher)
    found = read_header(teacher).metadata.get(ANCESTORS, []) if path is not None else []
    return [str(one) for one in found] if isinstance(found, list) else []


def _is_fresh(data: StudentData) -> bool:
    """Whether shots are simulated as they are needed: each process makes its own part, since labels can cost much."""
    return data.recorded is None and not data.cached_shots


def _source(
    run: StudentRun, given: StageInputs, folder: Path, reporter: Reporter, world: World
) -> BatchSource[TaughtShots]:
    every_end = run.terms.needs_every_end
    if run.data.recorded is not None:
        return LiveSource(recorded(run.data, run.training.batch_size, run.training.seed), ())
    if _is_fresh(run.data):
        if run.terms.needs_teacher and run.training.steps * run.training.batch_size >= MANY_SHOTS:
            given.teacher.prepare_for_many()
        ends = run.data.ends if every_end else 0
        fresh = simulated(run.data, run.training.batch_size, run.training.seed, ends if every_end else 1, world)
        return LiveSource(fresh, run.data.cut_rounds, every_end, ends)
    return cached_source(run.data, run.training, given.teacher, folder, given.targets, every_end, reporter)
