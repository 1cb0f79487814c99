"""Tasks on a Ray cluster: one core each. The sweep's folder must be on a disk that all its machines share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from syndistill.ablation.backends import LOST, Backend, Outcome
from syndistill.ablation.work import Task
from syndistill.errors import SyndistillError


class RayCluster(Backend):
    """address: "ray" for a cluster on this machine of so many workers, or "ray://host:port" for a running one.

    A task whose worker died is given back as failed: it is the runner that tries again, so that attempts are counted
    in one place. SyndistillError where Ray is not installed or the cluster does not answer.
    """

    def __init__(self, address: str, workers: int) -> None:
        try:
            import ray
        except ImportError:
            raise SyndistillError("Ray is not installed: pip install 'syndistill[ray]'") from None
        self._ray = ray
        try:
            if address == "ray":
                ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False)
            else:
                ray.init(address, log_to_driver=False)
        except (ConnectionError, RuntimeError, ValueError) as error:
            said = " ".join(str(error).split())[:200]
            raise SyndistillError(f"--on {address}: the cluster does not answer ({said}); is it running?") from None
        self.workers = int(ray.cluster_resources().get("CPU", 1))
        self._remote = ray.remote(num_cpus=1, max_retries=0)(_do)
        self._busy: dict[Any, Task] = {}

    def start(self, task: Task) -> None:
        self._busy[self._remote.remote(task.work)] = task

    def next_done(self) -> tuple[Task, Outcome]:
        (done, *_), _ = self._ray.wait(list(self._busy), num_returns=1)
        task = self._busy.pop(done)
        try:
            return task, self._ray.get(done)
        except self._ray.exceptions.WorkerCrashedError:
            return task, RuntimeError(LOST)
        except self._ray.exceptions.RayTaskError as error:
            cause = getattr(error, "cause", None)
            return task, cause if isinstance(cause, Exception) else error
        except self._ray.exceptions.RayError as error:
            return task, error

    def close(self) -> None:
        for reference in self._busy:
            self._ray.cancel(reference, force=True)
        self._ray.shutdown()


def _do(work: Callable[[], Any]) -> Any:
    return work()
