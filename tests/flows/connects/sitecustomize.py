"""Loaded by every Python process that has this folder on its path: writes down whom it wants to talk to."""

import os
import sys


def _watch(event, args):
    if event == "socket.connect":
        address = args[1]
        host = address[0] if isinstance(address, tuple) else "unix"
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        host = args[0]
    else:
        return
    with open(os.environ["CONNECTS_LOG"], "a") as file:
        file.write(f"{event} {host!s} pid {os.getpid()} {' '.join(sys.argv[:3])}\n")


if os.environ.get("CONNECTS_LOG"):
    sys.addaudithook(_watch)
