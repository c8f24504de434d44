"""The command side: one actor that takes all requests, one for each registration.

`Registrations` spawns a named persistent actor for each e-mail address and hands it the command,
whose sender (a stream of the request's own) gets the answer once it is durable. What the store
refuses has no answer: `Registrations` hears of the failure, as supervisors do, and tells who waits.
A registration without work says so to its parent, which poisons it: what came before
is handled, and what comes for that name until it has stopped waits with the parent, so no command
meets a stopping actor.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import escqrs as es

from .messages import Failed, Idle, Refused, Registered, RegisterUser, Stored, UserRegistered
from .users import UsersUpdater

IDLE_SECONDS = 10.0


class Registration(es.PersistentActor):
    """One user. Its stream has one event, or none before the user is registered."""

    def __init__(self, updater: es.Ref) -> None:
        self.updater = updater
        self.user: UserRegistered | None = None

    def receive(self, ctx: es.Context, message: object) -> None:
        match message:
            case RegisterUser() if self.user is not None:
                ctx.respond(Refused("user already exists"))
            case RegisterUser(username=username, email=email):
                event = self.persist(UserRegistered(es.new_id(), username, email))
                ctx.respond(Registered(event.user_id))  # leaves once the event is durable
                ctx.tell(self.updater, Stored())  # so does this
            case UserRegistered():  # from persist and from replay alike
                self.user = message
            case es.Started():
                ctx.set_receive_timeout(IDLE_SECONDS)
            case es.ReceiveTimeout() if ctx.parent is not None:
                ctx.tell(ctx.parent, Idle(self.name))
            case _:
                pass


class Registrations:
    """Finds or spawns the registration of an address, and passes the command on."""

    def __init__(self, store: es.Store, updater: es.Ref) -> None:
        persistence = es.persistence(store)
        self.props = es.Props(lambda: Registration(updater), middleware=[persistence])
        self.running: dict[str, es.Ref] = {}
        self.asking: dict[str, list[es.Ref]] = {}  # who may still wait for a running one's answer
        self.stopping: dict[str, list[tuple[RegisterUser, es.Ref]]] = {}

    def receive(self, ctx: es.Context, message: object) -> None:
        match message:
            case RegisterUser(email=email) if ctx.sender is not None:
                name = "user-" + quote(email, safe="@+-_.")
                if name in self.stopping:
                    self.stopping[name].append((message, ctx.sender))
                else:
                    self.hand_on(ctx, name, message, ctx.sender)
            case es.ActorFailed(ref=ref, error=error, message="RegisterUser"):
                for sender in self.asking.pop(ref.name, ()):
                    ctx.tell(sender, Failed(str(error)))
            case Idle(name=name) if name in self.running:
                self.stopping[name] = []
                self.running.pop(name).poison()
            case es.Terminated(ref=ref):
                self.running.pop(ref.name, None)
                self.asking.pop(ref.name, None)
                for command, sender in self.stopping.pop(ref.name, ()):
                    self.hand_on(ctx, ref.name, command, sender)
            case es.Started():
                ctx.system.events.subscribe(es.ActorFailed, ctx.self)
            case _:
                pass

    def hand_on(self, ctx: es.Context, name: str, command: RegisterUser, sender: es.Ref) -> None:
        ref = self.running.get(name)
        if ref is None:
            ref = self.running[name] = ctx.spawn(self.props, name=name)
            ctx.watch(ref)
        others = self.asking.get(name, ())  # a stream is stopped when its request has ended
        self.asking[name] = [sender, *(other for other in others if other.state != "stopped")]
        ctx.request(ref, command, sender=sender)


class Application:
    """The store, the actor system and its two actors, open."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.view = folder / "users.db"
        self.store = es.Store(folder / "registrations.db", UserRegistered)
        patient = es.OneForOne(max_restarts=1_000_000, backoff=es.Backoff(first=0.05, limit=2.0))
        self.system = es.ActorSystem(supervisor=patient)
        self.updater = self.system.spawn(
            lambda: UsersUpdater(self.store, self.view), name="users-updater"
        )
        self.registrations = self.system.spawn(
            lambda: Registrations(self.store, self.updater), name="registrations"
        )

    def close(self) -> None:
        self.system.close()
        self.store.close()
