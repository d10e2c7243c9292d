"""The bars of `python -m benchmarks formats`."""

from collections.abc import Iterator
from typing import Final

from benchmarks.bar import Bar
from benchmarks.formats.clipping import KINDS, lost
from benchmarks.formats.inputs import range_losses
from benchmarks.formats.targets import TARGETS
from benchmarks.zoo.place import is_present

_MODELS: Final = ("cifar10_resnet20", "minilm_l6_v2")
_ERROR, _WEIGHT, _SMOOTHED = TARGETS


def run(*, small: bool) -> Iterator[Bar]:
    """Yield a pair of bars per model and width; one model at two bits where small."""
    if not is_present():
        for name, target in TARGETS.items():
            yield _bar(name, None, extra={"why": "the zoo is not here"}, passed=not target.at_most)
        return
    by_ranges = range_losses(small=small)
    ratio = by_ranges["smoothed"]["output error"] / by_ranges["mse"]["output error"]
    yield _bar(_SMOOTHED, ratio, extra={"model": "minilm_l6_v2", **by_ranges})
    for model in _MODELS[:1] if small else _MODELS:
        for bits in (2,) if small else (4, 3, 2):
            found = lost(model, bits=bits, small=small)
            plain, clipped = found[""], found["-mse"]
            extra = {
                f"w{bits}{kind}": {"output error": found[kind].output, **found[kind].quality}
                for kind in KINDS
            }
            yield _bar(_ERROR, clipped.output / plain.output, extra={"model": model, **extra})
            worst = max(
                clipped.weights[layer] / error for layer, error in plain.weights.items() if error
            )
            total = sum(clipped.weights.values()) / sum(plain.weights.values())
            yield _bar(_WEIGHT, worst, extra={"model": model, "bits": bits, "all layers": total})


def _bar(
    name: str, value: float | None, *, extra: dict[str, object], passed: bool | None = None
) -> Bar:
    target = TARGETS[name]
    met = value is not None and target.is_met(value)
    return Bar(
        bar=name,
        value=value,
        unit=target.unit,
        target=target.text,
        passed=met if passed is None else passed,
        extra=extra,
    )
