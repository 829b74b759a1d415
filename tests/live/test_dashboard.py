"""The dashboard reads a real database, and is closed to strangers."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading

import pytest

from live.dashboard import make_server
from live.storage import Record, Storage
from market.errors import ConfigError


@pytest.fixture
def workspace(tmp_path):
    storage = Storage.open(tmp_path / "scalper.db", tmp_path / "fallback.jsonl")

    async def fill():
        storage.put(Record("sessions", {"session_id": "s1", "started_wall_ns": 1, "watermark": "SIMULATED"}))
        for n in range(1000):
            fields = {"session_id": "s1", "now_ns": n, "gross_nano": n, "fees_nano": 1, "net_nano": n - 1}
            storage.put(Record("equity", fields))
        await storage.commit(
            Record("holds", {"session_id": "s1", "name": "SESSION", "scope": "*", "raised_ns": 5})
        )

    asyncio.run(fill())
    storage.close()
    return tmp_path


@pytest.fixture
def ask(workspace):
    servers = []

    def start(token=""):
        server = make_server(workspace / "scalper.db", workspace, workspace / "flag", "127.0.0.1", 0, token)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)

        def get(path, **headers):
            connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=10)
            connection.request("GET", path, headers=headers)
            reply = connection.getresponse()
            return reply.status, reply.read(), reply.headers

        return get

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_views_are_json_and_the_curve_is_thinned_but_ends_at_the_end(ask):
    get = ask()
    code, body, _ = get("/api/equity")
    points = json.loads(body)
    assert code == 200
    assert len(points) <= 601
    assert points[-1] == [999, 999, 1, 998]
    assert json.loads(get("/api/holds")[1])[0]["name"] == "SESSION"
    assert json.loads(get("/api/sessions")[1])[0]["watermark"] == "SIMULATED"
    for view in ("signals", "orders", "fills", "trips", "positions"):
        assert json.loads(get(f"/api/{view}?session=s1")[1]) == []
    assert json.loads(get("/api/status")[1])["alive"] is False
    assert get("/api/secrets")[0] == 404


def test_the_page_needs_nothing_from_outside(ask):
    code, body, headers = ask()("/")
    page = body.decode()
    assert code == 200
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert page.count("http://www.w3.org/2000/svg") == page.count("http") == 1
    assert "viewport" in page


def test_without_a_token_only_this_machine_is_answered(ask):
    get = ask()
    assert get("/", Host="localhost:8000")[0] == 200
    assert get("/", Host="evil.example")[0] == 401


def test_a_token_is_asked_for_by_every_way(ask):
    get = ask("word")
    assert get("/")[0] == get("/api/status")[0] == get("/?token=wrong")[0] == 401
    code, _, headers = get("/?token=word")
    assert code == 200
    cookie = headers["Set-Cookie"].partition(";")[0]
    assert get("/api/equity", Cookie=cookie)[0] == 200
    assert get("/api/equity", Authorization="Bearer word")[0] == 200


def test_an_open_host_needs_a_token(workspace):
    with pytest.raises(ConfigError, match=r"dashboard\.token"):
        make_server(workspace / "scalper.db", workspace, workspace / "flag", "0.0.0.0", 0, "")
