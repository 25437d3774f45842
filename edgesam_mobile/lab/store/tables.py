"""The tables, as the newest version has them. The migrations make them; a test holds both against each other."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    TypeDecorator,
)
from sqlalchemy.engine import Dialect


class Json(TypeDecorator[Any]):
    """JSON as text: the same in both databases, and what text cannot hold (NUL, half a surrogate) is escaped."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        # Not a number is not JSON either.
        return None if value is None else json.dumps(value, separators=(",", ":"), allow_nan=False)

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        return None if value is None else json.loads(value)


metadata = MetaData()

# owner_*: the process that measures; seen: seconds since 1970 when it last wrote. All null where it was imported.
runs = Table(
    "runs",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("created", Text, nullable=False, index=True),
    Column("status", String(16), nullable=False),
    Column("model", Text, nullable=False),
    Column("weights_sha256", Text, nullable=False),
    Column("trained", Boolean, nullable=False),
    Column("package_sha256", Text, nullable=False),
    Column("settings", Json, nullable=False),
    Column("tools", Json, nullable=False),
    Column("owner_host", Text),
    Column("owner_pid", BigInteger),
    Column("owner_started", Float(53)),
    Column("seen", BigInteger),
)

tags = Table(
    "tags",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("run_id", String(32), ForeignKey("runs.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("position", Integer, nullable=False),
)

# number: short, because every sample repeats it, and in order of arrival.
launches = Table(
    "launches",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("id", String(64), nullable=False, unique=True),
    Column("run_id", String(32), ForeignKey("runs.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("round", Integer, nullable=False),
    Column("status", String(16), nullable=False),
    Column("started", Text, nullable=False),
    Column("ended", Text, nullable=False),
    Column("error", Text),
    Column("case_id", Text, nullable=False, index=True),
    Column("format", Text, nullable=False),
    Column("precision", Text, nullable=False),
    Column("runtime", Text, nullable=False),
    Column("delegate", Text),
    Column("threads", Integer),
    Column("sha256", Json, nullable=False),
    Column("bytes", BigInteger),
    Column("accuracy", Json, nullable=False),
    Column("reference", Json, nullable=False, server_default="{}"),
    Column("device_key", Text, nullable=False),
    Column("device_kind", String(16), nullable=False),
    Column("device_info", Json, nullable=False),
    Column("hello", Json, nullable=False),
    Column("check", Json),
    Column("result", Json),
)

samples = Table(
    "samples",
    metadata,
    Column("launch", Integer, ForeignKey("launches.number", ondelete="CASCADE"), nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("stage", Text, nullable=False),
    Column("round", BigInteger, nullable=False),
    Column("ns", BigInteger, nullable=False),
    Column("at_ns", BigInteger, nullable=False),
    Column("cpu_ns", BigInteger),
    PrimaryKeyConstraint("launch", "seq"),
    sqlite_with_rowid=False,
)

states = Table(
    "states",
    metadata,
    Column("launch", Integer, ForeignKey("launches.number", ondelete="CASCADE"), nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("at_ns", BigInteger, nullable=False),
    Column("body", Json, nullable=False),
    PrimaryKeyConstraint("launch", "seq"),
    sqlite_with_rowid=False,
)
