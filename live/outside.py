"""What looks in from outside while the runner trades: the dashboard, the metrics, commands from a chat.

Each lives in threads of its own and reads what is published once a second; none can hold up trading, and one
that cannot start stops the start, because an operator relies on it.
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from live.control import Control
from live.session import Session


def open_to(session: Session, stack: ExitStack) -> None:
    """Starts what the configuration asks for; ``stack`` ends it. Raises ConfigError."""
    config = session.config
    if config.dashboard.enabled:
        from live.dashboard import make_server

        server = make_server(config)
        threading.Thread(target=server.serve_forever, name="dashboard", daemon=True).start()
        stack.callback(server.close)
        session.say(f"dashboard on {server.url}")
    if config.monitoring.metrics_port:
        from live.metrics import serve

        metrics = serve(config.monitoring.metrics_port, session.reporter.last, session.loop.latencies)
        stack.callback(metrics.close)
        session.say(f"metrics on {metrics.url}")
    if config.notifications.commands and session.notifier.api is not None:
        from live.notify.commands import CommandListener

        loop = asyncio.get_running_loop()

        def audit(tag: str, event: str, fields: dict[str, Any]) -> None:
            """From the listener's thread; the audit belongs to the loop's."""
            loop.call_soon_threadsafe(lambda: session.audit_line(tag, event, **fields))

        settings = config.notifications
        control = Control(Path(config.manual_override.flag_path), session.runtime)
        chats = settings.allowed_chats or (settings.chat_id,)
        listener = CommandListener(session.notifier.api, session.notifier, control, chats, audit)
        listener.start()
        stack.callback(listener.close)
