"""What the service has to reach."""

from benchmarks.bar import Target

TARGETS: dict[str, Target] = {
    "list page of 20,000 jobs, p99": Target(unit="ms", at_most=30),
    "start-up with 20,000 jobs": Target(unit="s", at_most=5),
    # Both at once, the load generator on the same two cores.
    "POST at 100 requests/s, p99": Target(unit="ms", at_most=50),
    "GET at 100 requests/s, p99": Target(unit="ms", at_most=20),
    "re-solve of 560 layers at 8 requests/s, p99": Target(unit="ms", at_most=250),
    "streams that got every event": Target(unit="share", at_least=1),
    "memory of the server with its streams": Target(unit="MB", at_most=1000),
    "memory that an upload of 500 MB takes": Target(unit="MB", at_most=64),
    "jobs that ended well after kill -9": Target(unit="share", at_least=1),
    "tables bit-identical after kill -9": Target(unit="share", at_least=1),
    # The one that was in flight.
    "layers measured twice after kill -9": Target(unit="layers", at_most=1),
    # A file under its digest, or what an upload left behind.
    "half uploads seen after kill -9": Target(unit="files", at_most=0),
    "jobs lost on a full disk": Target(unit="jobs", at_most=0),
    "tables that differ after a full disk": Target(unit="tables", at_most=0),
    "answers on a full disk that do not say so": Target(unit="answers", at_most=0),
    "answers undocumented or faulty": Target(unit="findings", at_most=0),
    "layers of the sandbox that hold": Target(unit="layers", at_least=3),
}
