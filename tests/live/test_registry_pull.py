"""Pulling a bundle from an MLflow database, an MLflow-like server and a folder."""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
import threading
import urllib.parse
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from live import registry
from market.errors import RegistryError

FILES = {
    "manifest.json": b'{"files": {"a.txt": {}, "b.bin": {}}}',
    "manifest.sig": b"sig",
    "a.txt": b"A",
    "b.bin": b"B" * 9,
}
SHA = hashlib.sha256(FILES["manifest.json"]).hexdigest()

# The tables and columns of MLflow 3.17 that matter here.
SCHEMA = """
CREATE TABLE registered_model_aliases(alias TEXT, version INTEGER, name TEXT, workspace TEXT);
CREATE TABLE model_versions(name TEXT, version INTEGER, source TEXT, storage_location TEXT, status TEXT,
    current_stage TEXT, workspace TEXT);
CREATE TABLE model_version_tags(key TEXT, value TEXT, name TEXT, version INTEGER, workspace TEXT);
"""


def put_files(folder: Path, files: dict[str, bytes] = FILES) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def make_database(
    path: Path, location: str, *, sha: str = SHA, status: str = "READY", stage: str = "None"
) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.executescript(SCHEMA)
        connection.execute("INSERT INTO registered_model_aliases VALUES('prod', 3, 'scalper', 'default')")
        connection.execute("INSERT INTO registered_model_aliases VALUES('canary', 4, 'scalper', 'default')")
        connection.execute(
            "INSERT INTO model_versions VALUES('scalper', 3, 'models:/m-1', ?, ?, ?, 'default')",
            (location, status, stage),
        )
        if sha:
            connection.execute(
                "INSERT INTO model_version_tags VALUES('manifest.sha256', ?, 'scalper', 3, 'default')", (sha,)
            )
    return f"sqlite:///{path}"


def test_database_with_a_file_location(tmp_path):
    uri = make_database(tmp_path / "mlflow.db", put_files(tmp_path / "store").as_uri())
    pulled = registry.pull(uri, "scalper", "prod", tmp_path / "models")
    assert (pulled.version, pulled.manifest_sha256, pulled.path.name) == ("3", SHA, SHA)
    assert {p.name: p.read_bytes() for p in pulled.path.iterdir()} == FILES
    assert [p.name for p in (tmp_path / "models").iterdir()] == [SHA]
    (tmp_path / "store" / "a.txt").unlink()  # a copy that is here needs no second look at the files
    assert registry.pull(uri, "scalper", "prod", tmp_path / "models") == replace(pulled, kept=True)


def test_a_workspace_that_was_moved_is_found_beside_its_database(tmp_path):
    put_files(tmp_path / "artifacts" / "models" / "m-1" / "artifacts")
    uri = make_database(tmp_path / "mlflow.db", "file:///elsewhere/artifacts/models/m-1/artifacts")
    assert registry.pull(uri, "scalper", "prod", tmp_path / "models").manifest_sha256 == SHA


def test_server_locations_in_a_database_are_read_from_its_folder(tmp_path):
    put_files(tmp_path / "artifacts" / "1" / "models" / "m-1" / "artifacts")
    uri = make_database(tmp_path / "mlflow.db", "mlflow-artifacts:/1/models/m-1/artifacts")
    assert registry.pull(uri, "scalper", "prod", tmp_path / "models").manifest_sha256 == SHA


def test_an_unknown_alias_names_the_existing_ones(tmp_path):
    uri = make_database(tmp_path / "mlflow.db", put_files(tmp_path / "store").as_uri())
    with pytest.raises(RegistryError, match=r"no alias 'shadow'.*canary \(version 4\), prod \(version 3\)"):
        registry.resolve(uri, "scalper", "shadow")
    with pytest.raises(RegistryError, match="no alias at all"):
        registry.resolve(uri, "other", "prod")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"status": "PENDING_REGISTRATION"}, "PENDING_REGISTRATION"),
        ({"stage": "Deleted_Internal"}, "was deleted"),
        ({"sha": "0" * 64}, "artifacts were overwritten"),
    ],
)
def test_versions_that_must_not_be_used(tmp_path, changes, words):
    uri = make_database(tmp_path / "mlflow.db", put_files(tmp_path / "store").as_uri(), **changes)
    with pytest.raises(RegistryError, match=words):
        registry.pull(uri, "scalper", "prod", tmp_path / "models")
    assert not any((tmp_path / "models").iterdir()) if (tmp_path / "models").exists() else True


def test_locations_cannot_leave_the_artifact_folder(tmp_path):
    put_files(tmp_path / "secret")
    uri = make_database(tmp_path / "reg" / "mlflow.db", "mlflow-artifacts:/../../secret")
    with pytest.raises(RegistryError, match="leaves"):
        registry.pull(uri, "scalper", "prod", tmp_path / "models")


def test_a_missing_database_is_not_created(tmp_path):
    with pytest.raises(RegistryError, match="scalper publish"):
        registry.resolve(f"sqlite:///{tmp_path}/none.db", "scalper", "prod")
    assert not (tmp_path / "none.db").exists()


def test_folder(tmp_path):
    put_files(tmp_path / "bundle")
    assert registry.pull((tmp_path / "bundle").as_uri(), "x", "y", tmp_path / "models").manifest_sha256 == SHA
    with pytest.raises(RegistryError, match=r"no manifest\.json"):
        registry.resolve((tmp_path / "none").as_uri(), "x", "y")
    with pytest.raises(RegistryError, match="sqlite:///path"):
        registry.resolve("ftp://x", "x", "y")


def test_links_folders_odd_names_and_sizes_are_refused(tmp_path, monkeypatch):
    folder = put_files(tmp_path / "bundle")
    (folder / "link").symlink_to("/etc/hostname")
    with pytest.raises(RegistryError, match="not a plain file"):
        registry.pull(folder.as_uri(), "x", "y", tmp_path / "models")
    (folder / "link").unlink()
    (folder / ".hidden").write_text("x")
    with pytest.raises(RegistryError, match="such a name is refused"):
        registry.pull(folder.as_uri(), "x", "y", tmp_path / "models")
    (folder / ".hidden").unlink()
    monkeypatch.setattr(registry, "MAX_BUNDLE_BYTES", 10)
    with pytest.raises(RegistryError, match="too large"):
        registry.pull(folder.as_uri(), "x", "y", tmp_path / "models")
    assert list((tmp_path / "models").iterdir()) == []


class _Mlflow(BaseHTTPRequestHandler):
    """The handful of MLflow's REST answers that the runner asks for, as recorded from MLflow 3.17."""

    listing: tuple[dict, ...] = ()

    def do_GET(self):
        parts = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(parts.query))
        path = urllib.parse.unquote(parts.path)
        if path.endswith("/registered-models/alias"):
            if query["alias"] != "prod":
                self._json(404, {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "alias not found"})
            else:
                tags = [{"key": "manifest.sha256", "value": SHA}]
                self._json(
                    200,
                    {"model_version": {"name": "scalper", "version": "3", "status": "READY", "tags": tags}},
                )
        elif path.endswith("/registered-models/get"):
            self._json(
                200, {"registered_model": {"name": "scalper", "aliases": [{"alias": "prod", "version": "3"}]}}
            )
        elif path.endswith("/get-download-uri"):
            self._json(200, {"artifact_uri": "mlflow-artifacts:/1/models/m-1/artifacts"})
        elif path == "/api/2.0/mlflow-artifacts/artifacts":
            self._json(200, {"files": list(self.listing)})
        else:
            self._reply(
                200, FILES[path.removeprefix("/api/2.0/mlflow-artifacts/artifacts/1/models/m-1/artifacts/")]
            )

    def _json(self, code, body):
        self._reply(code, json.dumps(body).encode())

    def _reply(self, code, body):
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    handler = type("Handler", (_Mlflow,), {"listing": tuple({"path": n, "is_dir": False} for n in FILES)})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as served:
        threading.Thread(target=served.serve_forever, daemon=True).start()
        yield served, handler
        served.shutdown()


def test_server(tmp_path, server):
    served, _ = server
    uri = f"http://127.0.0.1:{served.server_address[1]}"
    pulled = registry.pull(uri, "scalper", "prod", tmp_path / "models")
    assert {p.name: p.read_bytes() for p in pulled.path.iterdir()} == FILES
    with pytest.raises(RegistryError, match=r"no alias 'shadow'.*prod \(version 3\)"):
        registry.resolve(uri, "scalper", "shadow")


@pytest.mark.parametrize("name", ["../evil", "a/b", "..", "C:\\x", "x" * 65])
def test_names_from_a_server_cannot_leave_the_folder(tmp_path, server, name):
    served, handler = server
    handler.listing = (*handler.listing, {"path": name, "is_dir": False})
    with pytest.raises(RegistryError, match="such a name is refused"):
        registry.pull(f"http://127.0.0.1:{served.server_address[1]}", "scalper", "prod", tmp_path / "models")
    assert list((tmp_path / "models").iterdir()) == []


def test_a_server_that_is_down_says_so(tmp_path):
    with pytest.raises(RegistryError, match="mlflow server") as caught:
        registry.resolve("http://user:word@127.0.0.1:9", "scalper", "prod")
    assert "word" not in str(caught.value)
