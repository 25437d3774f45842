"""What worker processes have in common."""

from __future__ import annotations

import os
from typing import TextIO


def private_stdout() -> TextIO:
    """Keep the original standard output for answers and send everything else printed to standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return answers
