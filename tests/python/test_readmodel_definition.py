"""Which read models are refused: when defined, and when opened; what their SQL may touch."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import escqrs as es
import pytest
from carts import (
    AddItem,
    Cart,
    ItemAdded,
    Items,
    Others,
    add,
    define,
)
from support import SECONDS


@pytest.mark.parametrize(
    ("sql", "text"),
    [
        ("INSERT INTO items VALUES (:nothing)", "nothing"),
        ("INSERT INTO items VALUES (:_nothing, 1, 1)", "_nothing"),
        ("INSERT INTO items VALUES (:_position)", "3 columns"),
        ("INSERT INTO elsewhere VALUES (1)", "elsewhere"),
        ("INSER INTO items VALUES (1)", "syntax error"),
        ("DELETE FROM items; DELETE FROM items", "more than one"),
        ("DROP TABLE items", "schema"),
        ("PRAGMA user_version = 3", "PRAGMA"),
        ("ATTACH 'x' AS y", "attach"),
        ("-- nothing", "empty"),
    ],
)
def test_bad_sql_is_refused_when_opened(sql: str, text: str) -> None:
    with pytest.raises(ValueError, match=text) as caught:
        es.open(":memory:", Cart, define(sql))
    assert "Items" in str(caught.value)


@pytest.mark.parametrize(
    ("schema", "line", "shown"),
    [
        ("CREATE TABLE a (n);\n\nCREATE TABEL b (n, m);\nSELECT 1", 3, "CREATE TABEL b (n, m)"),
        ("CREATE TABLE a (n,\n  m INTEGER,,\n  o)", 2, "CREATE TABLE a (n, m INTEGER,, o)"),
        ("-- a;b\nCREATE TABLE a (n DEFAULT ';', n)", 2, "CREATE TABLE a (n DEFAULT ';', n)"),
        ("CREATE TABLE a (n);\nINSERT INTO a\nVALUES (1, 2)", 2, "INSERT INTO a VALUES (1, 2)"),
        ("CREATE TABLE a (n UNIQUE);\nINSERT INTO a VALUES (1), (1); SELECT 1", 2,
         "INSERT INTO a VALUES (1), (1)"),
        ("CREATE TABLE a (n);\nATTACH 'x' AS y; SELECT 1", 2, "ATTACH 'x' AS y"),
    ],
)  # fmt: skip
def test_bad_schema_shows_its_statement_and_line(schema: str, line: int, shown: str) -> None:
    class Bad(es.ReadModel):
        pass

    Bad.schema = schema
    with pytest.raises(ValueError, match=f"Bad: schema, line {line}: ") as caught:
        es.open(":memory:", Cart, Bad)
    assert str(caught.value).endswith(f", in: {shown}")


def test_long_statement_is_cut_in_an_error() -> None:
    sql = "INSERT INTO items VALUES (1, '" + "ä" * 600 + "')"
    with pytest.raises(ValueError, match="3 columns but 2 values") as caught:
        es.open(":memory:", Cart, define(sql))
    text = str(caught.value)
    assert "INSERT INTO items VALUES (1, 'ää" in text and text.endswith("ää...")


def test_refused_when_defined() -> None:
    for name in ("status", "retry", "skip", "wait", "rebuild"):
        with pytest.raises(TypeError, match=name):
            type("M", (es.ReadModel,), {name: lambda self: None})
        with pytest.raises(TypeError, match=name):
            type("M", (es.ReadModel,), {"__annotations__": {name: int}})
    with pytest.raises(ValueError, match="auto"):
        type("M", (es.ReadModel,), {"rebuild": "never"})
    with pytest.raises(ValueError, match="empty"):
        type("M", (es.ReadModel,), {"schema": " ; "})
    with pytest.raises(ValueError, match="empty"):
        type("M", (es.ReadModel,), {}, name="")
    with pytest.raises(TypeError, match="version"):
        type("M", (es.ReadModel,), {"version": 1.5})
    with pytest.raises(ValueError, match="empty SQL"):
        es.sql(ItemAdded, " ")
    for arguments in (
        (),
        (ItemAdded,),
        ("SELECT 1",),
        (AddItem, "x"),
        (es.Event, ItemAdded, "x"),
        (ItemAdded, "x", ItemAdded),
    ):
        with pytest.raises(TypeError):
            es.sql(*arguments)
    with pytest.raises(TypeError):
        es.on()(lambda self, db, event: None)
    with pytest.raises(TypeError):
        es.on(Cart)(lambda self, db, event: None)  # type: ignore[arg-type]

    async def later(self: object, db: object, event: object) -> None: ...

    def lazy(self: object, db: object, event: object):
        yield

    for function in (later, lazy):
        with pytest.raises(TypeError):
            es.on(ItemAdded)(function)
        with pytest.raises(TypeError):
            es.query(function)
    with pytest.raises(TypeError, match="self, db and event"):
        type("M", (es.ReadModel,), {"added": es.on(ItemAdded)(lambda self, event: None)})


FORBIDDEN = [
    "ATTACH ':memory:' AS other",
    "DETACH main",
    "PRAGMA journal_mode = DELETE",
    "PRAGMA writable_schema = 1",
    "BEGIN",
    "COMMIT",
    "END",
    "ROLLBACK",
    "SAVEPOINT x",
    "RELEASE escqrs_event",
    "ROLLBACK TO escqrs_event",
    "VACUUM",
    "/* ; */ -- ;\n vacuum INTO 'x.db'",
    "REINDEX",
    "ANALYZE",
    "CREATE TABLE x (n)",
    "CREATE TEMP TABLE x (n)",
    "CREATE TEMP TRIGGER t AFTER INSERT ON items BEGIN SELECT 1; END",
    "CREATE VIRTUAL TABLE x USING fts5(n)",
    "ALTER TABLE items RENAME TO x",
    "DROP TABLE items",
    "INSERT INTO sqlite_schema VALUES (1, 1, 1, 1, 1)",
    "DELETE FROM items WHERE load_extension('x')",
    # the engine's
    "DELETE FROM escqrs_event",
    "UPDATE escqrs_readmodel SET position = 0",
    "DELETE FROM items WHERE 0 < (SELECT count(*) FROM escqrs_events)",
    "INSERT INTO items SELECT position, type, 1 FROM escqrs_events",
    # another read model's
    "INSERT INTO others VALUES (1)",
    "DELETE FROM items WHERE name IN (SELECT n FROM others)",
    "DELETE FROM main.others",
    "WITH o AS (SELECT n FROM others) DELETE FROM items WHERE name IN o",
]


def contents(path: Path) -> list[str]:
    """All that an SQLite file holds."""
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return list(connection.iterdump())
    finally:
        connection.close()


def test_projections_keep_to_their_own_tables(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    with es.open(path, Cart, Items, Others) as shop:
        add(shop, "book")
        shop.flush(SECONDS)
    before = contents(path)
    for sql in FORBIDDEN:
        with pytest.raises(ValueError, match="read model Items: "):
            es.open(path, Cart, Others, define(sql)).close()
    assert contents(path) == before
    errors: list[BaseException | str] = []

    class Nosy(es.ReadModel):
        schema = "CREATE TABLE nosy (n)"

        @es.on(ItemAdded)
        def added(self, db: es.Rows, event: ItemAdded) -> None:
            for sql in FORBIDDEN:
                try:
                    db.execute(sql.replace("items", "nosy"))
                    errors.append(sql)
                except es.Error as error:
                    errors.append(error)
            db.execute("INSERT INTO nosy VALUES (?)", [event.quantity])

        @es.query
        def all(self, db: es.Rows) -> list[int]:
            return [n for (n,) in db.execute("SELECT n FROM nosy")]

    with es.open(path, Cart, Nosy, Others) as shop:
        shop.flush(SECONDS)
        assert len(errors) == len(FORBIDDEN)
        for error in errors:
            assert isinstance(error, es.Error) and "read model Nosy: " in str(error), error
        assert shop[Nosy].all() == [1] and shop[Others].all() == [1]


def test_schema_keeps_to_itself() -> None:
    for statement in (
        "ATTACH 'x' AS y",
        "PRAGMA user_version = 1",
        "BEGIN",
        "COMMIT",
        "SAVEPOINT x",
        "VACUUM",
        "ANALYZE",
        "CREATE TEMP TABLE x (n)",
        "CREATE TABLE x AS SELECT * FROM escqrs_event",
        "CREATE TRIGGER t AFTER INSERT ON escqrs_event BEGIN DELETE FROM a; END",
        "DROP TABLE escqrs_event",
        "INSERT INTO escqrs_event VALUES (1)",
        "SELECT load_extension('x')",
    ):
        with pytest.raises(ValueError, match="M: schema, line 1: ") as caught:
            es.open(":memory:", model("M", f"CREATE TABLE a (n); {statement}")).close()
        assert statement in str(caught.value)
    for statement in (
        "CREATE TABLE escqrs_event (n)",
        "CREATE TABLE escqrs_mine (n)",
        "CREATE VIEW escqrs_events AS SELECT 1",
        "CREATE TABLE t (n); CREATE INDEX Escqrs_index ON t (n)",
    ):
        with pytest.raises(es.NameClash, match="engine"):
            es.open(":memory:", model("M", statement)).close()
    for statement in ("SELECT 1", "-- nothing", "CREATE TABLE t (n); DROP TABLE t"):
        with pytest.raises(ValueError, match="M.*(no table|empty)"):
            es.open(":memory:", model("M", statement)).close()


def model(name: str, schema: str, **attributes: object) -> type[es.ReadModel]:
    return type(name, (es.ReadModel,), {"schema": schema, **attributes})


def test_refused_open_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    bad_sql = [
        "INSERT INTO bad",
        "INSERT INTO bad VALUES (:x)",
        "DELETE FROM bad WHERE n = ?",
        "/* ; */ ;",
        "SELECT * FROM bad",
    ]
    wrong = [
        *(model("Bad", "CREATE TABLE bad (n)", added=es.sql(ItemAdded, sql)) for sql in bad_sql),
        model("Bad", "CREATE TABLE bad (n"),
        model(
            "Bad", "CREATE TABLE bad (n)", added=es.sql(ItemAdded, "INSERT INTO bad VALUES (:x)")
        ),
        model(
            "Bad", "CREATE TABLE bad (n)", added=es.sql(ItemAdded, "DELETE FROM bad WHERE n = ?")
        ),
        model("Bad", "CREATE TABLE others (n)"),
        model("Bad", "CREATE TABLE escqrs_x (n)"),
    ]
    for bad in wrong:
        with pytest.raises((ValueError, es.NameClash), match="Bad"):
            es.open(path, Cart, Others, bad).close()
        assert list(tmp_path.iterdir()) == []  # not even an empty store
    with es.open(path, Cart) as shop:
        add(shop, "book")
    before = contents(path)
    for bad in wrong:
        with pytest.raises((ValueError, es.NameClash), match="Bad"):
            es.open(path, Cart, Others, bad).close()
        assert contents(path) == before
    with es.open(path, Cart, Items) as shop:
        shop.flush(SECONDS)
    before = contents(path)
    for bad in (model("Bad", "CREATE TABLE ITEMS (n)"), define(rebuild="manual", version=2)):
        with pytest.raises((es.NameClash, es.SchemaMismatch), match="Items"):
            es.open(path, Cart, Others, bad).close()
        assert contents(path) == before
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE mine (n)")
    connection.close()
    before = contents(path)
    with pytest.raises(es.NameClash, match="Bad.*mine.*no read model"):
        es.open(path, Cart, Others, model("Bad", "CREATE TABLE mine (n)"))
    assert contents(path) == before


def test_names_clash(tmp_path: Path) -> None:
    class Other(es.ReadModel):
        schema = "CREATE TABLE Items (n)"

    with pytest.raises(es.NameClash) as caught:
        es.open(":memory:", Cart, Items, Other)
    assert "Items" in str(caught.value) and "Other" in str(caught.value)
    path = tmp_path / "shop.db"
    es.open(path, Cart, Items).close()
    with pytest.raises(es.NameClash, match="Items"):
        es.open(path, Cart, Other)
