"""What some tests need beside Python's packages, and `make tools` installs."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def skip_without(reason: str) -> NoReturn:
    """Skip a test whose tool is not here; fail it where all tools must be (``EDGESAM_TOOLS=required``)."""
    if os.environ.get("EDGESAM_TOOLS") == "required":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)
