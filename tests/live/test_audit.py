"""The audit log is W3C Extended Log Format, gives back what was written, and shows every alteration."""

from __future__ import annotations

import json
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lars import iis

from live import cli
from live.audit import FIELDS, TAGS, AuditLog, files, head_path, read, read_all
from live.audit_verify import Anchor, report_anchors, verify

START = datetime(2026, 1, 15, 23, 59, 50, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now


def make(folder: Path, lines: int = 10, *, days: int = 3, session: str = "s1") -> Path:
    """A log over ``days`` days, ``lines`` entries a day."""
    path, clock = folder / "audit.log", Clock()
    log = AuditLog(path, session, now=clock)
    for day in range(days):
        for n in range(lines):
            log.write(1000 + n, "ORDER", "FILL", {"client_order_id": f"o{day}-{n}", "lots": n})
        clock.now += timedelta(days=1)
    log.close()
    return path


def test_the_header_comes_first_and_once(tmp_path):
    path = tmp_path / "audit.log"
    for session in ("s1", "s2"):
        log = AuditLog(path, session)
        log.write(5, "SESSION", "SESSION_STARTED", {"mode": "paper"})
        log.close()
    lines = path.read_text().splitlines()
    assert lines[0] == "#Version: 1.0"
    assert lines[4] == f"#Fields: {FIELDS}"
    assert sum(line.startswith("#") for line in lines) == 5
    assert [line.session for line in read(path)] == ["s1", "s2"]
    assert verify(path).ok


@pytest.mark.parametrize("tag", TAGS)
def test_each_tag(tmp_path, tag):
    log = AuditLog(tmp_path / "audit.log", "s")
    log.write(1, tag, "X", {}, sync=True)
    log.close()
    assert next(read(tmp_path / "audit.log")).tag == tag


def test_an_unknown_tag_is_a_defect(tmp_path):
    log = AuditLog(tmp_path / "audit.log", "s")
    with pytest.raises(ValueError, match="CHATTER"):
        log.write(1, "CHATTER", "X", {})
    log.close()


@given(st.dictionaries(st.text(min_size=1), st.text(min_size=1).filter(lambda t: t != "-"), max_size=4))
def test_any_text_survives_and_a_line_has_the_declared_number_of_fields(tmp_path_factory, fields):
    path = tmp_path_factory.mktemp("audit") / "audit.log"
    log = AuditLog(path, "s")
    log.write(123, "RISK", "AN EVENT", fields)
    log.close()
    last = path.read_text(encoding="utf-8").split("\n")[-2]
    assert len(last.split(" ")) == len(FIELDS.split(" "))
    line = next(read(path))
    assert (line.market_ns, line.tag, line.event, line.fields) == (123, "RISK", "AN EVENT", fields)
    assert verify(path).ok


def test_awk_reads_it_by_the_names_that_the_fields_directive_gives(tmp_path):
    """What a log tool knows of a W3C file is its directives: awk finds every column by them."""
    path = make(tmp_path, lines=4, days=1)
    script = r"""
        /^#Fields:/ { for (i = 2; i <= NF; i++) column[$i] = i - 1; next }
        /^#/ { next }
        NF != length(column) { exit 3 }
        { split($column["x-fields"], pair, ";"); print $column["date"], $column["x-seq"], $column["x-tag"], \
          $column["x-event"], pair[1] }
    """
    done = subprocess.run(["awk", script, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        f"2026-01-15 {n + 1} ORDER FILL client_order_id=o0-{n}" for n in range(4)
    ]


def test_a_w3c_library_reads_it(tmp_path):
    with open(make(tmp_path, lines=4, days=1)) as file, iis.IISSource(file) as rows:
        found = list(rows)
    assert [row.x_seq for row in found] == ["1", "2", "3", "4"]


# ---- traces


def test_lines_about_an_order_have_the_trace_of_the_line_that_placed_it(tmp_path):
    log = AuditLog(tmp_path / "audit.log", "s")
    log.write(1, "ORDER", "ORDER_PLACED", {"client_order_id": "a", "trace_id": "t-1"})
    log.write(2, "ORDER", "FILL", {"client_order_id": "a"})
    log.write(3, "ORDER", "FILL", {"client_order_id": "b"})
    log.close()
    assert [line.trace for line in read(tmp_path / "audit.log")] == ["t-1", "t-1", ""]
    assert [line.fields.get("trace_id") for line in read(tmp_path / "audit.log")] == ["t-1", "t-1", None]


# ---- rotation and restarts


def test_the_log_turns_at_midnight_and_the_chain_goes_on(tmp_path):
    path = make(tmp_path, lines=5, days=3)
    names = [p.name for p in files(path)]
    assert names == ["audit-20260115.log", "audit-20260116.log", "audit.log"]
    assert "#End-Date: 2026-01-16 23:59:50" in (tmp_path / names[0]).read_text()
    assert [line.seq for line in read_all(path)] == list(range(1, 16))
    verdict = verify(path)
    assert verdict.ok and verdict.lines == 15 and not verdict.warnings


def test_a_restart_on_another_day_turns_the_log_too(tmp_path):
    path, clock = tmp_path / "audit.log", Clock()
    for _ in range(3):
        log = AuditLog(path, "s", now=clock)
        log.write(1, "RISK", "X", {})
        log.close()
        clock.now += timedelta(days=1)
    assert len(files(path)) == 3
    assert verify(path).ok


def test_a_line_torn_by_a_crash_is_taken_out_and_told(tmp_path):
    path = make(tmp_path, days=1)
    with open(path, "a") as file:
        file.write("2026-01-15 23:59:59 000 12 s1 11 ORD")
    assert "torn" in verify(path).broken
    AuditLog(path, "s2", now=Clock()).close()
    assert verify(path).ok
    last = list(read(path))[-1]
    assert (last.event, last.fields["text"]) == ("AUDIT_LINE_TORN", "2026-01-15 23:59:59 000 12 s1 11 ORD")


def test_a_log_of_another_format_is_kept_aside(tmp_path):
    path = tmp_path / "audit.log"
    path.write_text("#Version: 1.0\n#Fields: date time x-event\n2026-01-01 10:00:00 X\n")
    AuditLog(path, "s", now=Clock()).close()
    assert (tmp_path / "audit-unchained-20260115.log").read_text().endswith("X\n")
    assert verify(path).ok


# ---- alterations


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_alteration_of_any_character_is_found(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("audit")
    path = make(folder, lines=4)
    file = data.draw(st.sampled_from(files(path)))
    text = file.read_text()
    at = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.sampled_from("aZ0 #-\n"))
    if other == text[at]:
        return
    file.write_text(text[:at] + other + text[at + 1 :])
    verdict = verify(path)
    # A header that is no header any more takes its file out of the log.
    assert not verdict.ok or len(verdict.files) < 3


def test_the_first_broken_line_is_named(tmp_path):
    path = make(tmp_path, lines=6)
    rotated = tmp_path / "audit-20260116.log"
    lines = rotated.read_text().splitlines(keepends=True)
    number = next(n for n, line in enumerate(lines) if "o1-2" in line)
    rotated.write_text(
        "".join([*lines[:number], lines[number].replace("lots=2", "lots=9"), *lines[number + 1 :]])
    )
    verdict = verify(path)
    assert verdict.broken.startswith(f"audit-20260116.log, line {number + 1} (entry 9, FILL of ")
    rotated.write_text("".join([*lines[:number], *lines[number + 1 :]]))
    assert f"line {number + 1} has number 10 after 8: entry 9 is missing" in verify(path).broken
    rotated.write_text("".join([*lines[:number], lines[number - 1], *lines[number:]]))
    assert "it was put in" in verify(path).broken


def test_a_missing_file_is_named(tmp_path):
    path = make(tmp_path)
    (tmp_path / "audit-20260116.log").unlink()
    assert "audit.log does not go on from audit-20260115.log" in verify(path).broken


def test_the_oldest_files_may_be_put_away(tmp_path):
    path = make(tmp_path)
    (tmp_path / "audit-20260115.log").unlink()
    verdict = verify(path)
    assert verdict.ok and "begins with part 2 at line 11" in verdict.warnings[0]


def test_a_tail_that_was_cut_off_is_counted_and_the_log_itself_says_so(tmp_path):
    path = make(tmp_path)
    text = path.read_text().splitlines(keepends=True)
    path.write_text("".join(text[:-3]))
    assert "3 lines were cut off at the end" in verify(path).broken
    AuditLog(path, "s2", now=lambda: START + timedelta(days=2)).close()
    last = list(read(path))[-1]
    assert (last.event, last.fields["found_seq"], last.fields["last_seq"]) == (
        "AUDIT_TAIL_MISSING",
        "27",
        "30",
    )


def test_without_a_head_an_anchor_elsewhere_still_finds_the_cut(tmp_path):
    path = make(tmp_path)
    whole = verify(path)
    report = tmp_path / "performance.jsonl"
    report.write_text(json.dumps({"audit_head": {"seq": whole.last_seq, "chain": whole.chain}}) + "\n{torn")
    anchors = report_anchors(report)
    assert verify(path, anchors).anchors == 1
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    head_path(path).unlink()
    verdict = verify(path)
    assert verdict.ok and "head is missing" in verdict.warnings[0]
    assert "performance.jsonl, line 1 knows line 30" in verify(path, anchors).broken


def test_a_log_written_anew_as_a_whole_does_not_fit_its_anchors(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    known = verify(make(tmp_path / "a"))
    forged = make(tmp_path / "b", session="forged")
    assert verify(forged).ok
    assert "written anew" in verify(forged, [Anchor(known.last_seq, known.chain, "the report")]).broken


def test_the_command_says_so_with_its_exit_code(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runtime").mkdir()
    path = make(tmp_path / "runtime")
    assert cli.main(["audit", "verify"]) == 0
    assert "30 lines in 3 files" in capsys.readouterr().out
    path.write_text(path.read_text().replace("o2-4", "o2-5", 1))
    assert cli.main(["audit", "verify", "--json"]) == 1
    assert "entry 25" in json.loads(capsys.readouterr().out)["broken"]
    assert cli.main(["audit", "show", "--event", "FILL", "--last", "2"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
