"""Laws of what is told about this machine."""

from pathlib import Path

import pytest

from mpsearch.core import machine

CPUINFO = """processor : 0
model name : Fast CPU
flags : fpu avx2 avx512f amx_int8

processor : 1
model name : Slow CPU
flags : fpu
"""


def test_the_first_cores_name_and_low_precision_flags_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text(CPUINFO)
    monkeypatch.setattr(machine, "_CPUINFO", path)
    processor = machine.this_processor()
    assert processor.name == "Fast CPU"
    assert processor.flags == ("avx2", "avx512f", "amx_int8")


def test_a_system_without_cpuinfo_still_has_a_processor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "_CPUINFO", tmp_path / "absent")
    processor = machine.this_processor()
    assert processor.name
    assert processor.cores >= 1
    assert processor.flags == ()


def test_absent_packages_have_no_version() -> None:
    assert "no-such-package" not in machine.installed_versions(["no-such-package"])
