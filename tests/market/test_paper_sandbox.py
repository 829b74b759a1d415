"""Several accounts, tokens with fewer rights, and the sandbox's names for the same exchange."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import grpc
from paper_market import INVALID, MISSING, SHARE, T0, Client, refused, run

from market.contract import invest_pb2 as pb
from market.contract.convert import money, to_nano
from market.contract.methods import METHODS, SANDBOX_NAMES
from market.paper import PaperServer
from market.types import NANO

DENIED = grpc.StatusCode.PERMISSION_DENIED


async def open_account(client: Client, roubles: int, name: str = "second") -> str:
    reply = await client.call("SandboxService/OpenSandboxAccount", pb.OpenSandboxAccountRequest(name=name))
    if roubles:
        request = pb.SandboxPayInRequest(account_id=reply.account_id, amount=money(roubles * NANO))
        paid = await client.call("SandboxService/SandboxPayIn", request)
        assert to_nano(paid.balance) == roubles * NANO
    return reply.account_id


def sandbox_order(account_id: str, **fields: Any) -> pb.PostOrderRequest:
    asked = {
        "account_id": account_id, "instrument_id": SHARE.uid, "quantity": 1, "order_id": str(uuid.uuid4()),
        "direction": pb.ORDER_DIRECTION_BUY, "order_type": pb.ORDER_TYPE_MARKET,
    }  # fmt: skip
    return pb.PostOrderRequest(**(asked | fields))


def test_accounts_do_not_know_of_each_other(tmp_path: Path) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        await server.play_until(T0)
        second = await open_account(client, 10_000)
        accounts = (await client.call("UsersService/GetAccounts", pb.GetAccountsRequest())).accounts
        assert [(a.id, a.name) for a in accounts] == [(client.account_id, "paper"), (second, "second")]
        key = str(uuid.uuid4())
        mine = await client.order(order_id=key)
        theirs = await client.order(order_id=key, account_id=second)  # a key is unique within an account
        assert mine.order_id != theirs.order_id
        request = pb.GetOrderStateRequest(account_id=second, order_id=mine.order_id)
        await refused("50005", MISSING, client.call("OrdersService/GetOrderState", request))
        positions = await client.call(
            "OperationsService/GetPositions", pb.PositionsRequest(account_id=second)
        )
        assert [p.balance for p in positions.securities] == [10]
        assert to_nano(positions.money[0]) == 10_000 * NANO - 30_002 * SHARE.tick_value_nano - 150_010_000
        await refused("30042", INVALID, client.order(account_id=second, quantity=7))

    run(tmp_path, scenario)


def test_the_sandbox_is_the_same_exchange(tmp_path: Path) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        await server.play_until(T0)
        account_id = await open_account(client, 10_000)
        posted = await client.call("SandboxService/PostSandboxOrder", sandbox_order(account_id, quantity=2))
        request = pb.GetOrderStateRequest(account_id=account_id, order_id=posted.order_id)
        state = await client.call("OrdersService/GetOrderState", request)
        assert state == await client.call("SandboxService/GetSandboxOrderState", request)
        portfolio = pb.PortfolioRequest(account_id=account_id)
        assert await client.call("SandboxService/GetSandboxPortfolio", portfolio) == await client.call(
            "OperationsService/GetPortfolio", portfolio
        )
        broke = sandbox_order(account_id, quantity=7)
        await refused("30034", INVALID, client.call("SandboxService/PostSandboxOrder", broke))
        await refused("30042", INVALID, client.call("OrdersService/PostOrder", broke))

        async def pay(**amount: Any) -> Any:
            request = pb.SandboxPayInRequest(account_id=account_id, amount=pb.MoneyValue(**amount))
            return await client.call("SandboxService/SandboxPayIn", request)

        await refused("30047", INVALID, pay(currency="usd", units=1))
        await refused("30102", INVALID, pay(currency="rub"))
        await refused("30102", INVALID, pay(currency="rub", units=1, nano=-1))

    run(tmp_path, scenario)


def test_every_sandbox_name_is_served(tmp_path: Path) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        for key in SANDBOX_NAMES:
            try:
                await client.call(key, METHODS[key].request())
            except grpc.aio.AioRpcError as error:
                assert error.details() in ("30021", "30027"), key  # it looked for the account: it is served

    run(tmp_path, scenario)


def test_a_closed_account_can_be_read_and_not_traded(tmp_path: Path) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        await server.play_until(T0)
        account_id = await open_account(client, 10_000)
        resting = sandbox_order(account_id, order_type=pb.ORDER_TYPE_LIMIT, price=pb.Quotation(units=299))
        posted = await client.call("SandboxService/PostSandboxOrder", resting)
        states = client.stream(
            "OrdersStreamService/OrderStateStream", pb.OrderStateStreamRequest(accounts=[account_id])
        )
        await states.read()
        close = pb.CloseSandboxAccountRequest(account_id=account_id)
        await client.call("SandboxService/CloseSandboxAccount", close)
        event = (await states.read()).order_state
        assert event.order_id == posted.order_id
        assert event.status_info == pb.OrderStateStreamResponse.CAUSE_CANCELLED_BY_BROKER
        await refused(
            "30081", INVALID, client.call("SandboxService/PostSandboxOrder", sandbox_order(account_id))
        )
        for status, expected in (
            (pb.ACCOUNT_STATUS_UNSPECIFIED, 1),
            (pb.ACCOUNT_STATUS_CLOSED, 1),
            (pb.ACCOUNT_STATUS_ALL, 2),
        ):
            request = pb.GetAccountsRequest(status=status)
            found = (await client.call("SandboxService/GetSandboxAccounts", request)).accounts
            assert len(found) == expected
        assert found[1].closed_date.seconds == T0 // NANO

    run(tmp_path, scenario)


def test_a_read_only_token_reads(tmp_path: Path) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        await server.play_until(T0)
        order = await client.order(order_type=pb.ORDER_TYPE_LIMIT, price=pb.Quotation(units=299))
        reader = Client(server.endpoint, server.endpoint.read_only_token)
        try:
            accounts = (await reader.call("UsersService/GetAccounts", pb.GetAccountsRequest())).accounts
            assert accounts[0].access_level == pb.ACCOUNT_ACCESS_LEVEL_READ_ONLY
            assert (await reader.state(order.order_id)).lots_requested == 1
            account_id = client.account_id
            for key, request in (
                ("OrdersService/PostOrder", sandbox_order(account_id)),
                ("OrdersService/PostOrderAsync", pb.PostOrderAsyncRequest(account_id=account_id)),
                ("OrdersService/ReplaceOrder", pb.ReplaceOrderRequest(account_id=account_id)),
                (
                    "OrdersService/CancelOrder",
                    pb.CancelOrderRequest(account_id=account_id, order_id=order.order_id),
                ),
                ("StopOrdersService/PostStopOrder", pb.PostStopOrderRequest(account_id=account_id)),
                ("StopOrdersService/CancelStopOrder", pb.CancelStopOrderRequest(account_id=account_id)),
                ("SandboxService/OpenSandboxAccount", pb.OpenSandboxAccountRequest()),
                ("SandboxService/SandboxPayIn", pb.SandboxPayInRequest(account_id=account_id)),
                ("SandboxService/CloseSandboxAccount", pb.CloseSandboxAccountRequest(account_id=account_id)),
            ):
                await refused("40002", DENIED, reader.call(key, request))
        finally:
            await reader.channel.close()
        assert len(server.exchange.account.operations) == 1  # nothing but the money paid in

    run(tmp_path, scenario)


def test_a_token_for_one_account_sees_no_other(tmp_path: Path) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        await server.play_until(T0)
        second = await open_account(client, 1_000)
        token = server.tokens.issue(accounts=frozenset([second]))
        bound = Client(server.endpoint, token.value)
        try:
            accounts = (await bound.call("UsersService/GetAccounts", pb.GetAccountsRequest())).accounts
            assert [a.id for a in accounts] == [second]
            await refused("40002", DENIED, bound.positions())
            await refused("50004", MISSING, bound.order(account_id="1"))
            for accounts_asked, code in (([client.account_id], "40002"), (["1"], "50004")):
                request = pb.OrderStateStreamRequest(accounts=accounts_asked)
                answer = (
                    await bound.stream("OrdersStreamService/OrderStateStream", request).read()
                ).subscription
                assert (answer.status, answer.error.code) == (pb.RESULT_SUBSCRIPTION_STATUS_ERROR, code)
            request = pb.PositionsStreamRequest(accounts=[second, client.account_id])
            stream = bound.stream("OperationsStreamService/PositionsStream", request)
            answers = (await stream.read()).subscriptions.accounts
            assert {a.account_id: a.subscription_status for a in answers} == {
                second: pb.POSITIONS_SUBSCRIPTION_STATUS_SUCCESS,
                client.account_id: pb.POSITIONS_SUBSCRIPTION_STATUS_ACCOUNT_NOT_FOUND,
            }
        finally:
            await bound.channel.close()

    run(tmp_path, scenario)


def test_there_is_an_end_to_accounts(tmp_path: Path) -> None:
    async def scenario(server: PaperServer, client: Client) -> None:
        for _ in range(99):
            await open_account(client, 0)
        await refused("35001", INVALID, open_account(client, 0))

    run(tmp_path, scenario)
