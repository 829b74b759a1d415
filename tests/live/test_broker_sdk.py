"""``broker.transport: sdk``: the one error without the SDK, exact translation, the interop script's table."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

from live import config
from live.broker import sdk
from live.broker.api import TinkoffAPI
from live.broker.channel import Access
from live.broker.transport import DEADLINES_S
from market.contract import invest_pb2 as pb
from market.contract.convert import to_nano, to_ns
from market.contract.methods import METHODS
from market.errors import ConfigError
from market.paper.server import PaperServer
from market.simulator import SimSpec, simulate_recording

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "tools" / "sdk_interop.py"
PYTHON = "SCALPER_SDK_PYTHON"


def test_without_the_sdk_one_error_says_what_to_install_from_where_and_how(monkeypatch):
    monkeypatch.setattr(sdk, "MODULES", ("no_such_sdk.invest", "nor_this_one.invest"))

    async def run() -> None:
        TinkoffAPI(Access("localhost:1", "t", "1"), transport="sdk")

    with pytest.raises(sdk.SdkMissing) as caught:
        asyncio.run(run())
    text = str(caught.value)
    for words in (
        "broker.transport",
        "t-tech-investments",
        "opensource.tbank.ru",
        "pip install",
        "PyPI",
        "native",
    ):
        assert words in text
    assert "\n" not in text


def test_an_sdk_that_misses_a_package_says_which(monkeypatch, tmp_path):
    package = tmp_path / "half_sdk" / "invest"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("import no_such_dependency\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sdk, "MODULES", ("half_sdk.invest",))
    with pytest.raises(sdk.BrokerError, match="no_such_dependency"):
        sdk.find_sdk()


def test_the_transport_is_chosen_in_the_configuration():
    assert config.load(None).broker.transport == "native"
    assert config.load(None, ["broker.transport=sdk"]).broker.transport == "sdk"
    with pytest.raises(ConfigError, match="one of native, sdk"):
        config.load(None, ["broker.transport=rest"])


def test_every_method_that_the_client_uses_has_its_place_in_the_sdk():
    assert set(sdk.CALLS) == set(DEADLINES_S)
    assert all(METHODS[key].kind == "unary" for key in sdk.CALLS)


@dataclass
class Money:
    currency: str
    units: int
    nano: int


@pytest.mark.parametrize(
    ("units", "nano", "exact"),
    [(-1, 750_000_000, -250_000_000), (-3, 500_000_000, -2_500_000_000), (299, 980_000_000, 299_980_000_000)],
)
def test_the_sdks_decimals_become_the_contracts(units, nano, exact):
    """The SDK writes -0.25 as -1 + 0.75, which the contract forbids."""
    quotation = sdk.fill(pb.Quotation(), SimpleNamespace(units=units, nano=nano))
    assert to_nano(quotation) == exact
    money = sdk.fill(pb.MoneyValue(), Money("rub", units, nano))
    assert (to_nano(money), money.currency) == (exact, "rub")


def test_the_sdks_objects_become_the_contracts_messages():
    when = datetime(2026, 1, 15, 7, 0, 0, 123_456, tzinfo=UTC)
    stage = SimpleNamespace(price=Money("rub", 300, 0), quantity=2, trade_id="9", execution_time=when)
    order = SimpleNamespace(
        order_id="5", execution_report_status=1, lots_executed=2, stages=[stage], ticker=None
    )
    message = sdk.fill(pb.OrderState(), order)
    assert (message.order_id, message.execution_report_status, message.lots_executed) == ("5", 1, 2)
    (filled,) = message.stages
    assert (filled.quantity, filled.trade_id, to_nano(filled.price)) == (2, "9", 300_000_000_000)
    assert to_ns(filled.execution_time) == int(when.timestamp()) * 1_000_000_000 + 123_456_000
    item = SimpleNamespace(yield_=Money("rub", -1, 750_000_000), quantity=3)
    assert to_nano(getattr(sdk.fill(pb.OperationItem(), item), "yield")) == -250_000_000
    assert sdk.fill(pb.GetAccountsResponse(), SimpleNamespace(accounts=[])) == pb.GetAccountsResponse()


# ---- tools/sdk_interop.py


def test_the_script_without_the_sdk_says_how_to_get_it(tmp_path):
    endpoint = tmp_path / "endpoint.json"
    endpoint.write_text('{"target": "localhost:1", "token": "t", "account_id": "1", "ca_path": "none.pem"}')
    # -S: without site packages no interpreter has an SDK.
    command = [sys.executable, "-S", "-c", f"import sys; sys.path.insert(0, {str(SCRIPT.parent)!r});"
               f"sys.argv = ['x', '--endpoint', {str(endpoint)!r}]; import sdk_interop;"
               "sys.exit(sdk_interop.main())"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2, done.stderr
    assert "t-tech-investments" in done.stderr
    assert "Never ask PyPI" in done.stderr


@pytest.mark.skipif(PYTHON not in os.environ, reason=f"set {PYTHON} to an interpreter with the official SDK")
def test_the_official_sdk_works_with_this_exchange(tmp_path):
    async def run() -> tuple[int, str]:
        specs = (SimSpec("SIMP", "SMALL"), SimSpec("SIMF", "LARGE", kind="future"))
        recording = simulate_recording(tmp_path / "recording", specs, hours=0.2)[0]
        server = PaperServer(recording, endpoint_path=tmp_path / "endpoint.json", speed=5.0)
        await server.start()
        try:
            process = await asyncio.create_subprocess_exec(
                os.environ[PYTHON], str(SCRIPT), "--endpoint", str(tmp_path / "endpoint.json"),
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )  # fmt: skip
            output, _ = await process.communicate()
        finally:
            await server.stop()
        assert process.returncode is not None
        return process.returncode, output.decode()

    code, table = asyncio.run(run())
    assert code == 0, table
    assert " 0 failed, 0 absent" in table, table


@pytest.mark.skipif(PYTHON not in os.environ, reason=f"set {PYTHON} to an interpreter with the official SDK")
def test_through_the_official_sdk_deals_and_operations_agree_to_the_nano_rouble() -> None:
    """Orders, their states, positions and GetOperationsByCursor, which takes one request object there."""
    where = "import importlib.util as u; s = u.find_spec('t_tech') or u.find_spec('tinkoff'); "
    site = subprocess.run(
        [os.environ[PYTHON], "-c", where + "print(list(s.submodule_search_locations)[0])"],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    # In a process of its own: the SDK's messages stay out of this one.
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist",
         str(Path(__file__).with_name("test_account_money.py"))],
        cwd=ROOT, env={**os.environ, "SCALPER_SDK_SITE": str(Path(site.stdout.strip()).parent)},
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0 and " passed" in done.stdout and "skipped" not in done.stdout, done.stdout
