"""What every Prefect flow of the platform shares: quiet settings, a readable name, tags, stale runs skipped,
a record for the sweeper, a progress bar, and a notice with advice when it fails.

Flows import Prefect's names from here, because the settings must stand before Prefect is first imported.
"""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from flows import line, notices, sweep
from flows.platform import prefect_environment
from market.errors import ScalperError

# Prefect reads its settings when it is first imported; what is already set wins.
for _name, _value in prefect_environment(Path.cwd()).items():
    os.environ.setdefault(_name, _value)
# isort: split
from prefect import Flow, flow, get_run_logger  # noqa: E402
from prefect.artifacts import (  # noqa: E402
    create_image_artifact,
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.client.schemas.objects import FlowRun, State  # noqa: E402
from prefect.context import FlowRunContext  # noqa: E402
from prefect.events import emit_event  # noqa: E402
from prefect.runtime import flow_run as this_run  # noqa: E402
from prefect.states import Completed  # noqa: E402

__all__ = [
    "NothingToDo", "Progress", "create_image_artifact", "create_link_artifact", "create_markdown_artifact",
    "create_table_artifact", "emit_event", "get_run_logger", "job", "reproduce", "run_command", "this_run",
]  # fmt: skip


class NothingToDo(ScalperError):
    """There is nothing to work on yet: the run completes as "Skipped", and nobody is alarmed."""


MOSCOW = ZoneInfo("Europe/Moscow")
DVC_WAIT_S = 4 * 3600.0
"""How long a flow waits for another flow that uses the line of the same folder."""
_record: ContextVar[sweep.RunRecord | None] = ContextVar("run_record", default=None)


def job(
    name: str, *, todo: str, max_late_s: float = 3600.0, tags: Sequence[str] = ()
) -> Callable[[Callable[..., Any]], Flow[..., Any]]:
    """Make a function a flow called ``name``.

    ``todo``: what a person should do when it fails. A scheduled run that starts more than ``max_late_s``
    after its time (the platform was down) completes as "Skipped": what it would have done is due again
    anyway, and a backlog of old runs would only delay the next one. Runs asked for by hand are never skipped.
    """

    def wrap(work: Callable[..., Any]) -> Flow[..., Any]:
        @functools.wraps(work)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            late_s = _late_s()
            if late_s > max_late_s:
                text = f"stale: due {late_s / 60:.0f} minutes ago, over the limit of {max_late_s / 60:.0f}"
                get_run_logger().info(text)
                return Completed(name="Skipped", message=text)
            with _recorded(name):
                try:
                    return work(*args, **kwargs)
                except NothingToDo as reason:
                    get_run_logger().info(str(reason))
                    return Completed(name="Skipped", message=str(reason))

        # Prefect explains the parameters from the annotations and the docstring of the function it is given.
        guarded.__signature__ = inspect.signature(work, eval_str=True)  # type: ignore[attr-defined]

        def tell(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
            _tell(todo, flow, flow_run, state)

        return flow(
            name=name, flow_run_name=_run_name, persist_result=False, retries=0,
            description=(inspect.getdoc(work) or "").split("\n\nArgs:")[0],
            on_failure=[tell], on_crashed=[tell], on_cancellation=[tell],
        )(guarded)  # fmt: skip

    return wrap


def _late_s() -> float:
    context = FlowRunContext.get()
    run = context.flow_run if context is not None else None
    if run is None or not run.auto_scheduled:
        return 0.0
    due = run.expected_start_time or run.next_scheduled_start_time
    return 0.0 if due is None else (datetime.now(UTC) - due).total_seconds()


def _run_name() -> str:
    """``retrain 2026-01-17 06:00 main``: what, when (Moscow), which folder."""
    at = datetime.now(MOSCOW)
    folder = Path(str((this_run.parameters or {}).get("workdir", "."))).resolve().name
    return f"{this_run.flow_name} {at:%Y-%m-%d %H:%M} {folder}"


@contextmanager
def _recorded(name: str) -> Any:
    """The run's record where the platform's sweeper looks: it was started in the platform's folder, whatever
    folder it works in."""
    run_id = this_run.id
    if run_id is None:
        yield
        return
    with sweep.recorded(Path.cwd(), str(run_id), name) as record:
        token = _record.set(record)
        try:
            yield
        finally:
            _record.reset(token)


def _tell(todo: str, ran: Flow[..., Any], run: FlowRun, state: State[Any]) -> None:
    """On failure, crash or cancellation: an event, and a notice that says what to do, kept in the platform's
    folder, where `scalper status` shows it."""
    text = (state.message or state.name or "").strip()
    notice = notices.tell(
        Path.cwd(), kind=str(state.type.value), flow=ran.name, run=run.name, text=text, todo=todo
    )
    emit_event(
        event=f"scalper.flow.{state.type.value.lower()}",
        resource={"prefect.resource.id": f"scalper.flow.{ran.name}"},
        payload={"run": run.name, "text": notice.text, "todo": todo},
    )


class Progress:
    """A progress bar in the UI: ``at(done, of)`` with whole steps."""

    def __init__(self, key: str, what: str) -> None:
        made = create_progress_artifact(progress=0.0, key=key, description=what)
        assert isinstance(made, UUID)  # a coroutine only inside an event loop
        self._id = made

    def at(self, done: int, of: int) -> None:
        update_progress_artifact(self._id, progress=min(100.0 * done / max(of, 1), 100.0))


def run_command(argv: Sequence[str], workdir: Path) -> list[str]:
    """A command of ours in a process group of its own, its lines in the run's log; returns them.

    Raises LineError with its last line when it fails.
    """
    logger, said = get_run_logger(), []

    def pass_on(text: str) -> None:
        said.append(text)
        if text.strip():
            logger.info(text)

    status = line.run(list(argv), cwd=workdir, on_line=pass_on, on_start=_remember)
    if status != 0:
        last = next((text for text in reversed(said) if text.strip()), "it said nothing")
        raise line.LineError(f"{' '.join(argv[2:4])} failed with status {status}: {last}")
    return said


def reproduce(workdir: Path, *, who: str, stages: Sequence[str] = (), force: bool = False) -> None:
    """``dvc repro`` with its lines in the run's log and a progress bar. Never retried: a training that only
    works the second time is a finding."""
    import yaml

    logger = get_run_logger()
    pipeline = workdir / "dvc.yaml"
    count = len(yaml.safe_load(pipeline.read_text(encoding="utf-8"))["stages"]) if pipeline.is_file() else 1
    progress, done = Progress(f"{who}-progress", "stages of the line"), 0

    def pass_on(text: str) -> None:
        nonlocal done
        logger.info(text)
        if text.startswith(("Running stage '", "Stage '", "'")) and "Running stage" not in text:
            done += 1
            progress.at(done, count)
        elif text.startswith("Running stage '"):
            progress.at(done, count)
            done += 1

    line.repro(
        workdir, stages=stages, force=force, on_line=pass_on, on_start=_remember, who=f"flow {who}",
        wait_s=DVC_WAIT_S,
    )  # fmt: skip
    progress.at(1, 1)


def _remember(pid: int) -> None:
    record = _record.get()
    if record is not None:
        record.add_group(pid)
