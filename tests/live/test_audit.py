"""The audit log is W3C Extended Log Format and gives back what was written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from live.audit import FIELDS, TAGS, AuditLog, read


def test_the_header_comes_first_and_once(tmp_path):
    path = tmp_path / "audit.log"
    for session in ("s1", "s2"):
        log = AuditLog(path, session)
        log.write(5, "SESSION", "SESSION_STARTED", {"mode": "paper"})
        log.close()
    lines = path.read_text().splitlines()
    assert lines[0] == "#Version: 1.0"
    assert lines[3] == f"#Fields: {FIELDS}"
    assert sum(line.startswith("#") for line in lines) == 4
    assert [line.session for line in read(path)] == ["s1", "s2"]


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
