"""Where tasks are done: in processes of this machine, one thread each. Ray's cluster is in `ray_backend`."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing.connection import wait as wait_for_any

from syndistill.ablation.rows import Row
from syndistill.ablation.work import Task

Outcome = Sequence[Row] | Exception
LOST = "the worker process died, perhaps for want of memory"


class Backend(ABC):
    """Does tasks, as many at a time as it has workers."""

    workers: int

    @abstractmethod
    def start(self, task: Task) -> None:
        """Only with less than `workers` tasks begun and not yet given back."""

    @abstractmethod
    def next_done(self) -> tuple[Task, Outcome]:
        """Waits for one; an exception is what the task raised, or that its worker died."""

    @abstractmethod
    def close(self) -> None:
        """Ends the workers, whatever they are at."""


class Inline(Backend):
    """In this very process, one at a time."""

    workers = 1

    def __init__(self) -> None:
        self._begun: list[Task] = []

    def start(self, task: Task) -> None:
        self._begun.append(task)

    def next_done(self) -> tuple[Task, Outcome]:
        task = self._begun.pop(0)
        try:
            return task, task.work()
        except Exception as error:
            return task, error

    def close(self) -> None:
        pass


class Processes(Backend):
    """A process for each worker, in a pool of its own: when one dies, it is known whose task it was."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._idle = [_pool() for _ in range(workers)]
        self._busy: dict[Future[Sequence[Row]], tuple[Task, ProcessPoolExecutor]] = {}

    def start(self, task: Task) -> None:
        pool = self._idle.pop()
        self._busy[pool.submit(task.work)] = (task, pool)

    def next_done(self) -> tuple[Task, Outcome]:
        done, _ = wait(self._busy, return_when=FIRST_COMPLETED)
        future = next(iter(done))
        task, pool = self._busy.pop(future)
        error = future.exception()
        if error is None:
            self._idle.append(pool)
            return task, future.result()
        if isinstance(error, BrokenProcessPool):
            pool.shutdown(wait=False)
            self._idle.append(_pool())
            return task, RuntimeError(LOST)
        self._idle.append(pool)
        return task, error if isinstance(error, Exception) else RuntimeError(repr(error))

    def close(self) -> None:
        busy = [pool for _, pool in self._busy.values()]
        for pool in busy:
            for process in list(getattr(pool, "_processes", None) or {}):
                _end(process)
        for pool in [*self._idle, *busy]:  # waited for: else Python warns of semaphores that were left behind
            pool.shutdown(wait=True, cancel_futures=True)


def _end(process: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(process, signal.SIGTERM)


def _pool() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), begin_worker)  # a forked PyTorch may hang


def begin_worker() -> None:
    """Interrupts are the parent's; and when the parent is killed, its workers must not write on beside the next call's
    workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    wait_for_any([sentinel])
    os._exit(1)
