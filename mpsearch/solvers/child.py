"""Answer one problem from standard input: `python -m mpsearch.solvers.child`."""

import os
import sys
import time

from mpsearch.solvers.cbc import Cbc
from mpsearch.solvers.highs import Highs
from mpsearch.solvers.outside import pack_proposal, unpack_problem
from mpsearch.solvers.proposal import Proposal


def main() -> None:
    """Read a packed problem, write packed proposals; whatever else is printed is dropped."""
    answer = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, sys.stdout.fileno())
    problem, facts = unpack_problem(sys.stdin.buffer.read())
    kinds = {kind.name: kind for kind in (Highs, Cbc)}
    solver = kinds[str(facts["solver"])](gap=float(str(facts["gap"])))
    deadline = time.monotonic() + float(str(facts["until"])) - time.time()

    def send(proposal: Proposal) -> None:
        answer.write(pack_proposal(proposal))
        answer.flush()

    send(solver.branch(problem, deadline=deadline, report=send))


if __name__ == "__main__":
    main()
