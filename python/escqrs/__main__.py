"""``python -m escqrs``: ``proto shop:ItemAdded`` prints the .proto text of message classes,
``verify shop.db`` proves a store, ``stats shop.db`` says what it holds."""

from __future__ import annotations

import argparse
import functools
import importlib
import sys
from collections.abc import Sequence
from typing import Any

from ._core import MessageMeta, proto
from ._store import Store
from .errors import Error


def _classes(text: str) -> list[MessageMeta]:
    """The class that ``module:Class`` names, or all that the module itself defines."""
    name, _, path = text.partition(":")
    try:
        module = importlib.import_module(name)
        if path:
            found: list[Any] = [functools.reduce(getattr, path.split("."), module)]
        else:
            found = [one for one in vars(module).values() if _is_message(one)]
            found = [one for one in found if one.__module__ == module.__name__]
    except (ImportError, ValueError, AttributeError) as error:
        raise argparse.ArgumentTypeError(f"{text}: {error}") from None
    if not found or not all(_is_message(one) for one in found):
        raise argparse.ArgumentTypeError(
            f"{text} is no message class; name a class derived from es.Event, es.Command or "
            "es.Message, or a module that has such classes"
        )
    return found


def _is_message(one: object) -> bool:
    return isinstance(one, MessageMeta) and not one.__escqrs_abstract__


def _print_proto(given: argparse.Namespace) -> int:
    several: list[list[Any]] = given.classes
    sys.stdout.write(proto(*dict.fromkeys(cls for classes in several for cls in classes)))
    return 0


def _verify(given: argparse.Namespace) -> int:
    with Store(given.file, readonly=True) as store:
        found = store.verify()
    print(repr(found)[1:-1])
    return 0 if found.ok else 1


def _stats(given: argparse.Namespace) -> int:
    with Store(given.file, readonly=True) as store:
        print(repr(store.stats())[1:-1])
    return 0


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m escqrs", description="Tools of escqrs for the shell."
    )
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("proto", help="print the .proto text of message classes")
    command.set_defaults(run=_print_proto)
    command.add_argument(
        "classes", nargs="+", type=_classes, metavar="MODULE[:CLASS]", help="e.g. shop:ItemAdded"
    )
    command = commands.add_parser(
        "verify",
        help="prove that a store is whole",
        description="Exit status: 0 where nothing is wrong, 1 where something is, 2 where the file "
        "cannot be read. The store may be open elsewhere.",
    )
    command.set_defaults(run=_verify)
    command.add_argument("file")
    command = commands.add_parser("stats", help="say what a store holds")
    command.set_defaults(run=_stats)
    command.add_argument("file")
    given = parser.parse_args(arguments)
    try:
        status = given.run(given)
    except Error as error:
        sys.exit(_failure(error))
    if status != 0:
        sys.exit(status)


def _failure(error: Error) -> int:
    print(f"{type(error).__name__}: {error}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    main()
