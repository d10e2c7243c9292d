"""Shards of jobs."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add their table."""
    op.create_table(
        "job_shards",
        sa.Column("job_id", sa.String(36), sa.ForeignKey("jobs.id"), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("layers", sa.JSON, nullable=False),
        sa.Column("done", sa.Integer, nullable=False),
        sa.Column("started", sa.Float),
        sa.Column("finished", sa.Float),
        sa.Column("error", sa.JSON),
        sa.Column("deaths", sa.Integer, nullable=False),
        sa.Column("furthest", sa.Integer, nullable=False),
    )


def downgrade() -> None:
    """Go back; jobs that were divided are measured again, by what the cache lacks."""
    op.drop_table("job_shards")
