"""Commands in their own process group: nothing of them outlives the block."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from flows import line
from market.errors import ScalperError


def _gone(pid: int, within_s: float = 10.0) -> bool:
    """Whether the process ends; a zombie waiting for its parent counts as ended."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.02)
    return False


def test_lines_and_status_come_back(tmp_path: Path) -> None:
    seen: list[str] = []
    status = line.run(
        [sys.executable, "-c", "import sys; print('one'); print('two', file=sys.stderr); sys.exit(3)"],
        cwd=tmp_path,
        on_line=seen.append,
    )
    assert status == 3
    assert seen == ["one", "two"]


def test_a_grandchild_that_ignores_term_is_killed_with_the_group(tmp_path: Path) -> None:
    # What dvc repro does: a shell that starts a training process.
    stubborn = (
        "import os, signal, time; signal.signal(15, signal.SIG_IGN); "
        "print(os.getpid(), flush=True); time.sleep(600)"
    )
    with line.started(
        ["sh", "-c", f"{sys.executable} -c '{stubborn}'; true"], cwd=tmp_path, grace_s=0.3
    ) as process:
        assert process.stdout is not None
        grandchild = int(process.stdout.readline())
        assert not _gone(grandchild, within_s=0.05)
    assert _gone(grandchild)


def test_terminating_the_caller_ends_the_group(tmp_path: Path) -> None:
    script = tmp_path / "caller.py"
    script.write_text(
        textwrap.dedent(
            """
            import sys
            from flows import line
            from flows.interrupt import interruptible
            child = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
            with interruptible():
                line.run([sys.executable, "-c", child])
            """
        )
    )
    root = Path(line.__file__).resolve().parents[1]
    env = {**os.environ, "PYTHONPATH": str(root), "PYTHONUNBUFFERED": "1"}
    caller = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env=env)
    assert caller.stdout is not None
    child = int(caller.stdout.readline())
    caller.send_signal(signal.SIGTERM)
    assert caller.wait(timeout=20) == 128 + signal.SIGTERM
    assert _gone(child)
    caller.stdout.close()


def test_two_runs_of_a_line_do_not_meet_and_the_holder_is_named(tmp_path: Path) -> None:
    script = (
        "import sys, time\nfrom pathlib import Path\nfrom flows import line\n"
        "with line.exclusive(Path(sys.argv[1]), 'flow retrain'):\n"
        "    print('held', flush=True)\n    time.sleep(600)\n"
    )
    root = Path(line.__file__).resolve().parents[1]
    env = {**os.environ, "PYTHONPATH": str(root)}
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True, env=env
    ) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with (
            pytest.raises(line.LineBusy, match=rf"in use by flow retrain \(pid {holder.pid}"),
            line.exclusive(tmp_path, "scalper repro"),
        ):
            pass
        holder.kill()
    with line.exclusive(tmp_path, "scalper repro"):
        pass  # a holder that died holds nothing


def test_repro_outside_a_line_says_where_to_go(tmp_path: Path) -> None:
    with pytest.raises(ScalperError, match=r"has no dvc\.yaml"):
        line.repro(tmp_path)
