"""How much of L x F whole passes the exact sensitivity pass runs, in multiply-accumulates."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.bar import Bar, judged
from benchmarks.path import minilm
from benchmarks.path.targets import TARGETS
from mpsearch.execution import observe_ranges
from mpsearch.sensitivity import METRICS, Work
from mpsearch.tasks import TASKS, read_data

_BAR = "multiply-accumulates run with prefix reuse"
_FORMATS = ("w8a8", "w8", "w4g128", "w4")


def bars(*, small: bool) -> Iterator[Bar]:
    """Measure every layer of MiniLM in every format, once, and count."""
    model = minilm.loaded()
    graph = minilm.traced()
    count = 8 if small else 64
    with TemporaryDirectory() as folder:
        data = read_data(
            minilm.text(small=False).calibration[:count],
            input_names=graph.input_names,
            batch_size=32,
            folder=Path(folder),
            tokenizer=model.tokenizer_file,
        )
        found: list[Work] = []
        METRICS["output_error"].measure(
            graph,
            task=TASKS["embedding"],
            data=data,
            formats=_FORMATS,
            quantizers=observe_ranges(graph, data),
            report=found.append,
        )
    (work,) = found
    yield judged(
        _BAR,
        [100 * work.share],
        target=TARGETS[_BAR],
        extra={"pairs": work.measured_pairs, "sentences": count, "macs": work.macs},
    )
