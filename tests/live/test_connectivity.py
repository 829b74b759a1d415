"""Fail-over to the backup channel and back, told; channels bound to an address or a network interface."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from core_bench import SECOND_NS, Bench

from live.broker.channel import Access, read_paper_endpoint
from live.broker.client import BrokerClient
from live.broker.link import Link, Policy
from live.broker.route import Route, Ways
from live.clock import MarketClock
from live.config_schema import Channel, Connectivity, Notifications
from live.connectivity import FailoverWatch
from live.core import events as ev
from live.core.events import Book, Connection
from live.notify import Notifier
from market.errors import BrokerError
from market.paper.server import PaperServer
from market.recording import Recording
from market.simulator import SimSpec, simulate_recording
from market.types import MILLISECOND_NS

WAIT_S = 30.0


class Said(Notifier):
    """A notifier that goes nowhere and remembers."""

    def __init__(self) -> None:
        super().__init__(Notifications())
        self.texts: list[str] = []

    def send(self, text: str, tone_hz: int | None = None, **more: Any) -> None:
        self.texts.append(text)


class Watched:
    """A ``FailoverWatch`` on a clock of the test's."""

    def __init__(self, limit_ms: int = 150) -> None:
        self.audit: list[tuple[str, dict[str, Any]]] = []
        self.cleared = 0
        self.switched_ns = self.now_ns = 0
        self.said = Said()
        self.watch = FailoverWatch(
            limit_ms, lambda: self.switched_ns, self._clear,
            lambda tag, event, **fields: self.audit.append((event, fields)), self.said,
            mono_ns=lambda: self.now_ns,
        )  # fmt: skip

    def _clear(self) -> None:
        self.cleared += 1

    def switch(self, channel: str, took_ms: float) -> None:
        self.watch.on_connection(Connection(0, False, channel, "market stream: UNAVAILABLE"))
        self.switched_ns = self.now_ns
        self.now_ns += int(took_ms * MILLISECOND_NS)
        self.watch.on_connection(Connection(0, True, channel, ""))


def test_connectivity_failover_is_audited_notified_and_clears_the_book_caches() -> None:
    one = Watched()
    one.switch("backup", 90)
    ((event, fields),) = one.audit
    assert (event, fields["channel"], fields["took_ms"]) == ("CONNECTIVITY_FAILOVER", "backup", 90.0)
    assert "UNAVAILABLE" in fields["reason"]
    assert one.cleared == 1
    assert one.said.texts[0].startswith("CONNECTIVITY_FAILOVER")


def test_connectivity_recovered_is_audited_and_notified() -> None:
    one = Watched()
    one.switch("backup", 90)
    one.switch("primary", 40)
    assert [event for event, _ in one.audit] == ["CONNECTIVITY_FAILOVER", "CONNECTIVITY_RECOVERED"]
    assert one.said.texts[-1].startswith("CONNECTIVITY_RECOVERED")
    assert one.cleared == 2


def test_a_switch_that_takes_longer_than_failover_latency_ms_is_told() -> None:
    one = Watched(limit_ms=150)
    one.switch("backup", 151)
    assert one.audit[-1] == ("FAILOVER_SLOW", {"took_ms": 151.0, "limit_ms": 150})


def test_a_reconnect_on_the_same_channel_is_no_failover() -> None:
    one = Watched()
    one.switch("primary", 500)
    assert one.audit == [] and one.watch.failovers == 0


def test_a_failover_quarantines_every_instrument_until_a_book_passes_and_asks_to_reconcile() -> None:
    bench = Bench.ready()
    bench.tell(ev.Connection, True, "backup")
    names = {(h.name, h.scope) for h in bench.engine.holds}
    assert {("BOOK_QUARANTINE", "AAA"), ("BOOK_QUARANTINE", "BBB"), ("NOT_RECONCILED", "*")} <= names


# ---- with real exchanges


@pytest.fixture(scope="module")
def recording(tmp_path_factory) -> Recording:
    specs = (SimSpec("SIMP", "SMALL"),)
    return simulate_recording(tmp_path_factory.mktemp("route") / "recording", specs, hours=0.1)[0]


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():
            await asyncio.sleep(0.01)


def test_failure_threshold_errors_switch_to_the_backup_subscription_and_recovery_message_count_brings_it_back(
    recording, tmp_path
):
    async def run() -> None:
        paths = [tmp_path / name / "endpoint.json" for name in "ab"]
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]  # the primary comes back where it was
        primary = PaperServer(recording, endpoint_path=paths[0], speed=5.0, port=port)
        backup = PaperServer(recording, endpoint_path=paths[1], speed=5.0)
        await primary.start()
        await backup.start()
        client = BrokerClient(read_paper_endpoint(paths[0]).access, {"SIMP": 50})
        await client.choose_account()
        await client.instrument("SIMP")
        clock = MarketClock(primary.endpoint.market_start_ns, 5.0)
        watched, events = Watched(limit_ms=60_000), []
        link = Link(
            client, client.instruments, clock, events.append, lambda report: None, depth=20,
            backup=read_paper_endpoint(paths[1]).access, policy=Policy(2, 2),
        )  # fmt: skip
        watch = FailoverWatch(
            60_000, lambda: link.switched_mono_ns, lambda: None,
            lambda tag, event, **fields: watched.audit.append((event, fields)), watched.said,
        )  # fmt: skip
        task = asyncio.create_task(link.run())

        def seen() -> list[str]:
            while events:
                event = events.pop(0)
                if isinstance(event, Connection):
                    watch.on_connection(event)
            return [name for name, _ in watched.audit]

        await until(lambda: any(isinstance(e, Book) for e in events))
        await primary.stop()
        await until(lambda: "CONNECTIVITY_FAILOVER" in seen())
        await until(lambda: any(isinstance(e, Book) for e in events))  # the backup subscription
        await primary.start()
        await until(lambda: "CONNECTIVITY_RECOVERED" in seen())
        assert watch.last_ms is not None and watch.last_ms >= 0
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await link.close()
        await client.close()
        await primary.stop()
        await backup.stop()

    asyncio.run(run())


@pytest.mark.parametrize("channel", [Channel(bind="127.0.0.1"), Channel(interface="lo")])
def test_a_channel_may_leave_by_a_bind_address_or_a_network_interface_with_tls_untouched(
    recording, tmp_path, channel
):
    async def run() -> None:
        path = tmp_path / "endpoint.json"
        server = PaperServer(recording, endpoint_path=path, speed=5.0)
        await server.start()
        access = read_paper_endpoint(path).access
        ways = Ways(Connectivity(primary=channel, backup=channel))
        way = await ways.open(access)
        assert way.target != access.target and way.server_name == "localhost"
        assert ways.backup is not None and ways.backup.target != way.target
        client = BrokerClient(way, {"SIMP": 50})
        try:
            assert await client.choose_account()
        except BrokerError:
            pytest.skip("this system forbids binding a socket to an interface")
        finally:
            await client.close()
            await ways.close()
            await server.stop()

    asyncio.run(run())


def test_an_interface_that_is_not_there_is_one_clear_error() -> None:
    access = Access("localhost:1", "t", "a")

    async def run() -> None:
        with pytest.raises(BrokerError, match="no network interface 'wwan9'"):
            await Ways(Connectivity(backup=Channel(interface="wwan9"))).open(access)

    asyncio.run(run())


def test_a_dead_line_behind_a_route_is_a_closed_connection_not_a_silence() -> None:
    async def run() -> None:
        route = await Route("127.0.0.1:9", bind="127.0.0.1").open()
        host, _, port = route.target.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        assert await asyncio.wait_for(reader.read(), 10) == b""
        writer.close()
        assert route.last_error and route.connected == 0
        await route.close()

    asyncio.run(run())


def test_the_last_connection_error_is_in_the_audit_of_a_missed_heartbeat() -> None:
    from live.core.config import MonitoringConfig

    watched = MonitoringConfig(heartbeat_interval_ns=SECOND_NS, heartbeat_miss_threshold=3)
    from core_bench import config

    bench = Bench.ready(config(monitoring=replace(watched, heartbeat_enabled=True)))
    bench.tell(ev.Connection, False, "primary", "market stream: mute for 12 s")
    bench.tell(ev.Connection, True)
    bench.tell(ev.Timer, after_ns=4 * SECOND_NS)
    hold = bench.engine.holds.get("HEARTBEAT")
    assert hold is not None and "mute for 12 s" in hold.reason
