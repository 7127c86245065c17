"""The requests of one ranker as OpenAPI describes them."""

from typing import Any

import pyarrow as pa

from torchrec_mm.columns.seconds import LIMIT
from torchrec_mm.data.contract.request_columns import OF_CANDIDATES, REQUEST_ID, RequestColumns
from torchrec_mm.data.stream.batches import USER_ID
from torchrec_mm.serving.additions.body import OF_TIMES, OUTCOMES, SEVERAL, types_of
from torchrec_mm.serving.histories import of_behaviours
from torchrec_mm.serving.wire import (
    ANSWER,
    ARROW,
    JSON,
    LONGEST_ID,
    REQUEST_IDS,
    REQUESTS,
    Limits,
    columns_of,
)

INT64 = {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1}
ERRORS = {
    400: "the client has gone",
    408: "the body came too slowly",
    413: "the body is too large",
    415: "neither JSON nor Arrow",
    422: "a request that the ranker cannot read: which, what must be, what came",
    503: "too busy, or behaviours could not be written: try again",
}
ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {"error": {"type": "string"}},
}
DELETED = "deleted"
ARROW_BODY = {ARROW: {"schema": {"type": "string", "format": "binary"}}}


def score_operation(columns: RequestColumns, limits: Limits) -> dict[str, Any]:
    """The "extra" and "responses" of the route that scores."""
    request = request_schema(columns, limits)
    probabilities = {"type": "array", "items": {"type": "array", "items": {"type": "number"}}}
    answer = {
        "type": "object",
        "required": [ANSWER, REQUEST_IDS, "checkpoint"],
        "properties": {
            ANSWER: probabilities,
            REQUEST_IDS: {"type": "array", "items": {"type": "string"}},
            "checkpoint": {"type": "string"},
        },
    }
    return _operation(request, REQUESTS, limits, {JSON: {"schema": answer}, **ARROW_BODY}, "scores")


def addition_operation(columns: RequestColumns, limits: Limits) -> dict[str, Any]:
    """The "extra" and "responses" of the route that adds behaviours."""
    properties = {}
    for name, kind in types_of(columns).items():
        properties[name] = _kind(kind, limits.behaviours, False, *_feature(columns, name))
        if name.endswith(OF_TIMES):
            properties[name]["items"] = {
                "type": "integer",
                "minimum": 1 - LIMIT,
                "maximum": LIMIT - 1,
            }
    addition = {
        "type": "object",
        "required": [USER_ID],
        "additionalProperties": False,
        "properties": properties,
    }
    counts = {name: {"type": "integer", "minimum": 0} for name in OUTCOMES}
    answer = {"type": "object", "required": [*OUTCOMES], "properties": counts}
    return _operation(addition, SEVERAL, limits, {JSON: {"schema": answer}}, "what became of them")


def deletion_operation() -> dict[str, Any]:
    """The "extra" and "responses" of the route that deletes a user's behaviours."""
    count = {"type": "integer", "minimum": 0}
    answer = {"type": "object", "required": [DELETED], "properties": {DELETED: count}}
    responses: dict[int | str, Any] = {
        200: {"description": "how many were kept here", "content": {JSON: {"schema": answer}}}
    }
    for status in (422, 503):
        responses[status] = {"description": ERRORS[status], "content": {JSON: {"schema": ERROR}}}
    user = {"name": USER_ID, "in": "path", "required": True, "schema": INT64}
    return {"extra": {"parameters": [user]}, "responses": responses}


def _operation(
    one: dict[str, Any], several: str, limits: Limits, answer: dict[str, Any], said: str
) -> dict[str, Any]:
    """Of a body that is one object, or a list of them by the name ``several``, or Arrow."""
    items = {"type": "array", "minItems": 1, "maxItems": limits.requests, "items": one}
    listed = {
        "type": "object",
        "required": [several],
        "additionalProperties": False,
        "properties": {several: items},
    }
    body = {JSON: {"schema": {"oneOf": [one, listed]}}, **ARROW_BODY}
    responses: dict[int | str, Any] = {200: {"description": said, "content": answer}}
    for status, why in ERRORS.items():
        responses[status] = {"description": why, "content": {JSON: {"schema": ERROR}}}
    return {
        "extra": {"requestBody": {"required": True, "content": body}},
        "responses": responses,
    }


def request_schema(columns: RequestColumns, limits: Limits) -> dict[str, Any]:
    """One request as JSON: what is not named is refused."""
    properties = {}
    for name, kind in columns_of(columns).items():
        most = limits.candidates if name.startswith(OF_CANDIDATES) else limits.behaviours
        is_nullable = name not in columns.required
        properties[name] = _kind(kind, most, is_nullable, *_feature(columns, name))
    named = {"type": "string", "minLength": 1, "maxLength": LONGEST_ID}
    properties[REQUEST_ID] = {"anyOf": [named, {"type": "null"}]}
    properties["candidate_item_ids"]["minItems"] = 1
    return {
        "type": "object",
        "required": [n for n in columns.required if n not in of_behaviours(columns)],
        "additionalProperties": False,
        "properties": properties,
    }


def _feature(columns: RequestColumns, name: str) -> tuple[bool, bool]:
    """Whether a column is a feature, and whether its lists may hold nulls: bags may not."""
    return name in columns.all, name in columns.all and name not in columns.bags


def _kind(
    kind: pa.DataType, most: int, is_nullable: bool, is_feature: bool, holds_nulls: bool = False
) -> dict[str, Any]:
    if pa.types.is_list(kind):
        each = _kind(kind.value_type, 0, holds_nulls, is_feature)
        found: dict[str, Any] = {"type": "array", "maxItems": most, "items": each}
    elif pa.types.is_integer(kind):
        found = {"anyOf": [INT64, {"type": "boolean"}]} if is_feature else dict(INT64)
    elif pa.types.is_floating(kind):
        found = {"type": "number"}
    elif pa.types.is_boolean(kind):
        found = {"type": "boolean"}
    else:
        found = {"type": "string"}
    return {"anyOf": [found, {"type": "null"}]} if is_nullable else found
