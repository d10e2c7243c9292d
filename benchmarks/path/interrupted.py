"""A sensitivity pass over MiniLM that can be killed: notes what it begins and ends.

Run as `python -m benchmarks.path.interrupted SENTENCES CACHE JOURNAL TABLE`.
"""

import sys
from pathlib import Path

from benchmarks.killed import noting
from benchmarks.path import minilm
from mpsearch.core.cache import Cache
from mpsearch.core.files import save_table
from mpsearch.execution import observe_ranges
from mpsearch.sensitivity import METRICS
from mpsearch.tasks import TASKS, read_data


def main() -> None:
    """Measure and save the table."""
    count, cache_folder, journal, table = sys.argv[1:]
    cache = Cache(folder=Path(cache_folder))
    model, graph = minilm.loaded(), minilm.traced()
    data = read_data(
        minilm.text(small=False).calibration[: int(count)],
        input_names=graph.input_names,
        batch_size=16,
        folder=cache.folder / "data",
        tokenizer=model.tokenizer_file,
    )
    quantizers = observe_ranges(graph, data, cache=cache)
    with noting(Path(journal)):
        found = METRICS["output_error"].measure(
            graph,
            task=TASKS["embedding"],
            data=data,
            formats=("w8a8", "w4g128", "w4"),
            quantizers=quantizers,
            cache=cache,
        )
    save_table(found, Path(table))


if __name__ == "__main__":
    main()
