"""What alembic runs to migrate: on the connection that :mod:`edgesam_mobile.lab.store.migrate` holds, inside its
transaction, so that a migration that fails leaves the store as it was.
"""

from __future__ import annotations

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    version_table=context.config.attributes["version_table"],
    transactional_ddl=True,
)
context.run_migrations()
