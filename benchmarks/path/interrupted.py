"""A sensitivity pass that can be killed: writes a journal of what it begins and ends.

Run as `python -m benchmarks.path.interrupted CACHE JOURNAL TABLE SENTENCES`.
"""

import sys
from pathlib import Path
from unittest.mock import patch

from benchmarks.path import minilm
from mpsearch.core.cache import Cache
from mpsearch.core.files import save_table
from mpsearch.execution import observe_ranges
from mpsearch.sensitivity import METRICS
from mpsearch.tasks import TASKS, read_data

_KIND = "output_error"


def main() -> None:
    """Measure and save the table; every lookup that misses begins a layer, every put ends one."""
    cache_folder, journal, table, count = sys.argv[1:]
    cache = Cache(folder=Path(cache_folder))
    get, put = Cache.get_bytes, Cache.put_bytes

    def noted_get(self: Cache, kind: str, key: str) -> bytes | None:  # noqa: PLR0917  # as what it stands for
        found = get(self, kind, key)
        if kind == _KIND and found is None:
            _note(Path(journal), f"begin {key}")
        return found

    def noted_put(  # noqa: PLR0917  # as what it stands for
        self: Cache, kind: str, key: str, *, content: bytes
    ) -> None:
        put(self, kind, key, content=content)
        if kind == _KIND:
            _note(Path(journal), f"end {key}")

    model, graph = minilm.loaded(), minilm.traced()
    data = read_data(
        minilm.text(small=False).calibration[: int(count)],
        input_names=graph.input_names,
        batch_size=16,
        folder=cache.folder / "data",
        tokenizer=model.tokenizer_file,
    )
    quantizers = observe_ranges(graph, data, cache=cache)
    with (
        patch.object(Cache, "get_bytes", noted_get),
        patch.object(Cache, "put_bytes", noted_put),
    ):
        found = METRICS[_KIND].measure(
            graph,
            task=TASKS["embedding"],
            data=data,
            formats=("w8a8", "w4g128", "w4"),
            quantizers=quantizers,
            cache=cache,
        )
    save_table(found, Path(table))


def _note(journal: Path, line: str) -> None:
    with journal.open("a") as file:
        file.write(line + "\n")


if __name__ == "__main__":
    main()
