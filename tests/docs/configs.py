"""Configurations of other programs in the documents: each agrees with the server's own limits."""

from __future__ import annotations

import configparser
import re
import shlex
from collections.abc import Callable, Iterator
from typing import Any

import yaml

from outrider.cluster.config import ClusterConfig
from outrider.option_types import parse_bytes
from outrider.serving.server import END_SECONDS
from outrider.serving.settings import ServerConfig
from tests.docs.shell import understand_outrider

# Seconds that a server may take from a signal to its end: whoever ends it by force has to wait longer.
ENDING = ServerConfig.model_fields["shutdown_timeout"].default + END_SECONDS
SERVED = f"127.0.0.1:{ServerConfig.model_fields['port'].default}"


def check_systemd(text: str) -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read_string(text)
    service = unit["Service"]
    program, *words = shlex.split(service["ExecStart"])
    assert program.endswith("/bin/outrider")
    understand_outrider(["outrider", *words])
    assert int(service["TimeoutStopSec"]) > ENDING


def check_yaml(text: str) -> None:
    """Lists of words for a container are arguments of `outrider serve`, and mappings those of replicas."""
    for key, value in _pairs(yaml.safe_load(text)):
        if key == "args" and isinstance(value, dict):
            ClusterConfig(**value).server_config({})
        elif key in ("command", "args"):
            understand_outrider(["outrider", "serve", *value])
        elif key in ("stop_grace_period", "terminationGracePeriodSeconds"):
            assert float(str(value).removesuffix("s")) > ENDING
        elif key in ("api_base", "apiBase"):
            assert value == f"http://{SERVED}/v1"
        elif key == "httpGet":
            assert value == {"path": "/health", "port": ServerConfig.model_fields["port"].default}


def _pairs(value: Any) -> Iterator[tuple[str, Any]]:
    """Every key of every mapping within it, and what it has."""
    if isinstance(value, dict):
        yield from value.items()
    if isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _pairs(each)


def check_nginx(text: str) -> None:
    _check_braces(text)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    assert all(line.endswith((";", "{", "}")) for line in lines)
    told = dict(line.rstrip(";").split(maxsplit=1) for line in lines if " " in line and line.endswith(";"))
    assert told["proxy_pass"] == f"http://{SERVED}"
    assert told["proxy_buffering"] == "off"  # or streams would be held back
    assert int(told["proxy_read_timeout"].rstrip("s")) > ServerConfig.model_fields["request_timeout"].default
    body = told["client_max_body_size"].upper() + "iB"
    assert parse_bytes(body) == ServerConfig.model_fields["max_body_size"].default


def check_caddy(text: str) -> None:
    _check_braces(text)
    assert f"reverse_proxy {SERVED}" in text
    assert re.search(r"flush_interval -1$", text, re.MULTILINE)


def _check_braces(text: str) -> None:
    depth = 0
    for character in re.sub(r"[^{}]", "", text):
        depth += 1 if character == "{" else -1
        assert depth >= 0
    assert depth == 0


CONFIGS: dict[str, Callable[[str], None]] = {
    "caddy": check_caddy,
    "ini": check_systemd,
    "nginx": check_nginx,
    "yaml": check_yaml,
}
