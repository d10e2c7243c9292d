"""The bars that need data: speed at no loss, accuracy where it hurts, NNCF's accuracy control."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from benchmarks.bar import Bar, judged
from benchmarks.cost import control, hurting, speed
from benchmarks.cost.images import lite0_on_imagenet, resnet32_on_cifar
from benchmarks.cost.leanest import FASTEST, Leanest, Request
from benchmarks.cost.lite0 import is_installed
from benchmarks.cost.sentences import minilm_on_stsb
from benchmarks.cost.targets import LEAN_DROP, LEAN_SPEED, NEVER_SLOWER, TARGETS
from benchmarks.zoo.place import is_present
from mpsearch.workflow.effort import DEFAULT_EFFORT

FOLDER: Final = Path("bench-output") / "cost"
# Mean drops on test data that count as no loss: half a point, a fifth, .002 of Spearman.
NO_LOSS: Final = {"Lite0": 0.005, "ResNet-32": 0.002, "MiniLM": 0.002}
_SMALL_SHARE: Final = 10
_SMALL_EFFORT: Final = 0.1
_RANGES: Final = ("smoothed", "mse")  # of MiniLM, whose inputs have outliers
_LEAN_BOUND: Final = 0.005
_LEAN_BYTES: Final = {"weight_bytes": "20%"}


def bars(*, small: bool) -> Iterator[Bar]:
    """Yield all bars; the small form races ResNet-32 alone, on a tenth of its data.

    Where the models and data are not there, nothing is compared and that fails.
    """
    if not is_present():
        extra = {"reason": "no models and data beside the project"}
        yield judged(NEVER_SLOWER, [], target=TARGETS[NEVER_SLOWER], extra=extra)
        return
    yield from _small() if small else _full()


def _small() -> Iterator[Bar]:
    subject = resnet32_on_cifar(share=_SMALL_SHARE)
    request = Request(subject=subject, budgets=FASTEST[:1])
    leanest = Leanest(request=request, folder=FOLDER, effort=_SMALL_EFFORT)
    yield from speed.bars([(leanest, NO_LOSS[subject.name])], rivals=speed.Rivals())
    yield from control.bars([leanest], bounds=control.BOUNDS[-1:])


def _full() -> Iterator[Bar]:
    minilm, resnet = minilm_on_stsb(FOLDER / "minilm", share=1), resnet32_on_cifar(share=1)
    raced = [Request(subject=minilm, samples=samples, ranges=_RANGES) for samples in (1, 8)]
    raced += [Request(subject=resnet), Request(subject=resnet, samples=32)]
    if is_installed():
        raced.append(Request(subject=lite0_on_imagenet(share=1)))
    found = [_leanest(request) for request in raced]
    rivals = speed.Rivals()
    wanted = [(each, NO_LOSS[each.request.subject.name]) for each in found]
    yield from speed.bars(wanted, rivals=rivals)
    yield from control.bars([each for each in found if each.request.samples == 1])
    lean = Request(
        subject=minilm, ranges=_RANGES, budgets=[{**_LEAN_BYTES, **each} for each in FASTEST]
    )
    yield from _lean(_leanest(lean), rivals=rivals)
    in_onnxruntime = Request(subject=minilm, runtime="onnxruntime", formats=("w8a8", "w8"))
    hurt = [
        ("MiniLM in ONNX Runtime, static 8-bit inputs", _leanest(in_onnxruntime), 0.005),
        ("MiniLM in OpenVINO, min-max ranges",
         _leanest(Request(subject=minilm, ranges=("minmax",))), 0.002),
    ]  # fmt: skip
    if is_installed():
        sixth = Request(subject=raced[-1].subject, budgets=[{"weight_bytes": "16%"}])
        hurt.append(("Lite0 in OpenVINO, 16 % of fp32 bytes", _leanest(sixth), 0.01))
    yield from hurting.bars(hurt)


def _lean(leanest: Leanest, *, rivals: speed.Rivals) -> Iterator[Bar]:
    """Yield the race of a plan of few bytes against NNCF's 8 bits, and what it loses."""
    eight_bits = [each for each in rivals.of(leanest.request.subject) if "int8" in each.name]
    found = speed.race(leanest, bound=_LEAN_BOUND, rivals=eight_bits)
    extra = speed.facts(found, leanest)
    yield judged(LEAN_SPEED, [found.ratio], target=TARGETS[LEAN_SPEED], extra=extra)
    yield judged(LEAN_DROP, [found.drop], target=TARGETS[LEAN_DROP])


def _leanest(request: Request) -> Leanest:
    return Leanest(request=request, folder=FOLDER, effort=DEFAULT_EFFORT)
