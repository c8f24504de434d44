"""The shared object: what it shows to the process that loads it, and what it brings along."""

from __future__ import annotations

import importlib.metadata
import shutil
import sqlite3
import subprocess
from pathlib import Path

import escqrs
import pytest
from escqrs import _core


def test_exports_its_init_function_alone() -> None:
    nm = shutil.which("nm")
    if nm is None:
        pytest.skip("nm of binutils is not installed")
    command = [nm, "--dynamic", "--defined-only", "--format=posix", str(_core.__file__)]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["PyInit__core"]


def test_shares_sqlite_with_pythons_own_module() -> None:
    """Two copies in one process would drop each other's locks."""
    assert sqlite3.sqlite_version
    mapped = {
        line.split()[-1]
        for line in Path("/proc/self/maps").read_text().splitlines()
        if "libsqlite3" in line
    }
    assert len(mapped) == 1


def test_requires_no_package() -> None:
    requirements = importlib.metadata.requires("escqrs") or []
    assert [line for line in requirements if "extra ==" not in line] == []


def test_names_all_that_it_offers() -> None:
    assert sorted(set(escqrs.__all__)) == sorted(escqrs.__all__)
    for name in escqrs.__all__:
        assert hasattr(escqrs, name), name
