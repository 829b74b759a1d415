"""The paper exchange: the Invest API on loopback, played from a recording."""

from market.paper.endpoint import Endpoint
from market.paper.server import PaperServer
from market.paper.tape import PaperMarket

__all__ = ["Endpoint", "PaperMarket", "PaperServer"]
