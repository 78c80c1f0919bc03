"""The OpenAPI description tells the truth: whatever is sent, the answer is one that it describes."""

from typing import Any

import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from jobs.serve.app import make_app
from jobs.serve.security import LOOPBACK_NAMES, Access
from jobs.serve.service import open_service
from pipeline.config import Config

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


def test_every_answer_is_described(own: Config) -> None:
    app = make_app(open_service(own.into), Access(LOOPBACK_NAMES | {"testserver"}))
    description = schemathesis.openapi.from_asgi("/api/openapi.json", app)
    asked = set()
    for found in description.get_all_operations():
        assert isinstance(found, Ok), found
        operation = found.ok()

        @settings(
            max_examples=150,
            derandomize=True,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy())
        def check(case: Any) -> None:
            case.call_and_validate(checks=CHECKS, timeout=300)

        check()
        asked.add((operation.method.upper(), operation.path))
    assert ("POST", "/api/similar") in asked
    assert len(asked) == sum(len(methods) for methods in description.raw_schema["paths"].values())
