"""Laws of the fleet: workers tell of themselves and their devices, all at once if need be."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from sqlalchemy import Engine

from mpsearch.jobs.fleet import Fleet
from mpsearch.jobs.migrate import migrate

_WORKERS = 8


def test_workers_that_start_together_tell_of_the_same_device(engine: Engine) -> None:
    migrate(engine)
    fleet, together = Fleet(engine=engine), Barrier(_WORKERS)

    def tell(number: int) -> None:
        together.wait(60)
        for name in ("openvino", "simulation"):
            fleet.keep_device(name, {"from": number})

    with ThreadPoolExecutor(_WORKERS) as workers:
        for told in [workers.submit(tell, number) for number in range(_WORKERS)]:
            told.result(timeout=60)
    assert [device["from"] in range(_WORKERS) for device in fleet.devices()] == [True, True]


def test_what_is_told_again_is_kept_once_with_its_last_words(engine: Engine) -> None:
    migrate(engine)
    fleet = Fleet(engine=engine)
    for word in ("first", "last"):
        fleet.keep_device("simulation", {"word": word})
        fleet.beat("one", queue="dev:cpu")
    assert [device["word"] for device in fleet.devices()] == ["last"]
    (worker,) = fleet.workers()
    assert (worker.name, worker.queue) == ("one", "dev:cpu")
    fleet.forget("one")
    assert fleet.workers() == ()
