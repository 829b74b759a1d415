"""The parts of a stage on a Dask cluster, through Prefect's Dask task runner: each part is a task run of the
UI, and a part whose worker dies is computed by another.

The cluster is one that runs elsewhere (``compute.address``), or one of this machine's own for as long as the
stage takes. Its workers must run this very code and see this very folder; both are asked first.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from ipaddress import ip_address
from pathlib import Path
from typing import Any, TypeVar

from flows import params as params_file
from flows import sweep
from flows.compute import ADDRESS, ComputeError, Pool
from flows.identity import code_hash
from flows.platform import client_environment
from flows.servers import state_of

# Prefect reads its settings when it is first imported: those of the platform of this folder, if one runs.
for _name, _value in client_environment(Path.cwd(), state_of(Path.cwd())).items():
    os.environ.setdefault(_name, _value)
Path(os.environ["PREFECT_HOME"]).mkdir(parents=True, exist_ok=True)
# isort: split
import distributed  # noqa: E402
from prefect import flow, task  # noqa: E402
from prefect.cache_policies import NO_CACHE  # noqa: E402
from prefect.client.orchestration import get_client  # noqa: E402
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId  # noqa: E402
from prefect.runtime import flow_run as this_run  # noqa: E402
from prefect.states import Crashed  # noqa: E402
from prefect_dask import DaskTaskRunner  # noqa: E402

T = TypeVar("T")
R = TypeVar("R")

TASKS_A_WORKER = 8
"""Parts are bundled into at most so many tasks for each worker: a task costs Prefect far more than Dask, and
a worker that dies loses one of them."""
CONNECT_S = 60.0
CODE = code_hash()
"""Of what this process has loaded: a worker that was started before an update goes on with the old code."""
WORKER_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "PREFECT_LOGGING_LEVEL": "CRITICAL"}
"""Of this machine's own workers. Who needs a number of threads for a result asks for it by name."""
_body: ContextVar[Callable[[Pool], Any]] = ContextVar("body")
_address: ContextVar[str] = ContextVar("address")


def _on_cluster(stage: str) -> Any:
    """Parts of a stage of the line, computed on a Dask cluster."""
    # A flow whose process is killed is found by its record, and told to Prefect.
    with sweep.recorded(Path.cwd(), str(this_run.id), stage):
        return _body.get()(DaskPool(_address.get()))


def _some(label: str, work: Callable[[], list[Any]]) -> list[Any]:
    return work()


# Under names of their own: pickle then finds the functions where they are, and ships no copy of them.
ON_CLUSTER = flow(_on_cluster, name="on-cluster", flow_run_name="{stage}", persist_result=False, retries=0)
SOME = task(
    _some, name="parts", task_run_name="{label}", persist_result=False, retries=0, cache_policy=NO_CACHE
)


def run(stage: str, settings: params_file.ComputeParams, body: Callable[[Pool], R]) -> R:
    """``body`` inside a flow run whose tasks go to the cluster of ``settings``."""
    from prefect import tags

    with quiet(), _cluster(settings) as address:
        check(address)
        runner = DaskTaskRunner(address=address)
        tokens = _body.set(body), _address.set(address)
        try:
            with tags(sweep.TAG, "compute"):
                result: R = ON_CLUSTER.with_options(task_runner=runner)(stage)
        finally:
            _body.reset(tokens[0])
            _address.reset(tokens[1])
    return result


class DaskPool:
    """See ``flows.compute.Pool``. Only inside the flow ``ON_CLUSTER``."""

    def __init__(self, address: str) -> None:
        with _client(address) as client:
            self.workers = max(1, len(client.scheduler_info(n_workers=-1)["workers"]))

    def map(self, work: Callable[[T], R], items: Sequence[T], name: str = "part") -> Iterator[R]:
        size = -(-len(items) // (self.workers * TASKS_A_WORKER)) if items else 1
        chunks = [items[first : first + size] for first in range(0, len(items), size)]
        # A partial is opaque to Prefect, which otherwise walks through everything that a task is given.
        futures = [
            SOME.submit(_label(name, at * size, len(chunk), len(items)), functools.partial(_all, work, chunk))
            for at, chunk in enumerate(chunks)
        ]
        for future, chunk in zip(futures, chunks, strict=True):
            try:
                yield from future.result()
            except distributed.scheduler.KilledWorker as error:
                text = (
                    f"{error.allowed_failures + 1} workers died one after another over {chunk[0]}: most "
                    "often of memory; give each more of it, or compute with `compute.engine: local`"
                )
                _crash(text)
                raise ComputeError(text) from None


def _all(work: Callable[[T], R], items: Sequence[T]) -> list[R]:
    return [work(item) for item in items]


def _label(name: str, first: int, count: int, of: int) -> str:
    return f"{name} {first + 1} of {of}" if count == 1 else f"{name} {first + 1} to {first + count} of {of}"


def _crash(text: str) -> None:
    """The task runs that died with their workers still say Running: tell Prefect what became of them."""
    here = FlowRunFilter(id=FlowRunFilterId(any_=[this_run.id]))
    with get_client(sync_client=True) as client:
        for run in client.read_task_runs(flow_run_filter=here):
            if not run.state or not run.state.is_final():
                client.set_task_run_state(run.id, Crashed(message=text), force=True)


# --- the cluster


@contextmanager
def _cluster(settings: params_file.ComputeParams) -> Iterator[str]:
    """The address of the cluster that is asked for, or of one that lives as long as the block."""
    if settings.address:
        _reachable(settings.address)
        yield settings.address
        return
    workers = settings.workers or max(1, (os.cpu_count() or 1) // max(1, params_file.load().threads))
    with distributed.LocalCluster(
        n_workers=workers, threads_per_worker=1, processes=True, host="127.0.0.1", dashboard_address=":0",
        silence_logs=logging.CRITICAL, env=WORKER_ENVIRONMENT,
    ) as cluster:  # fmt: skip
        yield cluster.scheduler_address


def _reachable(address: str) -> None:
    """ComputeError when workers of another machine would look for Prefect's server on their own."""
    host = address.rpartition("://")[2].rpartition(":")[0].strip("[]")
    try:
        loopback = host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback and not os.environ.get("PREFECT_API_URL"):
        raise ComputeError(
            f"compute.address {address}: its workers report to a Prefect server that they can reach; set "
            "PREFECT_API_URL to one (docs/scaling.md)"
        )


@contextmanager
def _client(address: str) -> Iterator[distributed.Client]:
    try:
        client = distributed.Client(address, set_as_default=False, timeout=CONNECT_S)
    except (OSError, TimeoutError, ValueError) as error:
        raise ComputeError(
            f"no Dask scheduler answers at {address} ({error}): start one (`dask scheduler`), mend "
            f"compute.address or {ADDRESS}, or compute with `compute.engine: local`"
        ) from None
    with client:
        yield client


def check_cluster(settings: params_file.ComputeParams) -> list[str]:
    """``check`` of the cluster that ``settings`` ask for."""
    with quiet(), _cluster(settings) as address:
        return check(address)


def check(address: str) -> list[str]:
    """One line for each worker. ComputeError when there is none, or when one runs other code, other libraries
    or another folder than this process."""
    with _client(address) as client:
        try:
            client.wait_for_workers(1, timeout=CONNECT_S)
        except TimeoutError:
            raise ComputeError(
                f"the Dask scheduler at {address} has no worker: start some (`dask worker {address} "
                "--nthreads 1`)"
            ) from None
        said = client.run(_about, str(Path.cwd()))
        ours = _about(str(Path.cwd()))
    for worker, (code, libraries, sees, _) in said.items():
        if not sees:
            raise ComputeError(
                f"worker {worker} does not see {Path.cwd()}: share the folder under the same path on all "
                "machines"
            )
        if (code, libraries) != ours[:2]:
            differs = "code" if code != ours[0] else "libraries"
            raise ComputeError(
                f"worker {worker} runs other {differs} than this process: bring both to the same commit and "
                "lock (`make setup`), then start the worker again"
            )
    return [f"{worker}  {memory / 1e9:.1f} GB" for worker, (*_, memory) in sorted(said.items())]


def _about(folder: str) -> tuple[str, tuple[str, ...], bool, int]:
    """Code, libraries, whether the folder is there, and the memory of the process that is asked."""
    import importlib.metadata

    import psutil

    from flows.identity import LIBRARIES

    names = (*LIBRARIES, "distributed", "prefect")
    versions = tuple(importlib.metadata.version(name).split("+")[0] for name in names)
    return CODE, versions, Path(folder).is_dir(), psutil.virtual_memory().total


@contextmanager
def quiet() -> Iterator[None]:
    """What Prefect and Dask say about their own work is in the UI; a person wants the stage's lines."""
    names = ("prefect.flow_runs", "prefect.task_runs", "prefect.task_runner.dask", "distributed")
    before = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
