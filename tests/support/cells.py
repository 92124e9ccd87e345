"""A small database for tests of SQL, and a query without end over nothing."""

import sqlite3
from contextlib import closing
from pathlib import Path

ENDLESS = "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT {} FROM r"


def write(path: Path) -> Path:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE cell (id INTEGER, city TEXT, load REAL, band INTEGER)")
        connection.executemany(
            "INSERT INTO cell VALUES (?, ?, ?, ?)",
            [
                (1, "Oslo", 0.1, 700),
                (2, "Bergen", 0.2, 800),
                (3, "Oslo", 0.3, None),
                (4, "Narvik", 0.4, 800),
            ],
        )
        connection.execute("CREATE VIEW town AS SELECT DISTINCT city AS name FROM cell")
        connection.commit()
    return path
