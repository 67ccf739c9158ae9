"""OpenAPI descriptions for tests, of what the server does not describe itself: the native wire as
docs/native-api.md has it, word by word, and the paths of the management API."""

TEXT = {"type": "string"}
ERROR = {
    "type": "object",
    "required": ["code", "detail", "trace_id"],
    "properties": {"code": TEXT, "detail": TEXT, "trace_id": TEXT},
}


def _body(schema):
    return {"required": True, "content": {"application/json": {"schema": schema}}}


def _responses(success, errors):
    failed = {"description": "refused", "content": {"application/json": {"schema": ERROR}}}
    answers = {status: {"description": "done", **content} for status, content in success.items()}
    return {**answers, **{str(status): failed for status in errors}}


def _document(title, paths):
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": "1"},
        "security": [{"bearer": []}],
        "components": {"securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}}},
        "paths": paths,
    }


def native(outcomes):
    """`POST /api/v1/verifications`; `outcomes` are all that can be answered."""
    question = {
        "type": "object",
        "required": ["name", "bank_card", "id_card", "phone", "purpose", "consent"],
        "additionalProperties": False,
        "properties": {
            "action": {"enum": ["bankcard-4e", None]},
            "name": TEXT,
            "bank_card": TEXT,
            "id_card": TEXT,
            "phone": TEXT,
            "purpose": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$"},
            "consent": {"type": "string", "pattern": "^[!-~]{1,128}$"},
        },
    }
    nullable = {"type": ["string", "null"]}
    answer = {
        "type": "object",
        "required": [
            "id", "outcome", "class", "name_match", "policy", "action", "attempts_left", "purpose", "consent",
            "charged", "balance", "answered_at", "replayed", "reused", "receipt", "receipt_opening",
        ],
        "additionalProperties": False,
        "properties": {
            "id": {"type": "string", "format": "uuid"},
            "outcome": {"enum": outcomes},
            "class": {"enum": ["pass", "mismatch", "unverifiable", "rejected_input", "retryable"]},
            "name_match": {"type": ["object", "null"]},
            "policy": TEXT,
            "action": {"const": "bankcard-4e"},
            "attempts_left": {"type": ["integer", "null"]},
            "purpose": TEXT,
            "consent": TEXT,
            "charged": TEXT,
            "balance": nullable,
            "answered_at": {"type": "string", "format": "date-time"},
            "replayed": {"type": "boolean"},
            "reused": {"type": "boolean"},
            "receipt": {"type": "string", "pattern": r"^[\w-]+\.[\w-]+\.[\w-]+$"},
            "receipt_opening": TEXT,
            "reasons": {"type": "array"},
        },
    }
    answered = {"200": {"content": {"application/json": {"schema": answer}}}}
    operation = {
        "operationId": "verify",
        "requestBody": _body(question),
        "responses": _responses(answered, [400, 401, 403, 404, 405, 413, 429, 500]),
    }
    return _document("native wire", {"/api/v1/verifications": {"post": operation}})


ANYTHING = {"type": ["string", "integer", "number", "boolean", "null", "array", "object"]}

# Path, methods, members of a body, parameters of a query.
MANAGEMENT = [
    ("config", "get", "", ""),
    ("search", "get", "", "query limit"),
    ("services", "get", "", "limit offset search"),
    ("services/{id}", "get", "", ""),
    ("services/{id}/apis", "get", "", ""),
    ("apis", "get", "", "limit offset service_id"),
    ("apis/{id}", "get", "", ""),
    ("documents", "get", "", "limit offset"),
    ("documents/{id}", "get", "", ""),
    ("documents/{id}/openapi.json", "get", "", ""),
    ("platform-tokens", "get post", "name expires_at", "limit offset"),
    ("platform-tokens/me", "get", "", ""),
    ("platform-tokens/{id}", "get delete", "", ""),
    ("applications", "get post", "service_id api_id name type", "limit offset service_id"),
    ("applications/{id}", "get", "", ""),
    ("applications/{id}/update-disabled", "post", "disabled", ""),
    ("applications/{id}/sponsor", "post", "amount", ""),
    ("credentials", "get post", "application_id name type limited_amount expired_at", "limit offset application_id"),
    ("credentials/{id}", "get patch put delete", "name limited_amount disabled", ""),
    ("credentials/{id}/rotate", "post", "overlap", ""),
    ("usage/apis", "get", "", "limit offset created_at_min created_at_max application_id"),
    ("usage/apis/aggregate", "get", "", "created_at_min created_at_max"),
    ("usage/apis/status-codes", "get", "", ""),
    ("usage/apis/export", "get", "", "created_at_min created_at_max"),
    ("usage/apis/{id}", "get", "", ""),
    ("packages", "get post", "name amount price service_id", "limit offset"),
    ("packages/{id}", "delete", "", ""),
    ("orders", "get post", "package_id application_id", "limit offset"),
    ("orders/summary", "get", "", ""),
    ("orders/export", "get", "", ""),
    ("orders/{id}", "get", "", ""),
    ("orders/{id}/payment-options", "get", "", ""),
    ("orders/{id}/pay", "post", "pay_way", ""),
    ("orders/{id}/refresh", "post", "", ""),
    ("orders/{id}/finish", "post", "", ""),
    ("orders/{id}/refund", "post", "", ""),
    ("recharge-cards", "get post", "amount count expires_at", "limit offset"),
    ("recharge-cards/redeem", "post", "code application_id", ""),
    ("invitations", "post", "name free", ""),
]


def management():
    """Every path of the management API, with members of its own names and of any type: nothing that is
    sent may be a fault of the server, and every refusal has the one form."""
    paths = {}
    for path, methods, members, query in MANAGEMENT:
        item = paths.setdefault(f"/api/v1/{path}", {})
        where = [{"name": name, "in": "query", "schema": TEXT} for name in query.split()]
        if "{id}" in path:
            where.append({"name": "id", "in": "path", "required": True, "schema": {"type": "string", "pattern": "^[!-~]+$"}})
        for method in methods.split():
            json = {"content": {"application/json": {}, "text/csv": {}}}
            refused = [400, 401, 403, 404, 405, 409, 422, 429]
            operation = {
                "operationId": f"{method} {path}",
                "parameters": where,
                "responses": _responses({"200": json, "201": json, "204": {}}, refused),
            }
            if method in ("post", "put", "patch"):
                properties = {name: ANYTHING for name in members.split()}
                operation["requestBody"] = _body({"type": "object", "properties": properties})
            item[method] = operation
    return _document("management API", paths)
