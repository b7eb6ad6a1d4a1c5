"""The arguments of the application."""

from __future__ import annotations

from typing import Any

import pytest

from outrider.cluster.config import ClusterConfig
from outrider.errors import ConfigError


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"replica": 2}, "replica"),
        ({"replicas": 3, "max_replicas": 2}, "max_replicas = 2 is less than replicas = 3"),
        ({"requests_per_replica": 8}, "give max_replicas"),
        ({"replicas": 2, "options": {"suffix_file": "f"}}, "cannot be written by several replicas"),
    ],
)
def test_what_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ClusterConfig(model="smollm2", **arguments)


def test_engines_have_the_cores_that_ray_reserves() -> None:
    config = ClusterConfig(model="m", cores=4, options={"max_model_len": 64})
    assert config.engine_options == {"num_threads": 4, "max_model_len": 64}
    assert ClusterConfig(model="m", options={"num_threads": 2}).engine_options == {"num_threads": 2}
    assert ClusterConfig(model="m", gpus=1).engine_options == {}


def test_the_ingress() -> None:
    """Anybody's name for it will do, as a proxy's; a key of the environment is asked for, and one that is
    given goes before."""
    config = ClusterConfig(model="org/name", server={"max_queue": 3})
    server = config.server_config({"OUTRIDER_API_KEY": "secret"})
    assert (server.host, server.model_name, server.max_queue) == ("0.0.0.0", "org/name", 3)
    assert [key.get_secret_value() for key in server.api_keys] == ["secret"]
    assert config.server_config({}).api_keys == ()
    own = ClusterConfig(model="m", server={"api_keys": ["own"], "host": "127.0.0.1"})
    (key,) = own.server_config({"OUTRIDER_API_KEY": "secret"}).api_keys
    assert key.get_secret_value() == "own"
    with pytest.raises(ConfigError, match="each replica would learn by itself"):
        ClusterConfig(model="m", server={"learning": {}}).server_config({})
