"""PyTorch's mIoU beside an artefact's: a compressed one is judged by what it loses."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "2"
down_revision = "1"


def upgrade() -> None:
    """Add the column; launches from before say nothing."""
    op.add_column("launches", sa.Column("reference", sa.Text, nullable=False, server_default="{}"))
