"""The exact pass over a ResNet-20, killed at random moments and resumed.

Run as `python -m benchmarks.sensitivity.kills MODEL IMAGES CACHE JOURNAL TABLE` to measure here.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import torch

from benchmarks.bar import Bar, judged
from benchmarks.killed import Trial, noting
from benchmarks.sensitivity.plans import FORMATS
from benchmarks.sensitivity.targets import TARGETS
from benchmarks.zoo.anywhere import case_named, made_up
from mpsearch.core.cache import Cache
from mpsearch.core.files import save_table
from mpsearch.sensitivity import METRICS
from mpsearch.tasks import TASKS, read_data
from mpsearch.tracing import trace_model

_MODEL: Final = "cifar10_resnet20"
_SMALL_MODEL: Final = "resnet8 of random weights"
_TWICE: Final = "entries measured twice after kill -9"
_SAME: Final = "resumed tables bit-identical"
_KILLS: Final = 20
_SMALL_KILLS: Final = 2
_IMAGES: Final = 64
_SMALL_IMAGES: Final = 16
_BATCH: Final = 16


def bars(*, small: bool) -> Iterator[Bar]:
    """Kill and start again, then let it end; compare with a run that nobody killed."""
    kills, images = (_SMALL_KILLS, _SMALL_IMAGES) if small else (_KILLS, _IMAGES)
    model = _SMALL_MODEL if small else _MODEL
    with TemporaryDirectory() as folder:
        command = (sys.executable, "-m", "benchmarks.sensitivity.kills", model, str(images))
        found = Trial(command=command, folder=Path(folder)).outcome(kills=kills)
    extra = {"kills": kills, "entries": found.entries, "twice in all": sum(found.twice)}
    yield judged(_TWICE, found.twice, target=TARGETS[_TWICE], statistic="max", extra=extra)
    yield judged(_SAME, [float(found.is_same)], target=TARGETS[_SAME], extra={"kills": kills})


def main() -> None:
    """Measure and save the table, noting each entry."""
    name, count, folder, journal, table = sys.argv[1:]
    torch.set_num_threads(1)
    case = made_up(name, blocks=1) if name == _SMALL_MODEL else case_named(name)
    images = torch.cat([batch["image"] for batch in case.parts(0).calibration])[: int(count)]
    assert isinstance(case.model, torch.nn.Module)
    data = read_data(
        [{"image": images[at : at + _BATCH]} for at in range(0, len(images), _BATCH)],
        input_names=("image",),
        batch_size=_BATCH,
        folder=Path(folder) / "data",
    )
    with noting(Path(journal)):
        found = METRICS["output_error"].measure(
            trace_model(case.model, {"image": images[:2]}),
            task=TASKS[case.task],
            data=data,
            formats=FORMATS,
            cache=Cache(folder=Path(folder)),
        )
    save_table(found, Path(table))


if __name__ == "__main__":
    main()
