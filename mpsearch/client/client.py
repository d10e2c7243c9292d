"""A client of the service: what its routes do, as functions."""

import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias, final

import httpx2

from mpsearch.client.refusals import problem_in, unreachable
from mpsearch.core.files import write_atomically
from mpsearch.errors import DataError, ModelError

JobDict: TypeAlias = dict[str, Any]
DEFAULT_URL: Final = "http://127.0.0.1:8765"
_PIECE: Final = 2**20
_MODEL_FILES: Final = (".json", ".safetensors")
_NAME: Final = "jobs/"
_MOST_TRIES: Final = 8
_FIRST_PAUSE_SECONDS: Final = 0.25


@final
class Client:
    """A connection to a service, with a key where it has keys.

    Args:
        url: Where it is.
        key: `mps_...`, None for a service on this machine without keys.
        transport: How requests are sent, if not over the network.

    Every method raises ServiceError where the service refuses or cannot be reached.

    Example:
        >>> with Client() as client:  # doctest: +SKIP
        ...     model = client.upload_model(Path("minilm"))
        ...     data = client.upload_data(Path("train.jsonl"))
        ...     budgets = {"weight_bytes": "25%"}
        ...     job = client.submit({"model": model, "calibration": data, "budgets": budgets})
        ...     job = client.wait(job["name"])
        ...     client.fetch(job["name"], "plan", to=Path("plan.json"))
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        key: str | None = None,
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        self._url = url
        # Reading has no limit of its own: a stream is silent while nothing happens.
        timeout = httpx2.Timeout(60.0, read=120.0)
        self._http = httpx2.Client(
            base_url=url, headers=headers, timeout=timeout, transport=transport
        )

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def submit(self, request: Mapping[str, Any], *, once: str | None = None) -> JobDict:
        """Post a job; repeated with the same `once`, it is posted once."""
        headers = {} if once is None else {"Idempotency-Key": once}
        return self._json("POST", "/v1/jobs", json=dict(request), headers=headers)

    def validate(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Check a request and estimate its time and memory; nothing is kept."""
        return self._json("POST", "/v1/jobs:validate", json=dict(request))

    def job(self, job: str) -> JobDict:
        """Return a job as it stands, by its id or name."""
        return self._json("GET", _path(job))

    def jobs(self, *, state: str | None = None) -> Iterator[JobDict]:
        """Yield every job, newest first."""
        query = {} if state is None else {"state": state}
        while True:
            page = self._json("GET", "/v1/jobs", params=query)
            yield from page["jobs"]
            if "next_page_token" not in page:
                return
            query = {"page_token": page["next_page_token"]}

    def cancel(self, job: str) -> JobDict:
        """End a job."""
        return self._json("POST", f"{_path(job)}:cancel")

    def delete(self, job: str) -> None:
        """Forget a job that has ended."""
        self._request("DELETE", _path(job))

    def events(self, job: str, *, after: int = 0) -> Iterator[dict[str, Any]]:
        """Yield what happens to a job until it has ended, each event once.

        A connection that breaks is made again and goes on where it was.
        """
        tries, is_over = 0, False
        while not is_over:
            try:
                for event in self._stream(job, after=after):
                    after, tries, is_over = event["id"], 0, event["last"]
                    yield event
                if tries == 0 and not is_over and self.job(job)["done"]:
                    return
            except httpx2.TransportError as error:
                if tries == _MOST_TRIES:
                    raise unreachable(self._url, error) from error
            if not is_over:
                time.sleep(_FIRST_PAUSE_SECONDS * 2**tries)
                tries += 1

    def wait(self, job: str) -> JobDict:
        """Return a job once it has ended, well or not."""
        for _ in self.events(job):
            pass
        return self.job(job)

    def fetch(self, job: str, what: str, *, to: Path) -> Path:
        """Write a result of a job that succeeded to a file: "plan", "model", "report", ..."""
        write_atomically(to, self._request("GET", f"{_path(job)}/{what}").content)
        return to

    def solve(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Solve tables, of a job or posted, under other budgets."""
        return self._json("POST", "/v1/plans:solve", json=dict(request))

    def devices(self) -> list[dict[str, Any]]:
        """Return what there is to measure on."""
        found: list[dict[str, Any]] = self._json("GET", "/v1/devices")["devices"]
        return found

    def upload(self, path: Path) -> str:
        """Send a file, unless the service has it; return its name."""
        with path.open("rb") as file:
            name = "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
        place = f"/v1/blobs/{name}"
        if self._sent("HEAD", place).status_code != httpx2.codes.OK:
            self._request("PUT", place, content=_pieces(path))
        return name

    def upload_model(self, path: Path) -> dict[str, Any]:
        """Send a model folder, or an ONNX file; return what a request calls it.

        Raises:
            ModelError: There is nothing to send.
        """
        if path.is_file():
            return {"files": {path.name: self.upload(path)}}
        parts = [part for part in sorted(path.rglob("*")) if part.suffix in _MODEL_FILES]
        if not parts:
            raise ModelError(
                f"Model {str(path)!r} holds nothing to send. Expected an ONNX file, or a folder "
                "with config.json and weights as .safetensors. Check the path."
            )
        return {"files": {part.relative_to(path).as_posix(): self.upload(part) for part in parts}}

    def upload_data(self, path: Path) -> dict[str, Any]:
        """Send samples; return what a request calls them.

        Raises:
            DataError: It is no `.npz` or `.jsonl` file.
        """
        if path.suffix not in {".npz", ".jsonl"} or not path.is_file():
            raise DataError(
                f"Data {str(path)!r} cannot be sent. Expected a .npz or .jsonl file. Check the "
                "path, or convert it."
            )
        return {"blob": self.upload(path), "format": path.suffix[1:]}

    def _stream(self, job: str, *, after: int) -> Iterator[dict[str, Any]]:
        headers = {"Last-Event-ID": str(after)}
        with self._http.stream("GET", f"{_path(job)}/events", headers=headers) as answer:
            if answer.is_error:
                answer.read()
                raise problem_in(answer)
            fields: dict[str, str] = {}
            for line in answer.iter_lines():
                name, _, value = line.partition(": ")
                if line and not line.startswith(":"):
                    fields[name] = value
                elif fields:
                    data = json.loads(fields["data"])
                    yield {**data, "id": int(fields["id"]), "kind": fields["event"]}
                    fields = {}

    def _json(self, method: str, path: str, **options: Any) -> dict[str, Any]:  # noqa: ANN401 - httpx2's own
        found: dict[str, Any] = self._request(method, path, **options).json()
        return found

    def _request(self, method: str, path: str, **options: Any) -> httpx2.Response:  # noqa: ANN401 - httpx2's own
        answer = self._sent(method, path, **options)
        if answer.is_error:
            raise problem_in(answer)
        return answer

    def _sent(self, method: str, path: str, **options: Any) -> httpx2.Response:  # noqa: ANN401 - httpx2's own
        try:
            return self._http.request(method, path, **options)
        except httpx2.TransportError as error:
            raise unreachable(self._url, error) from error


def _path(job: str) -> str:
    return f"/v1/jobs/{job.removeprefix(_NAME)}"


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            yield piece
