"""The checks of `live-runner health-check` that need the broker, and the clock of this machine.

Each answers (ok, what was found and, where it failed, the way out); None as ok means that it could not be
told, which is no failure.
"""

from __future__ import annotations

import asyncio
import ctypes
import socket
import ssl
import struct
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import grpc.aio

from live.broker.api import TinkoffAPI
from live.broker.channel import Access
from live.broker.client import BrokerClient
from live.config_schema import RunnerConfig
from market.contract import convert
from market.contract import invest_pb2 as pb
from market.contract.methods import stub
from market.errors import ScalperError
from market.types import NANO

Answer = tuple[str, bool | None, str]
TIMEOUT_S = 10.0
SOON_DAYS = 14
PINGS = 5
MAX_CLOCK_ERROR_S = 0.5
_STA_UNSYNC = 0x0040
_TIMEX_BYTES = 256


async def ask(access: Access, config: RunnerConfig) -> AsyncIterator[Answer]:
    """Token and account, limits, instruments, clock, schedule; the first that fails ends it."""
    api = TinkoffAPI(access, transport=config.broker.transport)
    client = api.client
    try:
        started = time.monotonic()
        account = await client.choose_account()
        took_ms = (time.monotonic() - started) * 1000
        yield (
            "token", True,
            f"{access.target} answers in {took_ms:.0f} ms ({config.broker.transport}); the token may trade "
            f"on account {account}",
        )  # fmt: skip
        refused = await client.learn_limits()
        wanted = config.risk.max_orders_per_minute
        yield (
            "limits", None if refused else True,
            f"the account's own are not known ({refused}); the documented ones stay in force" if refused
            else f"of the account's tariff are learnt; risk.max_orders_per_minute is {wanted}",
        )  # fmt: skip
        found = [await client.instrument(name) for name in config.data.instruments]
        yield "instruments", True, f"{len(found)} configured ones found"
        yield "broker's clock", *await _broker_clock(client, config)
        if config.broker.transport == "sdk":
            yield "schedule", None, "asked over broker.transport: native only"
        else:
            yield "schedule", *await _schedule(api)
    finally:
        await api.close()


async def _broker_clock(client: BrokerClient, config: RunnerConfig) -> tuple[bool | None, str]:
    if config.system.mode == "paper":
        return None, "the paper market plays a time of its own"
    try:
        offset_s, round_trip_s = await clock_offset(client)
    except (grpc.aio.AioRpcError, TimeoutError) as error:
        return None, f"no ping came back: {type(error).__name__}; the market data stream tells it later"
    return judge_offset(offset_s, round_trip_s)


async def clock_offset(client: BrokerClient) -> tuple[float, float]:
    """(the broker's clock minus ours, the round trip it was measured by), seconds: of several pings over a
    stream of its own the one that came back first of all, as NTP does. Raises AioRpcError, TimeoutError.
    """
    call = stub(client.channel, "MarketDataStreamService/MarketDataStream")(metadata=client.access.metadata)
    found: list[tuple[float, float]] = []
    try:
        async with asyncio.timeout(TIMEOUT_S):
            while len(found) < PINGS:
                sent_ns, began = time.time_ns(), time.monotonic_ns()
                ping = pb.PingRequest(time=convert.timestamp(sent_ns))
                await call.write(pb.MarketDataRequest(ping=ping))
                while (message := await call.read()) is not grpc.aio.EOF:
                    if message.WhichOneof("payload") == "ping" and message.ping.HasField("ping_request_time"):
                        break
                else:
                    raise TimeoutError
                took_ns = time.monotonic_ns() - began
                server_ns = convert.to_ns(message.ping.time)
                found.append((took_ns / NANO, (server_ns - sent_ns - took_ns // 2) / NANO))
    finally:
        call.cancel()
    round_trip_s, offset_s = min(found)
    return offset_s, round_trip_s


def judge_offset(offset_s: float, round_trip_s: float) -> tuple[bool, str]:
    """A measured offset in words; half the round trip is what it may be wrong by."""
    error_s = round_trip_s / 2
    which = "behind" if offset_s > 0 else "ahead of"
    text = f"this machine is {abs(offset_s):.3f} s {which} the broker (± {error_s:.3f} s)"
    if abs(offset_s) - error_s <= MAX_CLOCK_ERROR_S:
        return True, text
    return False, f"{text}: books would look stale or from the future; `chronyc makestep`"


async def _schedule(api: TinkoffAPI) -> tuple[bool | None, str]:
    """What the exchange does today, by its own word."""
    request = pb.TradingSchedulesRequest()
    now = int(time.time())
    getattr(request, "from").seconds = now
    request.to.seconds = now + 86_400
    try:
        reply = await api.client.call("InstrumentsService/TradingSchedules", request, wait_s=TIMEOUT_S)
    except ScalperError as error:
        return None, f"not told: {error}"
    ours = [s for s in reply.exchanges if s.exchange.upper().startswith("MOEX")] or list(reply.exchanges)
    days = [day for schedule in ours[:1] for day in schedule.days]
    if not days:
        return None, "the exchange names no day"
    first = days[0]
    date = f"{datetime.fromtimestamp(first.date.seconds, UTC):%Y-%m-%d}"
    if not first.is_trading_day:
        return None, f"no trading on {date}; the runner waits with SESSION_SUSPENDED"
    hours = [datetime.fromtimestamp(t.seconds, UTC) for t in (first.start_time, first.end_time)]
    return True, f"{date} trades from {hours[0]:%H:%M} to {hours[1]:%H:%M} UTC"


def certificate(access: Access) -> tuple[bool | None, str]:
    """The broker's certificate is trusted and stays valid for a while."""
    host, _, port = access.target.rpartition(":")
    trusted = ssl.create_default_context(cafile=access.ca_path if access.private_ca else None)
    if access.ca_path and not access.private_ca:
        trusted.load_verify_locations(access.ca_path)
    try:
        with (
            socket.create_connection((host.strip("[]"), int(port)), TIMEOUT_S) as plain,
            trusted.wrap_socket(plain, server_hostname=access.server_name or host.strip("[]")) as secure,
        ):
            until = ssl.cert_time_to_seconds(str((secure.getpeercert() or {})["notAfter"]))
    except ssl.SSLCertVerificationError as error:
        return False, (
            f"{access.target} shows a certificate that is not trusted ({error.verify_message}); set "
            "broker.ca_path to a PEM with the Russian Trusted CA, or look at who answers there"
        )
    except (OSError, KeyError, ValueError) as error:
        return (
            False,
            f"{access.target} cannot be reached over TLS: {error}; look at the network and the proxy",
        )
    days = (until - time.time()) / 86_400
    text = f"{access.target}: trusted, valid for {days:.0f} days"
    return (True, text) if days > SOON_DAYS or access.private_ca else (None, text + "; it ends soon")


def clock() -> tuple[bool | None, str]:
    """Whether the kernel's clock is kept by NTP, and how far it may be off (adjtimex, read only)."""
    try:
        buffer = ctypes.create_string_buffer(_TIMEX_BYTES)
        state = ctypes.CDLL(None, use_errno=True).adjtimex(buffer)
    except (OSError, AttributeError):
        return None, "this system does not tell"
    if state < 0:
        return None, "the kernel does not tell"
    maximum_us, _, status = struct.unpack_from("=qqi", buffer.raw, 24)
    if status & _STA_UNSYNC:
        return None, "the kernel says that nobody keeps the clock: switch on chrony or systemd-timesyncd"
    seconds = maximum_us / 1e6
    if seconds > MAX_CLOCK_ERROR_S:
        return False, f"kept, but up to {seconds:.1f} s off; `chronyc makestep`"
    return True, f"kept by NTP, off by {seconds * 1000:.0f} ms at most"


def signature(config: RunnerConfig) -> tuple[bool | None, str]:
    """The key that bundles must be signed with."""
    path = Path(config.model.verification_key)
    if not config.model.verification_key:
        return None, "model.verification_key is empty: unsigned bundles run (paper only)"
    if not path.is_file():
        return False, f"{path} is missing: copy keys/signing.pub of the platform here"
    return True, f"bundles must be signed with {path}"
