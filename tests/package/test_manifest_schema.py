"""The published schema is the reader's own, and what it says agrees with what the reader does."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from manifest_samples import manifests, sample

from edgesam_mobile.package.manifest import Manifest
from edgesam_mobile.package.schema import schema_text

COMMITTED = Path(__file__).parents[2] / "docs" / "manifest.schema.json"
VALIDATOR = jsonschema.Draft202012Validator(json.loads(COMMITTED.read_text(encoding="utf-8")))


def test_the_committed_schema_is_the_generated_one() -> None:
    if COMMITTED.read_text(encoding="utf-8") != schema_text():
        pytest.fail("docs/manifest.schema.json is out of date: run `make schema`, and commit it", pytrace=False)


def test_the_schema_is_one_and_a_sample_validates() -> None:
    VALIDATOR.check_schema(VALIDATOR.schema)
    VALIDATOR.validate(sample())


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(manifests)
def test_whatever_the_program_writes_validates(manifest: Manifest) -> None:
    VALIDATOR.validate(json.loads(manifest.model_dump_json(by_alias=True)))


@pytest.mark.parametrize("field", ["weights", "artifacts", "picture", "tools"])
def test_a_manifest_without_a_required_field_does_not_validate(field: str) -> None:
    whole = sample()
    del whole[field]
    with pytest.raises(jsonschema.ValidationError, match=f"'{field}' is a required property"):
        VALIDATOR.validate(whole)
