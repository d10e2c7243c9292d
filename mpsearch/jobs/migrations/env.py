"""What Alembic runs: every change in one transaction, on the connection that it is given."""

from alembic import context

from mpsearch.jobs.tables import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    transactional_ddl=True,  # SQLite can, too, once a transaction is open
)
with context.begin_transaction():
    context.run_migrations()
