"""Which processes can be defined, and what their methods can do."""

from __future__ import annotations

import datetime

import escqrs as es
import pytest
from orders import HOUR, Fulfilment, Order, Pay, Place, Placed, flush


def test_definitions_that_cannot_be():
    with pytest.raises(TypeError, match="the engine's"):

        class Named(es.Process):
            done: bool  # type: ignore[assignment]

    with pytest.raises(TypeError, match="no __init__"):

        class Made(es.Process):
            def __init__(self) -> None: ...

    with pytest.raises(TypeError, match="cannot hold"):

        class Slash(es.Process, name="a/b"): ...

    with pytest.raises(ValueError, match="start="):

        class Start(es.Process, start="now"): ...

    with pytest.raises(TypeError, match="two methods"):

        class Double(es.Process):
            @es.on(Placed)
            def one(self, event: Placed) -> None: ...

            @es.on(Placed)
            def two(self, event: Placed) -> None: ...

    with pytest.raises(TypeError, match="names the events"):

        class Wild(es.Process):
            @es.on(es.Event)
            def one(self, event: es.Event) -> None: ...

    with pytest.raises(TypeError, match="takes self and event"):

        class Read(es.Process):
            @es.on(Placed)
            def one(self, db: es.Rows, event: Placed, recorded: es.Recorded) -> None: ...

    with pytest.raises(TypeError, match="takes self, db and event"):

        class Table(es.ReadModel):
            schema = "CREATE TABLE t (x)"

            @es.on(Placed)
            def one(self, event: Placed) -> None: ...

    with pytest.raises(TypeError, match="@es.rejected takes command classes"):
        es.rejected(Placed)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="self alone"):
        es.timer("x")(lambda self, other: None)

    class Nothing(es.Process): ...

    with pytest.raises(TypeError, match=r"@es\.on methods"):
        es.open(":memory:", Order, Nothing)

    class Unknown(es.Process, key="nothing"):
        @es.on(Placed)
        def placed(self, event: Placed) -> None: ...

    with pytest.raises(TypeError, match="no field 'nothing'"):
        es.open(":memory:", Order, Unknown)


@pytest.mark.parametrize(
    ("what", "error"),
    [
        (lambda self: self.send(Order, "", Pay()), TypeError),
        (lambda self: self.send(Order, "x", Placed(1)), TypeError),
        (lambda self: self.after(1, "x"), TypeError),
        (lambda self: self.after(HOUR, "x"), ValueError),
        (lambda self: self.after(HOUR, Order, "x"), TypeError),
        (lambda self: self.at(datetime.datetime.now(), Order, "x", Pay()), ValueError),
        (lambda self: setattr(self, "other", 1), AttributeError),
        (lambda self: setattr(self, "number", "text"), TypeError),
    ],
)
def test_what_a_method_cannot_do(what, error):
    class Wrong(es.Process):
        number: int

        @es.on(Placed)
        def placed(self, event: Placed) -> None:
            what(self)

    with es.open(":memory:", Order, Wrong) as shop:
        shop[Order, "a"].ask(Place())
        with pytest.raises(es.ProcessStopped) as caught:
            flush(shop)
        assert isinstance(caught.value.__cause__, error)
        assert shop[Wrong].instances() == []


def test_outside_of_its_methods_it_can_do_nothing():
    with pytest.raises(RuntimeError, match="in its methods"):
        Fulfilment().done()


def test_a_field_without_a_value_is_said(clock):
    class Dated(es.Process):
        when: datetime.datetime

        @es.on(Placed)
        def placed(self, event: Placed) -> None:
            if event.amount:
                self.when = self.now

    with es.open(":memory:", Order, Dated) as shop:
        shop[Order, "a"].ask(Place(1))
        flush(shop)
        assert shop[Dated].instance("a").state.when.tzinfo is not None
        shop[Order, "b"].ask(Place(0))
        with pytest.raises(es.ProcessStopped, match=r"Dated\.when has no value"):
            flush(shop)


def test_how_they_look(shop):
    assert repr(shop[Fulfilment]) == "<escqrs.Processes 'Fulfilment'>"
    assert "Fulfilment" in repr(shop)
    assert "_Ledger" not in repr(shop)


def test_commands_and_events_of_generated_classes(tmp_path, clock):
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(
        name="process_shop.proto", package="process_shop", syntax="proto3"
    )
    for name in ("Begun", "Finish", "Finished"):
        message = file.message_type.add(name=name)
        message.field.add(name="number", number=1, label=1, type=3)
    pool = descriptor_pool.Default()
    pool.Add(file)
    Begun, Finish, Finished = (  # noqa: N806
        message_factory.GetMessageClass(pool.FindMessageTypeByName(f"process_shop.{name}"))
        for name in ("Begun", "Finish", "Finished")
    )

    class Task(es.Aggregate):
        total: int

        @es.handles(Finish)
        def finish(self, cmd) -> None:
            if cmd.number == 13:
                raise es.Rejected("thirteen")
            self.emit(Finished(number=cmd.number))

        @es.applies(Finished)
        def finished(self, event) -> None:
            self.total += event.number

    class Tasks(es.Process):
        @es.on(Begun, key="number")
        def begun(self, event) -> None:
            self.send(Task, "t", Finish(number=event.number))
            self.after(HOUR, Task, "t", Finish(number=100))

        @es.rejected(Finish)
        def not_finished(self, command, error) -> None:
            self.send(Task, "t", Finish(number=command.number - 1))

    with es.open(tmp_path / "a.db", Task, Tasks, clock=clock) as shop:
        shop.store.append("x", [Begun(number=1), Begun(number=13)])
        flush(shop)
        assert shop[Task, "t"].state.total == 1 + 12
        assert [one.id for one in shop[Tasks].instances()] == ["1", "13"]
        clock.advance(HOUR)
        flush(shop)
        assert shop[Task, "t"].state.total == 213
