"""The exceptions of escqrs.

Every one is an :class:`Error`::

    Error
    ├── Rejected                  a handler refused a command
    ├── Conflict                  nothing was stored; trying again is safe
    │   ├── WrongVersion          .stream .expected .actual
    │   ├── ConditionFailed       .position of the first event that matches
    │   ├── CheckpointBehind      .name .current .given
    │   └── KeyReused             .key
    ├── Deadlock                  waiting would close a cycle of entities
    ├── Unanswered                an actor has handled a question and cannot answer any more
    ├── Timeout                   also a TimeoutError
    ├── TooLarge                  beyond a limit of size, depth or count
    ├── MailboxFull               more in flight than allowed
    ├── Closed                    used after close, or dropped by it
    ├── Forked                    used in a child of fork()
    ├── Aborted                   an earlier command of the same entity could not be stored
    ├── Locked                    another system holds the file .path for writing
    ├── StorageError              the operating system or SQLite refused; also an OSError (.errno)
    │   ├── Full                  no space left on the device
    │   └── ReadOnly              the file cannot be written
    ├── NotAStore                 the file .path is another program's, or of a newer format
    ├── Corrupt                   stored bytes do not verify or decode: .stream .version .position
    ├── Deleted                   what was asked for has been deleted: .stream .version .position
    ├── NotCovered                no snapshot stands for what would be deleted: .stream .version
    ├── UnknownType               no class of that name was given: .type .stream .version .position
    ├── NameClash                 two definitions for one name
    ├── NameExists                the name is taken: .ref
    ├── SchemaMismatch            a class would misread what is stored: .type .field .stored
    │                             .declared
    ├── ReadModelStopped          .name .position
    └── ProcessStopped            .name .position

Wrong arguments and wrong definitions are the ``TypeError`` and ``ValueError`` of Python; want of
memory is ``MemoryError``. All of these can be pickled; their attributes go along. An attribute that
is not known is ``None``.
"""

from __future__ import annotations

__all__ = [
    "Aborted",
    "CheckpointBehind",
    "Closed",
    "ConditionFailed",
    "Conflict",
    "Corrupt",
    "Deadlock",
    "Deleted",
    "Error",
    "Forked",
    "Full",
    "KeyReused",
    "Locked",
    "MailboxFull",
    "NameClash",
    "NameExists",
    "NotAStore",
    "NotCovered",
    "ProcessStopped",
    "ReadModelStopped",
    "ReadOnly",
    "Rejected",
    "SchemaMismatch",
    "StorageError",
    "Timeout",
    "TooLarge",
    "Unanswered",
    "UnknownType",
    "WrongVersion",
]


class Error(Exception):
    """Base of all exceptions of escqrs."""


class Rejected(Error):
    """A handler refused a command; nothing was stored. Raise it with a text that the caller may
    show."""


class Conflict(Error):
    """Somebody else was first: nothing of the commit is stored, and trying again is safe."""


class WrongVersion(Conflict):
    """The stream is not at the version that the writer has seen."""

    def __init__(
        self,
        *args: object,
        stream: str | None = None,
        expected: int | None = None,
        actual: int | None = None,
    ) -> None:
        super().__init__(*args)
        self.stream = stream
        self.expected = expected
        self.actual = actual


class ConditionFailed(Conflict):
    """An event matches what the commit wanted to be absent; ``position`` is that of the first
    one."""

    def __init__(self, *args: object, position: int | None = None) -> None:
        super().__init__(*args)
        self.position = position


class CheckpointBehind(Conflict):
    """A checkpoint would not move forward: it stands at ``current``, and ``given`` is not after
    it."""

    def __init__(
        self,
        *args: object,
        name: str | None = None,
        current: int | None = None,
        given: int | None = None,
    ) -> None:
        super().__init__(*args)
        self.name = name
        self.current = current
        self.given = given


class KeyReused(Conflict):
    """The key was used before, for other events."""

    def __init__(self, *args: object, key: str | None = None) -> None:
        super().__init__(*args)
        self.key = key


class Deadlock(Error):
    """Waiting would close a cycle; the text names its members."""


class Timeout(Error, TimeoutError):
    """The answer did not come in time; what was asked for may still be carried out."""


class Unanswered(Error):
    """An actor has handled a question without answering it, and nobody can answer any more."""


class TooLarge(Error):
    """A message, a commit or a name is beyond its limit."""


class MailboxFull(Error):
    """More is in flight than the system or the mailbox takes."""


class Closed(Error):
    """Used after close, or dropped by it."""


class Forked(Error):
    """Used in a child of fork(): open the store again in the child."""


class Aborted(Error):
    """An earlier command of the same entity could not be stored, so this one was not carried
    out."""


class Locked(Error):
    """Another system holds the file for writing; the text names it."""

    def __init__(self, *args: object, path: str | None = None) -> None:
        super().__init__(*args)
        self.path = path


class StorageError(Error, OSError):
    """The operating system or SQLite refused; ``errno`` is the system's number, if it gave one."""

    def __init__(self, *args: object, errno: int | None = None) -> None:
        super().__init__(*args)
        self.errno = errno

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), self.args, {**self.__dict__, "errno": self.errno}


class Full(StorageError):
    """No space is left on the device."""


class ReadOnly(StorageError):
    """The file, or the system that was opened on it, cannot be written."""


class NotAStore(Error):
    """The file belongs to another program, or to a newer escqrs."""

    def __init__(self, *args: object, path: str | None = None) -> None:
        super().__init__(*args)
        self.path = path


class Corrupt(Error):
    """Stored bytes do not verify or do not decode."""

    def __init__(
        self,
        *args: object,
        stream: str | None = None,
        version: int | None = None,
        position: int | None = None,
    ) -> None:
        super().__init__(*args)
        self.stream = stream
        self.version = version
        self.position = position


class Deleted(Error):
    """Events that were asked for have been deleted, or the stream has.

    Of a stream they are gone up to ``version``, and ``after=error.version`` is behind them. Read by
    position they are gone up to ``position``, and ``after=error.position`` is behind them. What was
    to be written to a deleted stream is not stored, nor is anything else of its commit.
    """

    def __init__(
        self,
        *args: object,
        stream: str | None = None,
        version: int | None = None,
        position: int | None = None,
    ) -> None:
        super().__init__(*args)
        self.stream = stream
        self.version = version
        self.position = position


class NotCovered(Error):
    """No snapshot that verifies stands for the events of ``stream`` up to ``version``, and so they
    are not deleted; or it is the one that was to be deleted."""

    def __init__(
        self, *args: object, stream: str | None = None, version: int | None = None
    ) -> None:
        super().__init__(*args)
        self.stream = stream
        self.version = version


class UnknownType(Error):
    """An event's name is none of the classes that were given."""

    def __init__(
        self,
        *args: object,
        type: str | None = None,
        stream: str | None = None,
        version: int | None = None,
        position: int | None = None,
    ) -> None:
        super().__init__(*args)
        self.type = type
        self.stream = stream
        self.version = version
        self.position = position


class NameClash(Error):
    """Two definitions for one name; the text names both."""


class NameExists(Error):
    """The name is taken; ``ref`` is the reference of the one that has it."""

    def __init__(self, *args: object, ref: object = None) -> None:
        super().__init__(*args)
        self.ref = ref


class SchemaMismatch(Error):
    """A class would misread what is stored; the text names class and field, and the mend.

    ``type`` is the message's name, ``field`` the field's, ``stored`` and ``declared`` are texts of
    the schema that the data was written with and of the class's.
    """

    def __init__(
        self,
        *args: object,
        type: str | None = None,
        field: str | None = None,
        stored: str | None = None,
        declared: str | None = None,
    ) -> None:
        super().__init__(*args)
        self.type = type
        self.field = field
        self.stored = stored
        self.declared = declared

    def _again(self) -> SchemaMismatch:
        """The same, to be raised once more without the traceback of the first time."""
        return SchemaMismatch(
            *self.args,
            type=self.type,
            field=self.field,
            stored=self.stored,
            declared=self.declared,
        )


class ReadModelStopped(Error):
    """A read model has stopped at an event that it could not take."""

    def __init__(self, *args: object, name: str | None = None, position: int | None = None) -> None:
        super().__init__(*args)
        self.name = name
        self.position = position


class ProcessStopped(Error):
    """A process has stopped at an event, a timer or a command that it could not take."""

    def __init__(self, *args: object, name: str | None = None, position: int | None = None) -> None:
        super().__init__(*args)
        self.name = name
        self.position = position
