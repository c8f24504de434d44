"""``python -m escqrs``: ``proto shop:ItemAdded`` prints the .proto text of message classes,
``proto shop.db`` that of a store's events,
``verify shop.db`` proves a store, ``stats shop.db`` says what it holds; ``backup``, ``restore``,
``export`` and ``import`` move stores."""

from __future__ import annotations

import argparse
import functools
import importlib
import os
import sys
import time
import traceback
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from ._core import MessageMeta, proto
from ._restore import restore
from ._store import Store
from ._transfer import Export, opened_export
from ._upcast import newest_of
from .errors import Error, NameClash, SchemaMismatch

_PROGRESS_SECONDS = 0.1  # between two lines


def _named(text: str) -> Any:
    """What ``module:Class`` names, or the module."""
    name, _, path = text.partition(":")
    try:
        module = importlib.import_module(name)
    except Exception as error:  # whatever the module raises
        raise argparse.ArgumentTypeError(f"{text}: {_import_fault(error)}") from None
    try:
        return functools.reduce(getattr, path.split("."), module) if path else module
    except AttributeError as error:
        raise argparse.ArgumentTypeError(f"{text}: {error}") from None


def _import_fault(error: Exception) -> str:
    """In a line: what was raised, and where in the code of those who wrote the module."""
    text = f"{type(error).__name__}: {error}"
    for frame in traceback.extract_tb(error.__traceback__):
        if frame.filename not in ("", __file__, importlib.__file__) and frame.filename[0] != "<":
            return f"{text} ({frame.filename}, line {frame.lineno})"
    return text


def _classes(text: str) -> list[MessageMeta]:
    """The class that ``module:Class`` names, or all that the module itself defines."""
    named = _named(text)
    if isinstance(named, ModuleType):
        every = [one for one in vars(named).values() if _is_message(one)]
        found: list[Any] = newest_of(one for one in every if one.__module__ == named.__name__)
    else:
        found = [named]
    if not found or not all(_is_message(one) for one in found):
        raise argparse.ArgumentTypeError(
            f"{text} is no message class; name a class derived from es.Event, es.Command or "
            "es.Message, or a module that has such classes"
        )
    return found


def _is_message(one: object) -> bool:
    return isinstance(one, MessageMeta) and not one.__escqrs_abstract__


def _printable(text: str) -> list[MessageMeta] | Path:
    """A store's file, or classes."""
    path = Path(text)
    if path.is_file():
        return path
    if path.name != text or path.suffix in (".db", ".sqlite"):
        raise argparse.ArgumentTypeError(f"{text}: no such file")
    return _classes(text)


def _print_proto(given: argparse.Namespace) -> int:
    classes: dict[Any, None] = {}
    for one in given.classes:
        if isinstance(one, Path):
            with Store(one, readonly=True) as store:
                text = store.proto()
            sys.stdout.write(text)
            if not text:
                print(f"{one}: no event has a schema", file=sys.stderr)
        else:
            classes |= dict.fromkeys(one)
    if classes:
        sys.stdout.write(proto(*classes))
    return 0


def _lock(given: argparse.Namespace) -> int:
    from ._lock import check_schema_lock, write_schema_lock

    try:
        (check_schema_lock if given.check else write_schema_lock)(given.file, *given.classes)
    except (SchemaMismatch, NameClash, OSError, ValueError, TypeError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


def _verify(given: argparse.Namespace) -> int:
    with Store(given.file, readonly=True) as store, _Progress(given, "verified") as progress:
        found = store.verify(progress=progress)
    print(repr(found)[1:-1])
    return 0 if found.ok else 1


def _stats(given: argparse.Namespace) -> int:
    with Store(given.file, readonly=True) as store:
        print(repr(store.stats())[1:-1])
    return 0


class _Progress:
    """How far it is, on one line of the terminal; silent where there is none."""

    def __init__(self, given: argparse.Namespace, what: str) -> None:
        self._what = what
        self._shown = given.progress or (given.progress is None and sys.stderr.isatty())
        self._last = 0.0
        self._width = 0

    def __call__(self, position: int, last: int) -> None:
        now = time.monotonic()
        if not self._shown or (now - self._last < _PROGRESS_SECONDS and position < last):
            return
        self._last = now
        part = f"{100 * position // last}%" if last > 0 else "100%"
        line = f"{self._what} {position:,} of {last:,} ({part})"
        print(f"\r{line:{self._width}}", end="", file=sys.stderr, flush=True)
        self._width = len(line)

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._width:
            print(file=sys.stderr)


def _backup(given: argparse.Namespace) -> int:
    with Store(given.file, readonly=True) as store:
        store.backup(given.copy)
        print(f"{given.copy}: {Path(given.copy).stat().st_size:,} bytes")
    return 0


def _restore(given: argparse.Namespace) -> int:
    with _Progress(given, "read") as progress:
        found = restore(given.source, given.file, overwrite=given.overwrite, progress=progress)
    print(f"{given.file}: {found.events:,} events")
    return 0


def _export(given: argparse.Namespace) -> int:
    target = sys.stdout.buffer if given.target == "-" else given.target
    with Store(given.file, readonly=True) as store, _Progress(given, "exported") as progress:
        count = store.export(
            target, format=given.format, after=given.after, upto=given.upto, progress=progress
        )
    print(f"{count:,} events", file=sys.stderr if given.target == "-" else sys.stdout)
    return 0


@contextmanager
def _store_for(path: str, export: Export) -> Generator[Store, None, None]:
    """The store at that path, or a new one, of which nothing stays where nothing was imported."""
    fresh = not os.path.lexists(path)
    with Store(path, chain=fresh and export.chained) as store:
        try:
            yield store
        except BaseException:
            if fresh and store.head == 0:
                for suffix in ("", "-wal", "-shm", "-lock"):  # whose lock it still has
                    Path(path + suffix).unlink(missing_ok=True)
            raise


def _import(given: argparse.Namespace) -> int:
    with ExitStack() as stack:
        source = sys.stdin.buffer if given.source == "-" else given.source
        with _Progress(given, "checked") as checked:
            export = stack.enter_context(opened_export(source, given.format, checked))
        store = stack.enter_context(_store_for(given.file, export))
        progress = stack.enter_context(_Progress(given, "imported"))
        count = export.import_into(store, progress)
    print(f"{count:,} events")
    return 0


def _position(text: str) -> int:
    position = int(text)
    if position < 0:
        raise argparse.ArgumentTypeError(f"a position is not negative: {position}")
    return position


def _add_movers(commands: Any) -> None:
    """The subcommands that move stores."""
    command = commands.add_parser("backup", help="copy a store, which may be open, to a new file")
    command.set_defaults(run=_backup)
    command.add_argument("file")
    command.add_argument("copy")
    command = commands.add_parser(
        "restore",
        help="put a verified backup or export in a store's place",
        description="The file takes its place at once, when all of it was verified.",
    )
    command.set_defaults(run=_restore)
    command.add_argument("source", help="a backup, or an export as JSON lines or protobuf")
    command.add_argument("file")
    command.add_argument("--overwrite", action="store_true", help="replace a file that is there")
    _add_progress(command)
    command = commands.add_parser("export", help="write the events of a store, which may be open")
    command.set_defaults(run=_export)
    command.add_argument("file")
    command.add_argument("target", help="a new file, or - for standard output")
    command.add_argument("--format", choices=("jsonl", "protobuf"), default="jsonl")
    command.add_argument("--after", type=_position, default=0, metavar="POSITION")
    command.add_argument("--upto", type=_position, metavar="POSITION")
    _add_progress(command)
    command = commands.add_parser(
        "import",
        help="store the events of an export",
        description="It goes on behind the events that are there; a new file is made.",
    )
    command.set_defaults(run=_import)
    command.add_argument("file")
    command.add_argument("source", help="an export, or - for standard input")
    command.add_argument("--format", choices=("jsonl", "protobuf"), default="jsonl")
    _add_progress(command)


def _add_progress(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--progress",
        action=argparse.BooleanOptionalAction,
        help="say how far it is (by default on a terminal)",
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m escqrs", description="Tools of escqrs for the shell."
    )
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser(
        "proto", help="print the .proto text of message classes or of a store"
    )
    command.set_defaults(run=_print_proto)
    command.add_argument(
        "classes",
        nargs="+",
        type=_printable,
        metavar="MODULE[:CLASS]|FILE",
        help="e.g. shop:ItemAdded, or shop.db",
    )
    command = commands.add_parser(
        "verify",
        help="prove that a store is whole",
        description="Exit status: 0 where nothing is wrong, 1 where something is, 2 where the file "
        "cannot be read. The store may be open elsewhere.",
    )
    command.set_defaults(run=_verify)
    command.add_argument("file")
    _add_progress(command)
    command = commands.add_parser(
        "lock",
        help="write the schemas of events to a file that is committed",
        description="Exit status: 1 where a class would not read what is locked, and with --check "
        "where the file is out of date.",
    )
    command.set_defaults(run=_lock)
    command.add_argument(
        "classes", nargs="+", type=_named, metavar="MODULE[:CLASS]", help="e.g. shop"
    )
    command.add_argument("--file", default="escqrs.schema.lock")
    command.add_argument("--check", action="store_true", help="compare only")
    command = commands.add_parser("stats", help="say what a store holds")
    command.set_defaults(run=_stats)
    command.add_argument("file")
    _add_movers(commands)
    given = parser.parse_args(arguments)
    try:
        status = given.run(given)
    except (Error, OSError, ValueError) as error:
        sys.exit(_failure(error))
    if status != 0:
        sys.exit(status)


def _failure(error: Exception) -> int:
    print(f"{type(error).__name__}: {error}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    main()
