"""Laws of stored shards: a job is divided once, and a shard ends once."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from sqlalchemy import Engine

from mpsearch.errors import AbsentError
from mpsearch.jobs.migrate import migrate
from mpsearch.jobs.shards import ShardStore
from mpsearch.jobs.store import JobStore

FIRST = (("a", "b"), ("c",))
# As if another number of workers had come to share them.
OTHER = (("a",), ("b",), ("c",))


@pytest.fixture
def shards(engine: Engine) -> ShardStore:
    migrate(engine)
    return ShardStore(engine=engine)


@pytest.fixture
def job_id(shards: ShardStore) -> str:
    return JobStore(engine=shards.engine).add({}).id


def layers_of(shards: ShardStore, job_id: str) -> tuple[tuple[str, ...], ...]:
    return tuple(shard.layers for shard in shards.of(job_id))


def test_a_job_stays_divided_as_it_first_was(shards: ShardStore, job_id: str) -> None:
    shards.add(job_id, FIRST)
    shards.finish(job_id, number=1)
    shards.add(job_id, OTHER)
    assert layers_of(shards, job_id) == FIRST
    assert [shard.is_done for shard in shards.of(job_id)] == [False, True]


def test_who_divides_a_job_at_the_same_time_finds_the_same_shards(
    shards: ShardStore, job_id: str
) -> None:
    divisions = (FIRST, OTHER, FIRST, OTHER)
    together = Barrier(len(divisions))

    def divide(division: tuple[tuple[str, ...], ...]) -> tuple[tuple[str, ...], ...]:
        together.wait(60)
        shards.add(job_id, division)
        return layers_of(shards, job_id)

    with ThreadPoolExecutor(len(divisions)) as workers:
        found = set(workers.map(divide, divisions))
    assert found in ({FIRST}, {OTHER})


def test_a_shard_that_was_given_up_is_never_counted_as_measured(
    shards: ShardStore, job_id: str
) -> None:
    shards.add(job_id, FIRST)
    shards.finish(job_id, number=0, error={"detail": "given up"})
    ended = shards.get(job_id, number=0)
    shards.finish(job_id, number=0)
    assert shards.get(job_id, number=0) == ended
    assert ended.error == {"detail": "given up"}
    assert not shards.get(job_id, number=1).is_done


def test_a_shard_that_is_not_there_is_told(shards: ShardStore, job_id: str) -> None:
    shards.add(job_id, FIRST)
    with pytest.raises(AbsentError, match="no shard 2"):
        shards.get(job_id, number=2)
