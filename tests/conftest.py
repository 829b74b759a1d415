"""What every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# Searching for new counterexamples is for a developer's machine; CI repeats the same examples every time. How
# long an example takes says nothing here: the first one may compile a kernel.
settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")

ROOT = Path(__file__).resolve().parents[1]
LONGEST_FIRST = (
    "test_the_line", "test_runner_paper", "test_platform", "test_export", "test_training", "test_features",
    "test_recovery",
)  # fmt: skip
"""Files whose tests take minutes: begun last, one of them keeps one worker busy and leaves the other idle."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = {name: at for at, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: order.get(item.path.stem, len(order)))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with third parties' recordings, which is not part of the repository."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no third-party recordings beside the project (looked for {folder.name}/ in ../shared)")
    return folder
