"""UsersService: accounts, margin, tariff."""

from __future__ import annotations

from collections.abc import Callable

from market.contract import invest_pb2 as pb
from market.contract.convert import timestamp
from market.paper import messages_account
from market.paper.access import CALLER
from market.paper.account import Account
from market.paper.behaviours import Behaviours
from market.paper.exchange import Exchange
from market.paper.requests import desk_of

_ACCESS = {
    "full": pb.ACCOUNT_ACCESS_LEVEL_FULL_ACCESS,
    "read_only": pb.ACCOUNT_ACCESS_LEVEL_READ_ONLY,
}


class UserCalls:
    def __init__(self, exchange: Exchange, tariff: Callable[[], pb.GetUserTariffResponse]) -> None:
        self._exchange = exchange
        self._tariff = tariff

    def behaviours(self) -> Behaviours:
        return {
            "UsersService/GetAccounts": self.get_accounts,
            "UsersService/GetInfo": self.get_info,
            "UsersService/GetUserTariff": self.get_user_tariff,
            "UsersService/GetMarginAttributes": self.get_margin_attributes,
        }

    async def get_accounts(self, request: pb.GetAccountsRequest) -> pb.GetAccountsResponse:
        """The accounts that the token sees; closed ones only when they are asked for."""
        token = CALLER.get()
        accounts = []
        for desk in self._exchange.desks.values():
            account = desk.account
            status = pb.ACCOUNT_STATUS_OPEN if account.closed_ns is None else pb.ACCOUNT_STATUS_CLOSED
            wanted = request.status or pb.ACCOUNT_STATUS_OPEN
            if token.sees(account.account_id) and wanted in (status, pb.ACCOUNT_STATUS_ALL):
                accounts.append(_account(account, status, _ACCESS[token.access]))
        return pb.GetAccountsResponse(accounts=accounts)

    async def get_info(self, request: pb.GetInfoRequest) -> pb.GetInfoResponse:
        return pb.GetInfoResponse(
            tariff=self._exchange.tariff.name,
            user_id="paper",
            qualified_for_work_with=["derivative", "leverage"],
        )

    async def get_user_tariff(self, request: pb.GetUserTariffRequest) -> pb.GetUserTariffResponse:
        return self._tariff()

    async def get_margin_attributes(
        self, request: pb.GetMarginAttributesRequest
    ) -> pb.GetMarginAttributesResponse:
        return messages_account.margin_attributes(desk_of(self._exchange, request.account_id))


def _account(account: Account, status: pb.AccountStatus, access: pb.AccessLevel) -> pb.Account:
    message = pb.Account(
        id=account.account_id, type=pb.ACCOUNT_TYPE_TINKOFF, name=account.name, status=status,
        opened_date=timestamp(account.opened_ns), access_level=access,
    )  # fmt: skip
    if account.closed_ns is not None:
        message.closed_date.CopyFrom(timestamp(account.closed_ns))
    return message
