"""Tenants, keys, owned uploads, numbered events, and an audit log that only grows."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

# Number the events that are there in the order in which they came.
_NUMBER_EVENTS = """
update job_events set version = (
    select count(*) from job_events as earlier
    where earlier.job_id = job_events.job_id and earlier.id <= job_events.id
)
"""
_NUMBER_JOBS = """
update jobs set
    version = (select count(*) from job_events where job_events.job_id = jobs.id),
    progress = (
        select data from job_events where job_events.job_id = jobs.id and kind = 'progress'
        order by job_events.id desc limit 1
    )
"""
_APPEND_ONLY = {
    "sqlite": (
        """create trigger audit_no_update before update on audit
        begin select raise(abort, 'the audit log only grows'); end""",
        """create trigger audit_no_delete before delete on audit
        begin select raise(abort, 'the audit log only grows'); end""",
    ),
    "postgresql": (
        """create function audit_only_grows() returns trigger language plpgsql as
        $$ begin raise exception 'the audit log only grows'; end $$""",
        """create trigger audit_only_grows before update or delete or truncate on audit
        for each statement execute function audit_only_grows()""",
    ),
}


def upgrade() -> None:
    """Add them; what is there belongs to the tenant `local`."""
    for column in (
        sa.Column("tenant", sa.String(64), nullable=False, server_default="local"),
        sa.Column("queue", sa.String(64), nullable=False, server_default="dev:cpu"),
        sa.Column("progress", sa.JSON),
        sa.Column("version", sa.Integer, nullable=False, server_default="0"),
        sa.Column("owner", sa.String(64)),
    ):
        op.add_column("jobs", column)
    op.create_index("jobs_of_a_tenant", "jobs", ["tenant", "id"])
    op.create_index("jobs_of_a_tenant_by_state", "jobs", ["tenant", "state"])
    _number_events()
    _add_tables()
    for statement in _APPEND_ONLY[op.get_bind().dialect.name]:
        op.execute(statement)
    op.drop_table("schema_version")


def downgrade() -> None:
    """Go back; keys, owners of uploads and the audit log are lost."""
    op.create_table("schema_version", sa.Column("version", sa.Integer, primary_key=True))
    op.execute("insert into schema_version (version) values (1)")
    for name in ("audit", "idempotency", "blobs", "keys", "workers"):
        op.drop_table(name)
    if op.get_bind().dialect.name == "postgresql":
        op.execute("drop function audit_only_grows")
    op.drop_index("job_events_by_version", "job_events")
    op.drop_column("job_events", "version")
    op.create_index("job_events_of_a_job", "job_events", ["job_id", "id"])
    op.drop_index("jobs_of_a_tenant", "jobs")
    op.drop_index("jobs_of_a_tenant_by_state", "jobs")
    for name in ("tenant", "queue", "progress", "version", "owner"):
        op.drop_column("jobs", name)


def _number_events() -> None:
    version = sa.Column("version", sa.Integer, nullable=False, server_default="0")
    op.add_column("job_events", version)
    op.execute(_NUMBER_EVENTS)
    op.execute(_NUMBER_JOBS)
    op.drop_index("job_events_of_a_job", "job_events")
    op.create_index("job_events_by_version", "job_events", ["job_id", "version"], unique=True)


def _add_tables() -> None:
    op.create_table(
        "workers",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("queue", sa.String(64), nullable=False),
        sa.Column("seen", sa.Float, nullable=False),
    )
    op.create_table(
        "keys",
        sa.Column("id", sa.String(16), primary_key=True),
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("note", sa.String(200), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("scopes", sa.JSON, nullable=False),
        sa.Column("created", sa.Float, nullable=False),
        sa.Column("expires", sa.Float),
        sa.Column("revoked", sa.Float),
    )
    op.create_table(
        "blobs",
        sa.Column("tenant", sa.String(64), primary_key=True),
        sa.Column("name", sa.String(80), primary_key=True),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("created", sa.Float, nullable=False),
    )
    op.create_table(
        "idempotency",
        sa.Column("tenant", sa.String(64), primary_key=True),
        sa.Column("key", sa.String(255), primary_key=True),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("job_id", sa.String(36), sa.ForeignKey("jobs.id"), nullable=False),
        sa.Column("created", sa.Float, nullable=False),
    )
    op.create_table(
        "audit",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("created", sa.Float, nullable=False),
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("actor", sa.String(64), nullable=False),
        sa.Column("action", sa.String(40), nullable=False),
        sa.Column("target", sa.String(200), nullable=False),
        sa.Column("detail", sa.JSON, nullable=False),
    )
