"""The bars of cost; the small form takes MiniLM in ONNX Runtime, ResNet-32 and a few plans."""

from collections import Counter
from collections.abc import Iterator, Sequence

from benchmarks.bar import Bar, judged
from benchmarks.cost import quality
from benchmarks.cost.cases import cases, small_case
from benchmarks.cost.profiling import profile_seconds
from benchmarks.cost.requests import answers
from benchmarks.cost.targets import COVERED, HELD, MEAN, PROFILE, TARGETS, UNBEATEN, WORST
from benchmarks.cost.trial import Trial, run_trial


def run(*, small: bool) -> Iterator[Bar]:
    """Yield the bars, each model's as soon as it is measured, then those of all together."""
    seconds, facts = profile_seconds(small=small)
    yield judged(PROFILE, [seconds], target=TARGETS[PROFILE], extra=facts)
    trials: list[Trial] = []
    for case in [small_case()] if small else cases():
        trials.append(run_trial(case, random=4 if small else 16, smart=2 if small else 12))
        if not small:
            yield from _bars(trials[-1:], suffix=f", {case.title}")
    yield from _bars(trials, suffix="")
    yield from _request_bars(small=small)
    yield from quality.bars(small=small)


def _bars(trials: Sequence[Trial], *, suffix: str) -> Iterator[Bar]:
    extra: dict[str, object] = {trial.case.title: trial.summary() for trial in trials}
    # Noise above the target hides any error: nothing was compared, so the bars fail.
    is_quiet = all(TARGETS[MEAN].is_met(100 * trial.noise) for trial in trials)
    extra["too_noisy"] = not is_quiet
    beyond = [float(100 * each) for trial in trials for each in trial.beyond_noise]
    beyond = beyond if is_quiet else []
    yield judged(MEAN + suffix, beyond, target=TARGETS[MEAN], extra=extra)
    yield judged(WORST + suffix, beyond, target=TARGETS[WORST], statistic="max", extra=extra)
    covered = [trial.covered for trial in trials]
    yield judged(COVERED + suffix, covered, target=TARGETS[COVERED], statistic="min", extra=extra)


def _request_bars(*, small: bool) -> Iterator[Bar]:
    found = answers(small=small)
    outcomes = Counter(each.outcome for each in found)
    failed = [each for each in found if not (each.holds and each.is_best)]
    extra: dict[str, object] = {
        "requests": len(found),
        **outcomes,
        "contests": sum(each.contests for each in found),
        "failed": [{**each.request, "outcome": each.outcome} for each in failed],
    }
    for name, shares in (
        (HELD, [float(each.holds) for each in found]),
        (UNBEATEN, [float(each.is_best) for each in found]),
    ):
        yield judged(name, shares, target=TARGETS[name], statistic="mean", extra=extra)
