"""The dashboard over HTTP: what it shows, and that it is closed to strangers."""

from __future__ import annotations

import http.client
import json
import re
import threading
import time

import pytest
from board_state import HOLD, MARKET_NS, Board
from hypothesis import given
from hypothesis import strategies as st

from live.control import Control
from live.core.events import Override
from live.dashboard import make_server
from live.dashboard.access import MAX_FAILURES, MAX_SESSIONS, Access
from live.dashboard.curve import MAX_POINTS, Curve
from live.dashboard.server import MAX_BODY_BYTES, PAGE
from live.dashboard.stream import MAX_LISTENERS
from live.watch import OverrideFlag
from market.errors import ConfigError
from market.types import NANO

WORD = "a-long-word"


@pytest.fixture
def board(tmp_path):
    return Board(tmp_path)


class Site:
    """One dashboard, and requests to it as a browser or a stranger makes them."""

    def __init__(self, board: Board, token: str) -> None:
        self.server = make_server(board.config(token), interval_s=0.05)
        self.port = self.server.server_address[1]
        self.origin = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def ask(self, path, method="GET", body=None, **headers):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, body, {k.replace("_", "-"): v for k, v in headers.items()})
            reply = connection.getresponse()
            return reply.status, reply.read(), reply.headers
        finally:
            connection.close()

    def sign_in(self, token=WORD):
        form = {"Content_Type": "application/x-www-form-urlencoded", "Origin": self.origin}
        code, _, headers = self.ask("/login", "POST", f"token={token}", **form)
        return code, (headers["Set-Cookie"] or "").partition(";")[0]

    def write(self, path, cookie="", origin=None, **wish):
        headers = {"Content_Type": "application/json", "Origin": self.origin if origin is None else origin}
        if cookie:
            headers["Cookie"] = cookie
        code, body, _ = self.ask(path, "POST", json.dumps(wish), **headers)
        return code, json.loads(body)


@pytest.fixture
def site(board):
    made = []

    def make(token=""):
        made.append(Site(board, token))
        return made[-1]

    yield make
    for one in made:
        one.server.close()


# ---- what it shows


def test_every_section_is_there_and_is_json(site):
    get = site().ask
    code, body, _ = get("/api/all")
    everything = json.loads(body)
    assert code == 200
    assert everything["verdict"]["level"] == "ok"
    assert everything["state"]["simulated"] == "a simulated market"
    assert everything["market"]["positions"]["SBER"]["stop_ticks"] == 29_970
    assert everything["orders"][0]["client_order_id"] == "c-1"
    assert everything["past_holds"][0]["name"] == "SESSION"
    assert [line["event"] for line in everything["audit"]] == ["EXIT_DECIDED", "SESSION_STARTED"]
    assert json.loads(get("/api/health")[1])["latency"]["ml"]["p99_us"] == 61_000
    code, body, _ = get("/api/secrets")
    assert code == 404
    assert "verdict" in json.loads(body)["error"]


def test_no_runner_and_no_database_are_said_not_thrown(board, site):
    for file in board.runtime.iterdir():
        file.unlink()
    everything = json.loads(site().ask("/api/all")[1])
    assert everything["verdict"]["headline"] == "No runner has worked here yet"
    assert "no database" in everything["database"]


def test_a_status_of_another_version_is_a_verdict_not_a_page_that_stands_still(board, site):
    (board.runtime / "status.json").write_text('{"pid": 1, "wall_ns": 0, "holds": []}')
    one = site()
    message = next(events(one))
    assert message["sections"]["verdict"]["level"] == "bad"
    assert "cannot read" in message["sections"]["verdict"]["headline"]


def test_drift_comes_from_the_newest_file_when_the_status_has_none(board, site):
    folder = board.runtime / "drift_metrics"
    folder.mkdir()
    (folder / "drift_metrics_20260114.jsonl").write_text('{"psi": 0.9}\n')
    (folder / "drift_metrics_20260115.jsonl").write_text('{"psi": 0.1}\n{"psi": 0.2, "feature": "ofi"}\n{"ps')
    assert json.loads(site().ask("/api/drift")[1]) == {"last": {"psi": 0.2, "feature": "ofi"}}


def test_the_curve_is_thinned_and_keeps_its_end_and_its_deepest_point(board, site):
    equity = json.loads(site().ask("/api/equity")[1])
    assert len(equity["points"]) <= MAX_POINTS
    assert equity["points"][-1][0] == MARKET_NS + 999 * NANO
    assert equity["high_nano"] == 5 * NANO
    assert equity["worst_nano"] == equity["now_nano"] == NANO // 100 - 5 * NANO


@given(st.lists(st.integers(-(10**6), 10**6), min_size=1, max_size=3_000), st.integers(1, 900))
def test_reading_bit_by_bit_is_reading_at_once_and_no_drawdown_is_lost(nets, step):
    import sqlite3

    with sqlite3.connect(":memory:") as connection:
        connection.execute("CREATE TABLE equity(session_id, now_ns, net_nano)")
        piecewise, peak, worst = Curve(), 0, 0
        for start in range(0, len(nets), step):
            rows = [("s", n, nets[n]) for n in range(start, min(len(nets), start + step))]
            connection.executemany("INSERT INTO equity VALUES(?, ?, ?)", rows)
            shown = piecewise.read(connection, "s")
            assert len(shown["points"]) <= MAX_POINTS
        for net in nets:
            peak = max(peak, net)
            worst = min(worst, net - peak)
        assert shown == Curve().read(connection, "s")
        assert shown["worst_nano"] == worst == min(p[2] for p in shown["points"])
        assert shown["points"][-1][:2] == [len(nets) - 1, nets[-1]]
        assert [p[0] for p in shown["points"]] == sorted({p[0] for p in shown["points"]})
        assert piecewise.read(connection, "another")["points"] == []


# ---- the live stream


def events(one, **headers):
    """Messages of the stream, parsed."""
    connection = http.client.HTTPConnection("127.0.0.1", one.port, timeout=20)
    connection.request("GET", "/events", headers={k.replace("_", "-"): v for k, v in headers.items()})
    reply = connection.getresponse()
    assert reply.status == 200, reply.read()
    assert reply.headers["Content-Type"] == "text/event-stream"
    try:
        while line := reply.readline():
            if line.startswith(b"data: "):
                yield json.loads(line[6:])
    finally:
        reply.close()
        connection.close()


def test_first_everything_then_what_changed(board, site):
    stream = events(site())
    first = next(stream)["sections"]
    assert {"verdict", "state", "holds", "market", "signals", "health", "equity", "audit"} <= set(first)
    quiet = next(stream)["sections"]
    assert "market" not in quiet
    assert "equity" not in quiet
    board.tell(holds=[HOLD])
    for message in stream:
        if "holds" in message["sections"]:
            break
    assert message["sections"]["holds"] == {"list": [HOLD], "liftable": ["VOLATILITY"]}
    assert message["sections"]["verdict"]["headline"] == "Not trading: the market is too volatile"
    assert "signals" not in message["sections"]
    stream.close()


def test_listeners_are_bounded_and_nobody_listening_stops_the_reading(site):
    one = site()
    streams = [events(one) for _ in range(MAX_LISTENERS)]
    for stream in streams:
        next(stream)
    assert one.ask("/events")[0] == 503
    for stream in streams:
        stream.close()
    deadline = time.monotonic() + 20
    while one.server.publisher._thread is not None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert next(events(one))["sections"]["verdict"]  # and it starts again


def test_signing_out_ends_the_stream(site):
    one = site(WORD)
    _, cookie = one.sign_in()
    stream = events(one, Cookie=cookie)
    next(stream)
    assert one.ask("/logout", "POST", "", Origin=one.origin, Cookie=cookie)[0] == 303
    assert len(list(stream)) < 50
    assert one.ask("/api/all", Cookie=cookie)[0] == 401


# ---- who may look


def test_without_a_token_only_this_machine_is_answered(site):
    get = site().ask
    assert get("/", Host="localhost:8000")[0] == 200
    assert get("/", Host="[::1]:8000")[0] == 200
    for host in ("evil.example", "127.0.0.1.evil.example", "evil.example:80@127.0.0.1:9", ""):
        assert get("/", Host=host)[0] == 403, host
        assert get("/events", Host=host)[0] == 403


def test_with_a_token_everything_is_closed_without_it(site):
    one = site(WORD)
    for path in ("/", "/api/all", "/events", "/app.js", "/nothing"):
        assert one.ask(path)[0] == 401, path
        assert one.ask(path, Authorization="Bearer wrong")[0] == 401, path
    assert b"SBER" not in one.ask("/")[1]
    assert one.ask("/style.css")[0] == 200
    assert one.ask("/api/all", Authorization=f"Bearer {WORD}")[0] == 200
    assert one.sign_in("wrong")[0] == 401
    code, cookie = one.sign_in()
    assert code == 303
    assert WORD not in cookie
    assert one.ask("/api/all", Cookie=cookie)[0] == 200
    assert one.ask("/api/all", Cookie=cookie[:-1])[0] == 401


def test_the_cookie_is_kept_from_scripts_and_from_other_sites(site):
    one = site(WORD)
    _, _, headers = one.ask("/login", "POST", f"token={WORD}", Origin=one.origin)
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= {p.strip() for p in headers["Set-Cookie"].split(";")}


def test_no_address_takes_a_token(site, capfd):
    one = site(WORD)
    code, body, _ = one.ask(f"/?token={WORD}")
    assert code == 400
    assert WORD not in body.decode()
    one.ask("/api/all", Authorization=f"Bearer {WORD}")
    one.sign_in()
    out, err = capfd.readouterr()
    assert out + err == ""  # no address, no token, nothing is logged


def test_guessing_is_slowed_down_for_the_right_token_too(site):
    one = site(WORD)
    for _ in range(MAX_FAILURES):
        assert one.sign_in("guess")[0] == 401
    assert one.sign_in()[0] == 429
    assert one.ask("/api/all", Authorization=f"Bearer {WORD}")[0] == 401


def test_sessions_are_bounded_and_odd_headers_are_strangers():
    access = Access(WORD)
    first = access.sign_in(WORD)
    for _ in range(MAX_SESSIONS):
        last = access.sign_in(WORD)
    assert not access.may_read({"Cookie": f"scalper_session={first}"})
    assert access.may_read({"Cookie": f"scalper_session={last}"})
    for headers in ({"Cookie": "scalper_session"}, {"Cookie": "=;;,"}, {"Authorization": "Bearer \udcff"},
                    {"Authorization": "Basic " + WORD}):  # fmt: skip
        assert not access.may_read(headers)


def test_an_open_host_needs_a_token_and_a_port_is_used_once(board, site):
    with pytest.raises(ConfigError, match=r"dashboard\.token"):
        make_server(board.config(), host="0.0.0.0")
    with pytest.raises(ConfigError, match="cannot listen"):
        make_server(board.config(), port=site().port)


# ---- what a browser is told to refuse


def test_headers_allow_nothing_inline_and_nothing_from_outside(site):
    one = site(WORD)
    for path, headers in (("/", {"Authorization": f"Bearer {WORD}"}), ("/", {}), ("/nothing", {})):
        policy = one.ask(path, **headers)[2]["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert one.ask(path, **headers)[2]["X-Content-Type-Options"] == "nosniff"


def test_the_page_needs_nothing_from_outside():
    for file in PAGE.iterdir():
        text = file.read_text()
        assert set(re.findall(r"https?://[^\s\"'`]+", text)) <= {"http://www.w3.org/2000/svg"}, file.name
        assert not re.search(r"<[^>]+\s(style|on\w+)=", text), file.name
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text), (
            file.name
        )
        if file.suffix == ".html":
            assert not re.search(r"<script(?![^>]*src=)|<style", text), file.name


# ---- halt and resume


def test_halt_and_resume_round_trip(board, site):
    one = site(WORD)
    _, cookie = one.sign_in()
    code, answer = one.write("/api/halt", cookie, confirm=True, reason="news at 14:00")
    assert (code, board.flag.read_text().strip()) == (200, "news at 14:00 (dashboard, 127.0.0.1)")
    runner = OverrideFlag(board.flag, 0.0)
    assert runner.poll(6) == Override(6, True, "news at 14:00 (dashboard, 127.0.0.1)")
    assert one.write("/api/halt", cookie, confirm=True, reason="again")[0] == 409
    board.tell(holds=[HOLD])
    seen = board.flag.read_text().strip()
    wish = {"confirm": True, "seen_flag": seen, "names": ["VOLATILITY"], "reason": "looked"}
    code, answer = one.write("/api/resume", cookie, **wish)
    assert code == 200, answer
    assert not board.flag.exists()
    assert runner.poll(7) == Override(7, False, "looked (dashboard, 127.0.0.1)")
    assert runner.poll(8) is None
    request = json.loads((board.runtime / "resume.request").read_text())
    assert request == {"names": ["VOLATILITY"], "reason": "looked (dashboard, 127.0.0.1)"}


def test_a_halt_that_changed_while_the_question_was_open_stays(board, site):
    one = site(WORD)
    _, cookie = one.sign_in()
    board.flag.write_text("another reason\n")
    for seen in (None, "what I saw"):
        code, answer = one.write("/api/resume", cookie, confirm=True, seen_flag=seen, names=[])
        assert code == 409
        assert "another reason" in answer["error"]
    assert board.flag.exists()


@pytest.mark.parametrize("name", ["CONNECTION", "NOT_RECONCILED", "nothing"])
def test_what_no_person_may_lift_is_refused(board, name):
    from live.control import NotDone

    with pytest.raises(NotDone, match=name):
        Control(board.flag, board.runtime).resume("", "me", seen_flag=None, names=(name,))
    assert not (board.runtime / "resume.request").exists()


def test_without_a_token_nobody_writes(board, site):
    code, answer = site().write("/api/halt", confirm=True, reason="x")
    assert code == 403
    assert "dashboard.token" in answer["error"]
    assert not board.flag.exists()


def test_every_way_around_the_token_and_the_origin_is_refused(board, site):
    one = site(WORD)
    _, cookie = one.sign_in()
    wish = {"confirm": True, "reason": "x"}
    assert one.write("/api/halt", "", **wish)[0] == 401
    for origin in ("http://evil.example", "null", "", f"http://127.0.0.1:{one.port + 1}"):
        assert one.write("/api/halt", cookie, origin, **wish)[0] == 403, origin
    assert one.write("/api/halt", cookie, reason="x")[0] == 400  # not confirmed
    form = {"Origin": one.origin, "Cookie": cookie}
    text = json.dumps(wish)
    assert one.ask("/api/halt", "POST", text, Content_Type="text/plain", **form)[0] == 415
    cross = {**form, "Sec_Fetch_Site": "cross-site", "Content_Type": "application/json"}
    assert one.ask("/api/halt", "POST", text, **cross)[0] == 403
    assert one.ask("/login", "POST", f"token={WORD}", Origin="http://evil.example")[0] == 403
    json_form = {**form, "Content_Type": "application/json"}
    for body in ("[]", "{", '{"confirm": true, "names": 3}', "\xff"):
        assert one.ask("/api/halt", "POST", body, **json_form)[0] == 400, body
    assert one.ask("/api/halt", "POST", "x" * (MAX_BODY_BYTES + 1), **json_form)[0] == 413
    assert not board.flag.exists()
