"""The first version."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "1"
down_revision = None


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "runs",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("created", sa.Text, nullable=False, index=True),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("weights_sha256", sa.Text, nullable=False),
        sa.Column("trained", sa.Boolean, nullable=False),
        sa.Column("package_sha256", sa.Text, nullable=False),
        sa.Column("settings", sa.Text, nullable=False),
        sa.Column("tools", sa.Text, nullable=False),
        sa.Column("owner_host", sa.Text),
        sa.Column("owner_pid", sa.BigInteger),
        sa.Column("owner_started", sa.Float(53)),
        sa.Column("seen", sa.BigInteger),
    )
    op.create_table(
        "tags",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("run_id", sa.String(32), sa.ForeignKey("runs.id", ondelete="CASCADE"), nullable=False, index=True),
        sa.Column("position", sa.Integer, nullable=False),
    )
    op.create_table(
        "launches",
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("id", sa.String(64), nullable=False, unique=True),
        sa.Column("run_id", sa.String(32), sa.ForeignKey("runs.id", ondelete="CASCADE"), nullable=False, index=True),
        sa.Column("round", sa.Integer, nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("started", sa.Text, nullable=False),
        sa.Column("ended", sa.Text, nullable=False),
        sa.Column("error", sa.Text),
        sa.Column("case_id", sa.Text, nullable=False, index=True),
        sa.Column("format", sa.Text, nullable=False),
        sa.Column("precision", sa.Text, nullable=False),
        sa.Column("runtime", sa.Text, nullable=False),
        sa.Column("delegate", sa.Text),
        sa.Column("threads", sa.Integer),
        sa.Column("sha256", sa.Text, nullable=False),
        sa.Column("bytes", sa.BigInteger),
        sa.Column("accuracy", sa.Text, nullable=False),
        sa.Column("device_key", sa.Text, nullable=False),
        sa.Column("device_kind", sa.String(16), nullable=False),
        sa.Column("device_info", sa.Text, nullable=False),
        sa.Column("hello", sa.Text, nullable=False),
        sa.Column("check", sa.Text),
        sa.Column("result", sa.Text),
    )
    op.create_table(
        "samples",
        sa.Column("launch", sa.Integer, sa.ForeignKey("launches.number", ondelete="CASCADE"), nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("stage", sa.Text, nullable=False),
        sa.Column("round", sa.BigInteger, nullable=False),
        sa.Column("ns", sa.BigInteger, nullable=False),
        sa.Column("at_ns", sa.BigInteger, nullable=False),
        sa.Column("cpu_ns", sa.BigInteger),
        sa.PrimaryKeyConstraint("launch", "seq"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "states",
        sa.Column("launch", sa.Integer, sa.ForeignKey("launches.number", ondelete="CASCADE"), nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("at_ns", sa.BigInteger, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("launch", "seq"),
        sqlite_with_rowid=False,
    )
