"""Builds the extension ``escqrs._core``: the whole C core and its binding in one shared object.

All else that a build needs to know is in pyproject.toml. From the environment:

ESCQRS_BUILD_DIR   where build files go; otherwise build/python
ESCQRS_SANITIZE    e.g. "address": build with that sanitizer, for tests
ESCQRS_WERROR      not empty: warnings are errors
"""

from __future__ import annotations

import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, ExecError

BUILD_DIR = os.environ.get("ESCQRS_BUILD_DIR") or "build/python"
SANITIZE = os.environ.get("ESCQRS_SANITIZE", "")

# csrc/testing is for C programs alone
SOURCES = sorted(str(path) for path in Path("csrc").glob("*/*.c") if path.parent.name != "testing")
PROTOS = sorted(str(path) for path in Path("proto").glob("**/*.proto"))
HEADERS = sorted(str(path) for folder in ("csrc", "include") for path in Path(folder).rglob("*.h"))

COMPILE_FLAGS = ["-std=c11", "-D_GNU_SOURCE", "-pthread", "-fvisibility=hidden", "-Wall", "-Wextra"]
COMPILE_FLAGS += ["-O3", "-g"] if not SANITIZE else ["-O1", "-g", "-fno-omit-frame-pointer"]
COMPILE_FLAGS += ["-Werror"] if os.environ.get("ESCQRS_WERROR") else []
LINK_FLAGS = ["-pthread"]
if SANITIZE:
    COMPILE_FLAGS += [f"-fsanitize={SANITIZE}", "-fno-sanitize-recover=all"]
    LINK_FLAGS += [f"-fsanitize={SANITIZE}"]


class BuildExtension(build_ext):
    """Compiles the .proto files first, then what has changed, several files at a time."""

    def get_source_files(self) -> list[str]:
        """What a source distribution holds for the extension: headers and .proto files too."""
        return [*SOURCES, *HEADERS, *PROTOS]

    def build_extension(self, ext: Extension) -> None:
        folder = Path(self.build_temp)
        generated = self.compile_protos(folder / "proto-gen")
        ext.include_dirs.append(str(folder / "proto-gen"))
        ext.sources = [*SOURCES, *generated]
        compiler = self.compiler
        ext_compile = compiler.compile

        def compile_changed(sources: list[str], output_dir: str, **options: object) -> list[str]:
            objects = compiler.object_filenames(sources, output_dir=output_dir)

            def compile_one(source: str, target: str) -> None:
                if is_newer(target, [source, *HEADERS, *PROTOS, "setup.py"]):
                    ext_compile([source], output_dir=output_dir, **options)

            with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
                list(pool.map(compile_one, sources, objects))
            return objects

        compiler.compile = compile_changed
        try:
            self.force = True  # what is out of date is decided above, with the headers in mind
            super().build_extension(ext)
        finally:
            compiler.compile = ext_compile

    def compile_protos(self, folder: Path) -> list[str]:
        """Run protoc-c and return the C files that it makes."""
        program = shutil.which("protoc-c")
        if program is None and PROTOS:
            raise ExecError("protoc-c is missing; on Debian: apt-get install protobuf-c-compiler")
        generated = []
        for proto in PROTOS:
            target = folder / Path(proto).relative_to("proto").with_suffix(".pb-c.c")
            if is_newer(str(target), [proto]):
                folder.mkdir(parents=True, exist_ok=True)
                command = [str(program), "-Iproto", f"--c_out={folder}", proto]
                if subprocess.run(command, check=False).returncode != 0:
                    raise CompileError(f"{' '.join(command)} failed")
            generated.append(str(target))
        return generated


def is_newer(target: str, sources: list[str]) -> bool:
    """Tell whether the target is missing or older than one of its sources."""
    try:
        made = Path(target).stat().st_mtime_ns
    except FileNotFoundError:
        return True
    return any(Path(source).stat().st_mtime_ns >= made for source in sources)


setup(
    cmdclass={"build_ext": BuildExtension},
    ext_modules=[
        Extension(
            "escqrs._core",
            SOURCES,
            include_dirs=["include", "csrc"],
            # shared, as Python's own sqlite3 module links it: two copies in one process lose locks
            libraries=["sqlite3", "protobuf-c", "crypto"],
            extra_compile_args=COMPILE_FLAGS,
            extra_link_args=LINK_FLAGS,
        )
    ],
    options={"build": {"build_base": BUILD_DIR}},
)
