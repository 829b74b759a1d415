"""Who may talk to the paper exchange, and how it refuses."""

from __future__ import annotations

import re
import stat
from pathlib import Path

import grpc
import pytest
from paper_market import (
    ROOT,
    Client,
    refused,
    run,
)

from market.contract import invest_pb2 as pb
from market.contract.methods import METHODS, PACKAGE, stub
from market.errors import BrokerError
from market.paper import Endpoint, PaperServer


def test_accounts_and_the_metadata_of_success(tmp_path: Path) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        call = stub(client.channel, "UsersService/GetAccounts")(
            pb.GetAccountsRequest(), metadata=client.metadata
        )
        accounts = (await call).accounts
        assert [(a.id, a.access_level) for a in accounts] == [
            (client.account_id, pb.ACCOUNT_ACCESS_LEVEL_FULL_ACCESS)
        ]
        initial = dict(await call.initial_metadata())
        assert len(initial["x-tracking-id"]) == 32
        assert initial["x-ratelimit-limit"] == "100, 100;w=60"
        assert int(initial["x-ratelimit-remaining"]) == 99

    run(tmp_path, scenario)


@pytest.mark.parametrize("token", ["", "wrong"])
def test_a_wrong_token_opens_nothing(tmp_path: Path, token: str) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        stranger = Client(server.endpoint, token)
        try:
            denied = grpc.StatusCode.UNAUTHENTICATED
            error = await refused(
                "40003", denied, stranger.call("UsersService/GetAccounts", pb.GetAccountsRequest())
            )
            assert dict(error.initial_metadata()) == {}
            assert dict(error.trailing_metadata())["message"] == "authentication token is missing or invalid"
            assert len(dict(error.trailing_metadata())["x-tracking-id"]) == 32
            await refused("40003", denied, stranger.stream("MarketDataStreamService/MarketDataStream").read())
            request = pb.OrderStateStreamRequest()
            await refused(
                "40003", denied, stranger.stream("OrdersStreamService/OrderStateStream", request).read()
            )
        finally:
            await stranger.channel.close()

    run(tmp_path, scenario)


def test_a_client_that_does_not_trust_the_certificate_gets_nowhere(tmp_path: Path) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        async with grpc.aio.secure_channel(server.endpoint.target, grpc.ssl_channel_credentials()) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub(channel, "UsersService/GetAccounts")(
                    pb.GetAccountsRequest(), metadata=client.metadata
                )
            assert caught.value.code() == grpc.StatusCode.UNAVAILABLE

    run(tmp_path, scenario)


def test_secrets_are_for_the_owner_and_the_certificate_outlives_a_restart(tmp_path: Path) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        for name in ("paper-key.pem", "endpoint.json"):
            assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
        assert Endpoint.read(tmp_path / "endpoint.json") == server.endpoint

    run(tmp_path, scenario)
    before = (tmp_path / "paper-cert.pem").read_bytes()
    run(tmp_path, scenario)
    assert (tmp_path / "paper-cert.pem").read_bytes() == before
    with pytest.raises(BrokerError, match="no paper exchange is running here"):
        Endpoint.read(tmp_path / "endpoint.json")


def test_methods_that_are_not_served(tmp_path: Path) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        not_served = grpc.StatusCode.UNIMPLEMENTED
        unheard_of = client.channel.unary_unary(f"/{PACKAGE}.SignalService/GetSignals")
        await refused("12001", not_served, unheard_of(b"", metadata=client.metadata))

    run(tmp_path, scenario)


def test_limits_are_enforced_only_when_asked(tmp_path: Path) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        for _ in range(100):
            await client.call("UsersService/GetInfo", pb.GetInfoRequest())
        exhausted = grpc.StatusCode.RESOURCE_EXHAUSTED
        error = await refused("80002", exhausted, client.call("UsersService/GetInfo", pb.GetInfoRequest()))
        assert int(dict(error.trailing_metadata())["x-ratelimit-reset"]) >= 1

    async def without(server: PaperServer, client: Client) -> None:
        for _ in range(110):
            await client.call("UsersService/GetInfo", pb.GetInfoRequest())

    run(tmp_path, without)
    # Two windows of a minute may meet inside the scenario; then the count starts again and it is repeated.
    try:
        run(tmp_path, scenario, enforce_limits=True)
    except pytest.fail.Exception:
        run(tmp_path, scenario, enforce_limits=True)


def test_the_page_names_exactly_the_methods_that_are_served() -> None:
    page = (ROOT / "docs/paper-exchange.md").read_text("utf-8")
    table = page[page.index("## What is served") : page.index("Not served")]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| ")]
    named, service = set(), ""
    for row in rows:
        if found := re.search(r"\*\*(\w+)\*\*", row):
            service = found[1]
        named |= {f"{service}/{name}" for name in re.findall(r"`(\w+)`", row)}
    assert named == set(METHODS)


def test_every_known_method_is_served(tmp_path: Path) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        for key, method in METHODS.items():
            if method.kind == "unary":
                try:
                    await client.call(key, method.request())
                except grpc.aio.AioRpcError as error:
                    assert error.code() != grpc.StatusCode.UNIMPLEMENTED, key
            else:
                stream = client.stream(key, *([] if method.kind == "bidi" else [method.request()]))
                if method.kind == "bidi":
                    await stream.done_writing()
                    assert await stream.read() is grpc.aio.EOF
                elif "MarketData" not in key:
                    assert (await stream.read()).WhichOneof("payload") in ("subscription", "subscriptions"), (
                        key
                    )
                stream.cancel()

    run(tmp_path, scenario)
