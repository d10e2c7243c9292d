"""Changes of the tables, one file each, forward and back, for SQLite and Postgres."""
