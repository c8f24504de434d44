"""Actors in Python: messages, questions, lives, memory, persistent actors; beside pykka, thespian.

Thespian runs on its simpleSystemBase, which has one thread and no processes: its fastest. Messages
are told by two actors to each other, 100 in flight. Lives are made by an actor, one message each.
"""

from __future__ import annotations

import gc
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from measure import Figures, NotAvailable, resident_bytes, stopwatch

MESSAGES = 1_000_000
IN_FLIGHT = 100
QUESTIONS = 200_000
LIVES = 200_000
AT_ONCE = 8  # lives that their parent makes before it has another turn
IDLE = 50_000
PERSISTED = 200_000
PERSISTENT = 1000
PEER_SHARE = 20  # of the messages and lives: a peer is slower by as much


class State:
    """What an actor with one field is in Python."""

    def __init__(self) -> None:
        self.number = 0


def floor(folder: Path, part: float) -> Figures:
    gc.collect()
    before = resident_bytes()
    states = [State() for _ in range(IDLE)]
    gc.collect()
    return {"bytes": (resident_bytes() - before) / len(states)}


# ---- escqrs --------------------------------------------------------------------------------------


def tell_rate(count: int) -> float:
    import escqrs as es

    done = threading.Event()
    left = [count]

    class Player:
        other: es.Ref

        def receive(self, ctx: es.Context, message: object) -> None:
            if type(message) is int:
                left[0] -= 1
                if left[0] == 0:
                    done.set()
                elif left[0] > 0:
                    self.other.tell(message)

    first, second = Player(), Player()
    with es.ActorSystem() as system:
        one, two = system.spawn(lambda: first), system.spawn(lambda: second)
        first.other, second.other = two, one
        with stopwatch() as watch:
            for number in range(IN_FLIGHT):
                one.tell(number)
            done.wait()
    return count / watch.seconds


def ask_microseconds(count: int) -> float:
    import escqrs as es

    class Echo:
        def receive(self, ctx: es.Context, message: object) -> None:
            if type(message) is int:
                ctx.respond(message)

    with es.ActorSystem() as system:
        ref = system.spawn(Echo)
        with stopwatch() as watch:
            for number in range(count):
                ref.ask(number)
    return watch.seconds / count * 1e6


def life_rate(count: int) -> float:
    import escqrs as es

    done = threading.Event()
    ended = [0]

    class Mayfly:
        def receive(self, ctx: es.Context, message: object) -> None:
            if message is True:
                ctx.self.stop()
                ended[0] += 1
                if ended[0] == count:
                    done.set()

    class Nurse:
        left = count

        def receive(self, ctx: es.Context, message: object) -> None:
            if type(message) is int:
                for _ in range(min(AT_ONCE, self.left)):
                    ctx.spawn(Mayfly).tell(True)
                self.left -= AT_ONCE
                if self.left > 0:
                    ctx.self.tell(message)

    with stopwatch() as watch, es.ActorSystem() as system:
        system.spawn(Nurse).tell(1)
        done.wait()  # and leaving the block waits for the last to have stopped
    return count / watch.seconds


def idle_bytes(count: int) -> float:
    import escqrs as es

    class Idle(State):
        def receive(self, ctx: es.Context, message: object) -> None:
            pass

    with es.ActorSystem() as system:
        for _ in range(1000):
            system.spawn(Idle).ask
        gc.collect()
        before = resident_bytes()
        refs = [system.spawn(Idle) for _ in range(count)]
        while any(ref.state == "starting" for ref in refs):
            time.sleep(0.01)
        gc.collect()
        return (resident_bytes() - before) / count


def persistent_rate(folder: Path, count: int) -> float:
    import escqrs as es
    from model import Deposited

    class Account(es.PersistentActor):
        balance = 0

        def receive(self, ctx: es.Context, message: object) -> None:
            if type(message) is int:
                self.persist(Deposited(message, "a note of ordinary length"))
                ctx.respond(self.balance)
            elif isinstance(message, Deposited):
                self.balance += message.amount

    with es.Store(folder / "actors.db") as store, es.ActorSystem() as system:
        props = es.Props(Account, middleware=[es.persistence(store)])
        accounts = [system.spawn(props, name=f"account-{number}") for number in range(PERSISTENT)]
        for reply in [account.submit(1) for account in accounts]:
            reply.result()
        with stopwatch() as watch:
            waiting = deque(account.submit(1) for account in accounts)
            for number in range(count - PERSISTENT):
                waiting.popleft().result()
                waiting.append(accounts[number % PERSISTENT].submit(1))
            for reply in waiting:
                reply.result()
    return count / watch.seconds


def ours(folder: Path, part: float) -> Figures:
    def share(count: int) -> int:
        return max(2000, int(count * part))

    return {
        "bytes": idle_bytes(IDLE),
        "tell": tell_rate(share(MESSAGES)),
        "ask": ask_microseconds(share(QUESTIONS)),
        "life": life_rate(share(LIVES)),
        "persistent": persistent_rate(folder, share(PERSISTED)),
    }


# ---- peers ---------------------------------------------------------------------------------------


def pykka_figures(share: Callable[[int], int]) -> Figures:
    import pykka

    class Echo(pykka.ThreadingActor):
        def on_receive(self, message: Any) -> Any:
            return message

    done = threading.Event()

    class Player(pykka.ThreadingActor):
        left = 0
        other: Any = None

        def on_receive(self, message: Any) -> Any:
            if type(message) is not int:
                self.other = message
                return
            Player.left -= 1
            if Player.left == 0:
                done.set()
            elif Player.left > 0:
                self.other.tell(message)

    figures = {}
    messages, questions, lives = (share(n // PEER_SHARE) for n in (MESSAGES, QUESTIONS, LIVES))
    Player.left = messages
    one, two = Player.start(), Player.start()
    one.tell(two)
    two.tell(one)
    with stopwatch() as watch:
        for number in range(IN_FLIGHT):
            one.tell(number)
        done.wait()
    figures["pykka.tell"] = messages / watch.seconds
    echo = Echo.start()
    with stopwatch() as watch:
        for number in range(questions):
            echo.ask(number)
    figures["pykka.ask"] = watch.seconds / questions * 1e6
    pykka.ActorRegistry.stop_all()
    with stopwatch() as watch:
        for _ in range(lives // AT_ONCE):
            some = [Echo.start() for _ in range(AT_ONCE)]
            for ref in some:
                ref.tell(True)
                ref.stop(block=False)
        pykka.ActorRegistry.stop_all()
    figures["pykka.life"] = lives / watch.seconds
    return figures


def thespian_figures(share: Callable[[int], int]) -> Figures:
    from thespian import actors as thespian

    done: list[int] = []

    class Echo(thespian.Actor):
        def receiveMessage(self, message: Any, sender: Any) -> None:  # noqa: N802
            if type(message) is int:
                self.send(sender, message)

    class Player(thespian.Actor):
        left = 0
        other: Any = None

        def receiveMessage(self, message: Any, sender: Any) -> None:  # noqa: N802
            if type(message) is int:
                Player.left -= 1
                if Player.left == 0:
                    done.append(1)
                elif Player.left > 0:
                    self.send(self.other, message)
            elif isinstance(message, thespian.ActorAddress):
                self.other = message

    class Mayfly(thespian.Actor):
        def receiveMessage(self, message: Any, sender: Any) -> None:  # noqa: N802
            if message is True:
                self.send(self.myAddress, thespian.ActorExitRequest())

    figures = {}
    system = thespian.ActorSystem("simpleSystemBase")
    try:
        messages, questions, lives = (share(n // PEER_SHARE) for n in (MESSAGES, QUESTIONS, LIVES))
        Player.left = messages
        one, two = system.createActor(Player), system.createActor(Player)
        system.tell(one, two)
        system.tell(two, one)
        with stopwatch() as watch:
            for number in range(IN_FLIGHT):
                system.tell(one, number)
            while not done:
                system.listen(0.01)
        figures["thespian.tell"] = messages / watch.seconds
        echo = system.createActor(Echo)
        with stopwatch() as watch:
            for number in range(questions):
                system.ask(echo, number, 10)
        figures["thespian.ask"] = watch.seconds / questions * 1e6
        with stopwatch() as watch:
            for _ in range(lives):
                system.tell(system.createActor(Mayfly), True)
        figures["thespian.life"] = lives / watch.seconds
    finally:
        system.shutdown()
    return figures


def peer(folder: Path, part: float) -> Figures:
    def share(count: int) -> int:
        return max(1000, int(count * part))

    figures: Figures = {}
    reasons = []
    for name, measure in (("pykka", pykka_figures), ("thespian", thespian_figures)):
        try:
            figures |= measure(share)
        except ImportError:
            reasons.append(f"pip install {name}")
    if not figures:
        raise NotAvailable(", ".join(reasons))
    return figures
