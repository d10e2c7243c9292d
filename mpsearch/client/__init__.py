"""Ask a service for searches from Python: upload, post, follow, fetch."""

from mpsearch.client.client import Client, JobDict

__all__ = ["Client", "JobDict"]
