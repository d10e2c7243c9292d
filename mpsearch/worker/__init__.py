"""Does the work of jobs: DBOS takes them off the queue, a child process runs each.

Started by name (`python -m mpsearch.worker`), never imported by the API.
"""
