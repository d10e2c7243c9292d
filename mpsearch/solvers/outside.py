"""Back ends in a process of their own, where a time limit is hard and a crash harms nobody."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np

from mpsearch.core.problem import Problem
from mpsearch.errors import SolverError
from mpsearch.solvers.proposal import Proposal

# Below this many choices and pairs of choices back ends keep
# their own limit closely enough, and starting a process would take longer than most answers.
_LARGE = 8192
# What a back end may be late, and then send its answer, before it is killed.
_MARGIN_SHARE, _GRACE_SECONDS = 0.05, 0.1
_LENGTH_BYTES = 8
_ARRAYS = (
    *("loss", "cost", "limit", "constant", "allowed"),
    *("edges", "edge_cost", "sharers", "share_cost", "cuts"),
)
_WORDS_OF_ERROR = 400


def is_large(problem: Problem) -> bool:
    """Return whether a back end should answer from another process."""
    pairs = 0 if problem.edge_cost is None else problem.edge_cost[:1].size
    return problem.loss.size + pairs > _LARGE


def asked(solver: str, problem: Problem, *, gap: float, deadline: float) -> Proposal:
    """Return the answer of a named back end in a child process; killed at the deadline.

    What it prints is dropped. A killed one proposes the last answer that it sent, and says so
    in a note.

    Raises:
        SolverError: The child crashed.
    """
    seconds = max(0.1, deadline - time.monotonic())
    until = time.time() + (1 - _MARGIN_SHARE) * seconds
    child = subprocess.Popen(
        [sys.executable, "-m", "mpsearch.solvers.child"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    notes: tuple[str, ...] = ()
    try:
        request = pack_problem(problem, solver=solver, gap=gap, until=until)
        left = max(0.0, deadline - time.monotonic()) + _GRACE_SECONDS
        output, errors = child.communicate(request, timeout=left)
    except subprocess.TimeoutExpired:
        _kill(child)
        output, errors = child.communicate()
        notes = (f"Solver {solver!r} was killed after {seconds:.1f} s.",)
    finally:
        _kill(child)
    answers = _frames(output)
    if notes:
        last = unpack_proposal(answers[-1]) if answers else Proposal()
        return replace(last, was_stopped=True, notes=notes)
    if child.returncode != 0 or not answers:
        words = errors.decode(errors="replace").strip()[-_WORDS_OF_ERROR:]
        raise SolverError(
            f"Solver {solver!r} ended with code {child.returncode}: {words or 'no message'}. "
            "Expected an answer. Use another solver."
        )
    return unpack_proposal(answers[-1])


def pack_problem(problem: Problem, *, solver: str, gap: float, until: float) -> bytes:
    """Return a problem and settings as bytes; `until` is in seconds of `time.time`."""
    present = {name: getattr(problem, name) for name in _ARRAYS}
    arrays = {name: array for name, array in present.items() if array is not None}
    return _pack(arrays, {"solver": solver, "gap": gap, "until": until})


def unpack_problem(data: bytes) -> tuple[Problem, dict[str, object]]:
    """Return what `pack_problem` packed."""
    arrays, facts = _unpack(data)
    problem = Problem(
        loss=arrays["loss"],
        cost=arrays["cost"],
        limit=arrays["limit"],
        constant=arrays.get("constant"),
        allowed=arrays.get("allowed"),
        edges=arrays.get("edges"),
        edge_cost=arrays.get("edge_cost"),
        sharers=arrays.get("sharers"),
        share_cost=arrays.get("share_cost"),
        cuts=arrays.get("cuts"),
    )
    return problem, facts


def pack_proposal(proposal: Proposal) -> bytes:
    """Return a proposal as bytes that say how long they are; several may follow each other."""
    present = {"choice": proposal.choice, "multipliers": proposal.multipliers}
    facts: dict[str, object] = {
        "bound": proposal.bound,
        "is_infeasible": proposal.is_infeasible,
        "was_stopped": proposal.was_stopped,
        "notes": proposal.notes,
    }
    data = _pack({name: array for name, array in present.items() if array is not None}, facts)
    return len(data).to_bytes(_LENGTH_BYTES, "big") + data


def unpack_proposal(data: bytes) -> Proposal:
    """Return what `pack_proposal` packed, without its length."""
    arrays, facts = _unpack(data)
    return Proposal(
        choice=arrays.get("choice"),
        multipliers=arrays.get("multipliers"),
        bound=float(str(facts["bound"])),
        is_infeasible=bool(facts["is_infeasible"]),
        was_stopped=bool(facts["was_stopped"]),
    )


def _pack(arrays: dict[str, np.ndarray], facts: dict[str, object]) -> bytes:
    buffer = io.BytesIO()
    header = np.frombuffer(json.dumps(facts).encode(), dtype=np.uint8)
    np.savez(buffer, allow_pickle=False, header=header, **arrays)
    return buffer.getvalue()


def _unpack(data: bytes) -> tuple[dict[str, np.ndarray], dict[str, object]]:
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files if name != "header"}
        facts: dict[str, object] = json.loads(file["header"].tobytes())
    return arrays, facts


def _frames(data: bytes) -> list[bytes]:
    """Return the complete messages of a stream, without their lengths."""
    frames = []
    while len(data) >= _LENGTH_BYTES:
        end = _LENGTH_BYTES + int.from_bytes(data[:_LENGTH_BYTES], "big")
        if len(data) < end:
            break
        frames.append(data[_LENGTH_BYTES:end])
        data = data[end:]
    return frames


def _kill(child: subprocess.Popen[bytes]) -> None:
    """Kill the child and what it started (CBC is a process of its own), by its id."""
    if child.poll() is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        if sys.platform == "win32":
            child.kill()
        else:
            os.killpg(child.pid, signal.SIGKILL)
