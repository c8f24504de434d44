"""What mypy makes of programs that use the package."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(600)  # mypy has all of typeshed to read

HERE = Path(__file__).resolve().parent


def mypy(folder: Path, *arguments: str) -> None:
    """Check from an empty folder, so that the installed package is what is found."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "mypy",
            "--strict",
            "--cache-dir",
            str(folder / "cache"),
            *arguments,
        ],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_typed_program_passes_and_its_mistakes_are_found(tmp_path: Path) -> None:
    mypy(tmp_path, str(HERE / "typed_shop.py"))


def test_the_readme_s_quick_start_is_typed(tmp_path: Path) -> None:
    readme = (HERE.parents[1] / "README.md").read_text()
    (code,) = re.findall(r"```python\n(import escqrs as es\n.*?)```", readme, re.DOTALL)
    program = tmp_path / "quickstart.py"
    program.write_text(code + 'reveal_type(cart.ask(AddItem("x")))\n')
    mypy(tmp_path, "--allow-any-generics", str(program))  # its list[tuple] is for readers


def test_the_persistent_actor_of_the_documentation_is_typed(tmp_path: Path) -> None:
    text = (HERE.parents[1] / "docs" / "actors.md").read_text()
    (code,) = re.findall(r"```python\n(import escqrs as es\n.*?)```", text, re.DOTALL)
    program = tmp_path / "carts.py"
    program.write_text(code)
    mypy(tmp_path, str(program))
