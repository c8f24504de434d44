"""What the actors of the registration say to each other, and what is stored."""

from __future__ import annotations

from dataclasses import dataclass

import escqrs as es


@dataclass(frozen=True, slots=True)
class RegisterUser:
    """Asks for a new user; answered by `Registered`, `Refused` or `Failed`."""

    username: str
    email: str


@dataclass(frozen=True, slots=True)
class Registered:
    user_id: str


@dataclass(frozen=True, slots=True)
class Refused:
    reason: str


@dataclass(frozen=True, slots=True)
class Failed:
    """Nothing is known to be stored; the reason is for the log."""

    reason: str


@dataclass(frozen=True, slots=True)
class Idle:
    """A registration has had nothing to do for a while; its parent may stop it."""

    name: str


@dataclass(frozen=True, slots=True)
class Stored:
    """Events were stored: the read model may follow when it likes."""


@dataclass(frozen=True, slots=True)
class Update:
    """The read model is to follow now. Answered by the position that it has then."""


class UserRegistered(es.Event, name="registration.UserRegistered"):
    """Stored in the stream of that user's registration."""

    user_id: str
    username: str
    email: str
