"""A network with nothing in it but its own loopback, and a way for a test to reach servers in there.

This file is also the program that runs inside (Linux lets any user make a network namespace where it has not
been forbidden). What is started there, and all that it starts, can talk to no other machine: not because
something watches, but because there is no way out. A socket in the file system crosses the border, so a port
in there is reached under the same number out here.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

LOOPBACK = "127.0.0.1"
CHUNK = 1 << 16
NEW = ("unshare", "--map-root-user", "--net", "--")
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1


def refusal() -> str:
    """Why no network of its own can be made here; empty where it can."""
    if shutil.which(NEW[0]) is None:
        return f"there is no program {NEW[0]}"
    tried = subprocess.run([*NEW, "true"], capture_output=True, text=True, check=False)
    return "" if tried.returncode == 0 else f"{' '.join(NEW)}: {tried.stderr.strip()}"


@contextlib.contextmanager
def own_network(
    ports: int, command: Callable[[list[int]], Sequence[str]], *, cwd: Path, env: Mapping[str, str]
) -> Iterator[tuple[int, str]]:
    """Run ``command`` (given so many ports) to its end in a network of its own, and tell its exit status and
    output. What it leaves running there is reached by these ports inside the block, and has to be stopped by
    who asked for it.
    """
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="own-network-"))
        listeners = [stack.enter_context(_listener()) for _ in range(ports)]
        inside = {f"{folder}/{one.getsockname()[1]}": int(one.getsockname()[1]) for one in listeners}
        argv = [*NEW, sys.executable, str(Path(__file__).resolve()), json.dumps(inside)]
        process = subprocess.Popen(
            [*argv, *command(list(inside.values()))], cwd=cwd, env=dict(env), stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stdin is not None and process.stdout is not None
        try:
            for listener, path in zip(listeners, inside, strict=True):
                threading.Thread(target=_serve, args=(listener, socket.AF_UNIX, path), daemon=True).start()
            told = process.stdout.readline()
            assert told, "the program in the network of its own ended at once: its error is above"
            said = json.loads(told)
            yield said["status"], said["output"]
        finally:
            for listener in listeners:
                listener.shutdown(socket.SHUT_RDWR)  # wakes who waits for a caller
            process.stdin.close()  # what the program in there waits for
            process.stdout.close()
            process.wait(timeout=60)


# ---- both sides


def _listener() -> socket.socket:
    made = socket.socket()
    made.bind((LOOPBACK, 0))
    made.listen()
    return made


def _serve(listener: socket.socket, family: int, address: str | tuple[str, int]) -> None:
    """Connect every caller with ``address``, until ``listener`` is shut."""
    while True:
        try:
            caller, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=_connect, args=(caller, family, address), daemon=True).start()


def _connect(caller: socket.socket, family: int, address: str | tuple[str, int]) -> None:
    with caller, socket.socket(family) as called:
        try:
            called.connect(address)
        except OSError:  # nobody there: the caller sees its connection closed
            return
        back = threading.Thread(target=_pump, args=(called, caller), daemon=True)
        back.start()
        _pump(caller, called)
        back.join()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(CHUNK):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


# ---- the program inside


def _loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        name = struct.pack("16sh14x", b"lo", 0)
        (flags,) = struct.unpack_from("h", fcntl.ioctl(asked, SIOCGIFFLAGS, name), 16)
        fcntl.ioctl(asked, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | IFF_UP))


def _main(ports: dict[str, int], command: Sequence[str], until: IO[str]) -> None:
    _loopback_up()
    for path, port in ports.items():
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen()
        reached = (listener, socket.AF_INET, (LOOPBACK, port))
        threading.Thread(target=_serve, args=reached, daemon=True).start()
    done = subprocess.run(
        list(command), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        check=False,
    )  # fmt: skip
    print(json.dumps({"status": done.returncode, "output": done.stdout}), flush=True)
    until.read()


if __name__ == "__main__":
    _main(json.loads(sys.argv[1]), sys.argv[2:], sys.stdin)
