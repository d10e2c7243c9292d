"""Does the service answer as it says: schemathesis over its whole OpenAPI document."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Final

# Rules that no schema can say (a digest is that of the body, a format exists, one of two fields)
# make the service refuse with 422 what the schema allows, so this one check does not apply.
_NOT_APPLICABLE: Final = "positive_data_acceptance"
# Who has no valid key is refused as such, whatever else is wrong with the request.
_REFUSALS: Final = (400, 401, 403, 404, 405, 409, 413, 422, 429)
# Many times what a quiet machine takes.
_MOST_SECONDS: Final = 240.0
_MOST_SECONDS_PER_EXAMPLE: Final = 60.0
_SHOWN: Final = 2000


def contract_failures(
    url: str,
    *,
    job_id: str,
    examples: int,
    folder: Path,
    seed: int = 1,
    key: str | None = None,
    document: str | None = None,
    is_whole: bool = True,
) -> tuple[list[str], int]:
    """Return what schemathesis found, one line each, and how many requests it made.

    `job_id` is that of a job that succeeded, so that requests reach what lies behind 404. Without
    a `key`, of a server that asks for one, the `document` must come from a file, and every answer
    is 401. Unless `is_whole`, requests are drawn at random only, not also one by one at the
    borders of what each schema allows.
    """
    settings = folder / "schemathesis.toml"
    settings.write_text(
        f'[parameters]\n"path.job_id" = "{job_id}"\n'
        # A body over the limit is refused as such, whatever else is wrong with it.
        f"[checks]\nnegative_data_rejection.expected-statuses = {list(_REFUSALS)}\n"
    )
    shown = [] if key is None else ["--header", f"Authorization: Bearer {key}"]
    where = [f"{url}/openapi.json"] if document is None else [document, f"--url={url}"]
    done = _ended(
        [
            *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(settings)),
            *("run", *where, *shown, f"--max-examples={examples}", f"--seed={seed}"),
            *("--continue-on-failure", "--no-color"),
            f"--phases=examples,{'coverage,' if is_whole else ''}fuzzing",
            f"--exclude-checks={_NOT_APPLICABLE}",
        ],
        folder=folder,
        seconds=_MOST_SECONDS + _MOST_SECONDS_PER_EXAMPLE * examples,
    )
    counted = re.search(r"(\d+) generated", done.stdout)
    if counted is None:
        raise RuntimeError(f"schemathesis made no request: {done.stdout[-_SHOWN:]} {done.stderr}")
    told = done.stdout.partition("FAILURES")[2].partition("WARNINGS")[0].splitlines()
    marks = ("___", "- ", "    Invalid component", "    curl", "[")
    lines = [line.strip(" _") for line in told if line.startswith(marks)]
    if done.returncode and not lines:
        lines = [f"schemathesis ended with {done.returncode}: {done.stdout[-500:]}"]
    return lines, int(counted[1])


def _ended(
    command: list[str], *, folder: Path, seconds: float
) -> "subprocess.CompletedProcess[str]":
    try:
        return subprocess.run(
            command, cwd=folder, capture_output=True, text=True, check=False, timeout=seconds
        )
    except subprocess.TimeoutExpired as error:
        said = (error.stdout or b"")[-_SHOWN:]
        raise TimeoutError(
            f"schemathesis has not ended after {seconds:.0f} s; it said {said!r}."
        ) from error
