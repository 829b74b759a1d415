"""The API's own error codes: what the paper exchange says no with."""

from __future__ import annotations

import grpc

from market.errors import BrokerError

_STATUS_BY_CLASS = {
    "1": grpc.StatusCode.UNIMPLEMENTED,
    "3": grpc.StatusCode.INVALID_ARGUMENT,
    "4": grpc.StatusCode.PERMISSION_DENIED,
    "5": grpc.StatusCode.NOT_FOUND,
    "7": grpc.StatusCode.INTERNAL,
    "8": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "9": grpc.StatusCode.FAILED_PRECONDITION,
}

_TEXTS = {
    "12001": "method is not implemented by the paper exchange",
    "30013": "class_code is required when id_type is ticker",
    "30015": "quantity is missing",
    "30017": "price is missing or its units and nano have different signs",
    "30019": "direction is missing",
    "30020": "direction is invalid",
    "30021": "account_id is missing",
    "30025": "order_type is missing",
    "30026": "order_type is invalid: the paper exchange takes limit and market orders",
    "30027": "order_id is missing",
    "30028": "order_id is not a UUID",
    "30031": "depth is missing",
    "30032": "depth is invalid: 1, 10, 20, 30, 40 or 50",
    "30042": "not enough assets for a margin trade",
    "30055": "order_id is longer than 36 characters",
    "30059": "the order cannot be cancelled",
    "30078": "price is not a multiple of min_price_increment",
    "30079": "instrument is not available for trading",
    "30080": "quantity must be positive",
    "30085": "price_type POINT is for futures and bonds only",
    "30093": "instrument id is missing",
    "30100": "price must be positive",
    "30254": "time_in_force is invalid here",
    "40003": "authentication token is missing or invalid",
    "50002": "instrument not found",
    "50004": "account not found",
    "50005": "order not found",
    "70002": "internal network error",
    "80002": "request limit exceeded",
    "90003": "order amount exceeds the limit of one order",
}


class Refusal(BrokerError):
    """A request that the exchange refuses. ``code`` is the 5-digit code that travels as the error's
    details.
    """

    def __init__(self, code: str, more: str = "") -> None:
        self.code = code
        self.text = f"{_TEXTS[code]}: {more}" if more else _TEXTS[code]
        super().__init__(f"{code} {self.text}")

    @property
    def status(self) -> grpc.StatusCode:
        return grpc.StatusCode.UNAUTHENTICATED if self.code == "40003" else _STATUS_BY_CLASS[self.code[0]]
