"""The JSON schema of the manifest, for readers that are not this program.

``python -m edgesam_mobile.package.schema`` prints what ``docs/manifest.schema.json`` holds.
"""

from __future__ import annotations

import json
import sys

from pydantic.json_schema import GenerateJsonSchema

from edgesam_mobile.package.manifest import Manifest


def schema_text() -> str:
    """The schema as the committed file has it, derived from :class:`Manifest`."""
    schema = {"$schema": GenerateJsonSchema.schema_dialect, **Manifest.model_json_schema(by_alias=True)}
    return json.dumps(schema, indent=2) + "\n"


if __name__ == "__main__":
    sys.stdout.write(schema_text())
