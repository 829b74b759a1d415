"""The registry as a server of MLflow's: a few REST calls, no redirects, replies of bounded size."""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

from live.registry_facts import TIMEOUT_S, Resolved, resolved, unknown_alias
from market.errors import RegistryError

MAX_REPLY_BYTES = 4 * 1024 * 1024


def resolve_http(uri: str, model: str, alias: str, wanted: str) -> Resolved:
    """Where ``alias`` of ``model`` points, or the version ``wanted``. Raises RegistryError."""
    base = uri.rstrip("/") + "/api/2.0/mlflow"
    if wanted:
        query = urllib.parse.urlencode({"name": model, "version": wanted})
        path = f"{base}/model-versions/get?{query}"
    else:
        query = urllib.parse.urlencode({"name": model, "alias": alias})
        path = f"{base}/registered-models/alias?{query}"
    try:
        version = get_json(path, uri)["model_version"]
    except _NotFound:
        if wanted:
            raise RegistryError(
                f"{model} has no version {wanted} in {uri}; follow the alias {alias}"
            ) from None
        raise unknown_alias(model, alias, _http_aliases(base, uri, model), uri) from None
    tags = {tag["key"]: tag["value"] for tag in version.get("tags", [])}
    query = urllib.parse.urlencode({"name": model, "version": version["version"]})
    location = get_json(f"{base}/model-versions/get-download-uri?{query}", uri)["artifact_uri"]
    return resolved(
        model,
        alias,
        str(version["version"]),
        str(version.get("status")),
        location,
        tags.get("manifest.sha256"),
        version.get("run_id"),
    )


def _http_aliases(base: str, uri: str, model: str) -> dict[str, str]:
    try:
        reply = get_json(f"{base}/registered-models/get?{urllib.parse.urlencode({'name': model})}", uri)
    except _NotFound:
        return {}
    aliases = reply["registered_model"].get("aliases", [])
    return {str(entry["alias"]): str(entry["version"]) for entry in aliases}


class _NotFound(RegistryError):
    """The server answered that the thing does not exist."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the password to another host."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


def get(url: str, uri: str) -> Any:
    """The open reply; name and password of ``url`` go into a header. ``uri``: the registry, for errors."""
    parts = urllib.parse.urlsplit(url)
    request = urllib.request.Request(parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl())
    if parts.username is not None:
        pair = f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
        request.add_header("Authorization", "Basic " + base64.b64encode(pair.encode()).decode())
    shown = urllib.parse.urlsplit(uri)
    server = shown._replace(netloc=shown.netloc.rpartition("@")[2]).geturl()
    try:
        return urllib.request.build_opener(_NoRedirect).open(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        with error:
            text = error.read(MAX_REPLY_BYTES).decode("utf-8", "replace")
        if error.code in (400, 404) and (
            "RESOURCE_DOES_NOT_EXIST" in text or "INVALID_PARAMETER_VALUE" in text
        ):
            raise _NotFound(f"the registry {server} does not know it: {text[:200]}") from None
        if error.code in (401, 403):
            raise RegistryError(
                f"the registry {server} wants a login (HTTP {error.code}); write it as "
                "http://user:password@host:port"
            ) from None
        raise RegistryError(f"the registry {server} answered HTTP {error.code}: {text[:200]}") from None
    except (OSError, ValueError) as error:
        raise RegistryError(
            f"the registry {server} does not answer ({error}); is `mlflow server` running there?"
        ) from None


def get_json(url: str, uri: str) -> dict[str, Any]:
    """The reply as an object. Raises RegistryError."""
    with get(url, uri) as reply:
        text = reply.read(MAX_REPLY_BYTES)
    try:
        return dict(json.loads(text))
    except ValueError:
        raise RegistryError(
            f"the registry {uri} answered something that is not JSON; is it an MLflow server?"
        ) from None
