"""The API's own description (OpenAPI 3.1), out of the operations as they are."""

import re
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

import msgspec

import smtpguard
from smtpguard.web.operation import JSON, NoQuery, Operation
from smtpguard.web.problems import MEDIA_TYPE

_REFERENCE = "#/components/schemas/{name}"
_PROBLEM = {
    "type": "object",
    "required": ["type", "title", "status", "code", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "code": {"type": "string", "description": "What programs compare."},
        "detail": {"type": "string"},
        "why": {"type": "string", "description": "What is wrong with the body or the query."},
        "smarthost_code": {"type": "integer"},
    },
}
_IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "The same request under the same key is carried out once, for 24 hours.",
    "schema": {"type": "string", "pattern": "^[!-~]{1,255}$"},
}


def document(operations: Iterable[Operation[Any, Any]], prefix: str) -> bytes:
    """Describe the operations below a path."""
    operations = tuple(operations)
    types = [kind for each in operations for kind in (each.answer, each.body) if kind is not None]
    _, schemas = msgspec.json.schema_components(dict.fromkeys(types), ref_template=_REFERENCE)
    paths: dict[str, dict[str, Any]] = {}
    for each in operations:
        path = prefix + each.path.replace(":str}", "}")
        paths.setdefault(path, {})[each.method.lower()] = _described(each)
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {"title": "smtpguard", "version": smtpguard.__version__},
            "security": [{"token": []}],
            "paths": paths,
            "components": {
                "schemas": {**schemas, "Problem": _PROBLEM},
                "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            },
        }
    )


def _described(operation: Operation[Any, Any]) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": re.sub(r"[^a-z]+", "_", f"{operation.method} {operation.path}".lower().replace(":str", "")),
        "summary": operation.summary,
        "description": f"Wants the scope `{operation.scope.value}`.",
        "parameters": [*_path_parameters(operation), *_query_parameters(operation)],
        "responses": {
            "200": {"description": "Done", "content": {JSON: {"schema": _reference(operation.answer)}}},
            **{
                str(status): {
                    "description": HTTPStatus(status).phrase,
                    "content": {MEDIA_TYPE: {"schema": {"$ref": _REFERENCE.format(name="Problem")}}},
                }
                for status in _statuses(operation)
            },
        },
    }
    if operation.body is not None:
        schema = _reference(operation.body)
        described["requestBody"] = {"required": True, "content": {JSON: {"schema": schema}}}
    if operation.writes:
        described["parameters"].append(_IDEMPOTENCY_KEY)
    return described


def _statuses(operation: Operation[Any, Any]) -> Iterable[int]:
    yield from (400, 401, 403, 429, 500, 503)
    if "{" in operation.path:
        yield 404
    if operation.body is not None:
        yield from (404, 408, 413, 415, 422)
    if operation.writes:
        yield from (409, 502)


def _path_parameters(operation: Operation[Any, Any]) -> list[dict[str, Any]]:
    names = re.findall(r"\{(\w+):str\}", operation.path)
    return [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]


def _query_parameters(operation: Operation[Any, Any]) -> list[dict[str, Any]]:
    if operation.query is NoQuery:
        return []
    (_,), components = msgspec.json.schema_components([operation.query], ref_template="{name}")
    properties = components[operation.query.__name__]["properties"]
    return [
        {"name": name, "in": "query", "required": False, "schema": _inlined(schema, components)}
        for name, schema in properties.items()
    ]


def _inlined(schema: Any, components: dict[str, Any]) -> Any:
    """Put what a schema refers to into it."""
    if isinstance(schema, dict):
        if "$ref" in schema:
            return components[schema["$ref"]]
        return {key: _inlined(value, components) for key, value in schema.items()}
    return [_inlined(each, components) for each in schema] if isinstance(schema, list) else schema


def _reference(kind: type) -> dict[str, str]:
    return {"$ref": _REFERENCE.format(name=kind.__name__)}
