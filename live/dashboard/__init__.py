"""The dashboard: SQLite (read-only) and the status file, shown live on one page that needs nothing from
outside.

Loopback by default; any other host needs ``dashboard.token``. With a token everybody signs in, and may halt
and resume; without one the page only shows.
"""

from live.dashboard.server import DashboardServer, make_server, serve

__all__ = ["DashboardServer", "make_server", "serve"]
