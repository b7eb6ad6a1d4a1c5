"""What fits the server's own description, or just does not, is answered as described, and never with 5xx."""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import load_all_checks, not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.serving.harness import Served

load_all_checks()
CHECKS = [
    not_a_server_error,
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
]
CONVERTED = ("/v1/responses", "/v1/messages", "/api/")
"""What fits their description may be refused by chat's, which has the ranges."""
EXAMPLES = {"/v1/completions": 25, "/v1/chat/completions": 25, "/tokenize": 10, "/detokenize": 10}
EXAMPLES |= dict.fromkeys(("/v1/responses", "/v1/messages", "/api/chat", "/api/generate"), 8)
"""Of each kind; of the others, which take nothing or little, few."""


@pytest.fixture(scope="module")
def described(served: Served) -> Any:
    return schemathesis.openapi.from_url(f"{served.url}/openapi.json")


def statuses_of(operation: Any, mode: GenerationMode) -> set[int]:
    """Send what was made up for an operation; the statuses of the answers, each checked."""
    statuses: set[int] = set()

    @settings(
        max_examples=EXAMPLES.get(operation.path, 3),
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        response = case.call()
        case.validate_response(response, checks=CHECKS)
        statuses.add(response.status_code)

    ask()
    return statuses


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_answers_are_as_described(served: Served, described: Any, mode: GenerationMode) -> None:
    operations = [result.ok() for result in described.get_all_operations()]
    assert {operation.path for operation in operations} > EXAMPLES.keys()
    for operation in operations:
        if mode is GenerationMode.POSITIVE:
            refused = "{" in operation.path or operation.path.startswith(CONVERTED)
            assert 200 in statuses_of(operation, mode) or refused
        elif operation.path in EXAMPLES:  # of the others nothing can be wrong
            assert 400 in statuses_of(operation, mode)
    served.until_idle()
    assert served.service.engine.stopped is None
