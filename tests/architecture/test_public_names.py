"""The names that other programs rely on."""

import subprocess
import sys

import pytest

import mpsearch

# Importing the part `mpsearch.search` sets the attribute `search` of the package to that part;
# the function of the same name has to win, before and after.
PROGRAM = """
import mpsearch
first = mpsearch.search
import mpsearch.search
from mpsearch.search import propose
assert callable(mpsearch.search), "mpsearch.search is no longer the function"
assert mpsearch.search is first
"""


@pytest.mark.parametrize("name", mpsearch.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(mpsearch, name) is not None
    assert name in dir(mpsearch)


def test_search_stays_the_function_after_its_part_is_imported() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(mpsearch, "nowhere")
