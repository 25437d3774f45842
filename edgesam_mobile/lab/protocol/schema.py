"""The JSON schema of the harness protocol's messages, for harnesses that are not this program.

``python -m edgesam_mobile.lab.protocol.schema`` prints what ``docs/protocol.schema.json`` holds.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from edgesam_mobile.lab.protocol.events import AnyEvent
from edgesam_mobile.lab.protocol.fields import PROTOCOL
from edgesam_mobile.lab.protocol.requests import AnyRequest


def schema_text() -> str:
    """The schema as the committed file has it: one message, an event or a request."""
    adapters: dict[str, TypeAdapter[Any]] = {"event": TypeAdapter(AnyEvent), "request": TypeAdapter(AnyRequest)}
    parts, shared = TypeAdapter.json_schemas(
        [(name, "validation", adapter) for name, adapter in adapters.items()], by_alias=True
    )
    schema = {
        "$schema": GenerateJsonSchema.schema_dialect,
        "title": PROTOCOL,
        "anyOf": [{"$ref": f"#/$defs/{name}"} for name in adapters],
        "$defs": {**{name: parts[name, "validation"] for name in adapters}, **shared["$defs"]},
    }
    return json.dumps(schema, indent=2) + "\n"


if __name__ == "__main__":
    sys.stdout.write(schema_text())
