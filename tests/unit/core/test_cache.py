"""Laws of the cache: what comes back is what was stored, or nothing."""

import logging
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpsearch.core.cache import Cache, content_hash, default_cache_folder

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
KEY = content_hash("key")


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(folder=tmp_path)


def stored_file(cache: Cache) -> Path:
    (path,) = (path for path in cache.folder.rglob("*") if path.is_file())
    return path


@given(value=st.dictionaries(st.text(), JSON, max_size=4))
def test_a_value_comes_back_to_the_last_bit(
    value: dict[str, object], tmp_path_factory: pytest.TempPathFactory
) -> None:
    cache = Cache(folder=tmp_path_factory.getbasetemp() / "values")
    key = content_hash(value)
    cache.put("loss", key, value=value)
    assert cache.get("loss", key) == value


def test_bytes_come_back(cache: Cache) -> None:
    cache.put_bytes("data", KEY, content=b"\x00\xff")
    assert cache.get_bytes("data", KEY) == b"\x00\xff"


def test_what_was_never_stored_is_absent(cache: Cache) -> None:
    assert cache.get("loss", KEY) is None
    assert cache.sizes() == {}
    assert cache.clear() == 0


@pytest.mark.parametrize(
    "damage",
    [lambda b: b[:-1], lambda _: b"", lambda b: b + b" ", lambda b: b[:40] + b"9" + b[41:]],
    ids=["truncated", "empty", "longer", "flipped"],
)
def test_a_damaged_file_is_dropped_and_said_so(
    damage: object, cache: Cache, caplog: pytest.LogCaptureFixture
) -> None:
    assert callable(damage)
    cache.put("loss", KEY, value={"loss": 0.12345678})
    path = stored_file(cache)
    path.write_bytes(damage(path.read_bytes()))
    with caplog.at_level(logging.WARNING):
        assert cache.get("loss", KEY) is None
    assert "measured again" in caplog.text
    assert str(path) in caplog.text
    cache.put("loss", KEY, value={"loss": 0.5})
    assert cache.get("loss", KEY) == {"loss": 0.5}


def test_kinds_do_not_mix_and_are_counted_and_cleared_alone(cache: Cache) -> None:
    cache.put_bytes("data", KEY, content=b"123")
    cache.put("loss", KEY, value={})
    cache.put("loss", content_hash("other"), value={})
    assert {kind: count for kind, (count, _) in cache.sizes().items()} == {"data": 1, "loss": 2}
    assert cache.clear("loss") == 2
    assert set(cache.sizes()) == {"data"}
    assert cache.get_bytes("data", KEY) == b"123"


def test_sizes_are_those_of_the_files(cache: Cache) -> None:
    cache.put_bytes("data", KEY, content=b"123")
    assert cache.sizes()["data"] == (1, stored_file(cache).stat().st_size)


@given(st.lists(st.text(), max_size=4), st.lists(st.text(), max_size=4))
def test_equal_hashes_mean_equal_parts(left: list[str], right: list[str]) -> None:
    assert (content_hash(*left) == content_hash(*right)) == (left == right)


def test_a_hash_sees_where_one_part_ends() -> None:
    assert content_hash(b"a", b"b") != content_hash(b"abb")
    assert content_hash(b"a", b"b") != content_hash(b"ab", b"")


def test_a_hash_sees_type_shape_and_order() -> None:
    ones = np.ones(4, dtype=np.float32)
    hashes = {
        content_hash(ones),
        content_hash(ones.reshape(2, 2)),
        content_hash(ones.astype(np.float64)),
        content_hash(ones.tobytes()),
        content_hash(ones.tolist()),
    }
    assert len(hashes) == 5
    assert content_hash({"a": 1, "b": 2}) == content_hash({"b": 2, "a": 1})


def test_a_hash_does_not_depend_on_memory_layout() -> None:
    table = np.arange(6).reshape(2, 3)
    assert content_hash(np.asfortranarray(table)) == content_hash(table)


@pytest.mark.skipif(sys.platform != "linux", reason="names Linux's variable")
def test_the_default_folder_follows_the_users_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_folder() == tmp_path / "mpsearch"


def test_mapped_bytes_stay_on_disk_and_are_checked(cache: Cache) -> None:
    cache.put_bytes("changes", KEY, content=bytes(range(200)))
    found = cache.map_bytes("changes", KEY)
    assert found is not None
    assert found.tobytes() == bytes(range(200))
    assert not found.flags.writeable
    assert not found.flags.owndata
    stored_file(cache).write_bytes(stored_file(cache).read_bytes()[:-1])
    assert cache.map_bytes("changes", KEY) is None
