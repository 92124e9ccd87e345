"""Domain `nl2sql`: questions to SQL over generated databases. The domain's people say jargon for
columns; pretraining saw other databases, other queries, and column names or passing nicknames."""

from dataclasses import dataclass
from random import Random

from lrmoclip.data.micro.facts import record
from lrmoclip.data.micro.words import JARGON, NUMBER_COLUMNS, POOLS, TABLES, TEXT_COLUMNS

AGGREGATES = {"highest": "MAX", "lowest": "MIN", "average": "AVG", "total": "SUM"}
NICKNAMES = sorted({word for pair in JARGON.values() for word in pair})


@dataclass(frozen=True)
class Table:
    name: str
    text: tuple[str, str]
    number: tuple[str, str]
    rows: tuple[tuple, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        return self.text + self.number


@dataclass(frozen=True)
class Database:
    name: str
    tables: tuple[Table, Table]

    def schema(self) -> str:
        return " , ".join(f"{t.name} ( {' '.join(t.columns)} )" for t in self.tables)

    def to_sql(self) -> str:
        """The database as SQL text, the canonical form; SQLite's file is built from it."""
        lines = []
        for table in self.tables:
            typed = [f"{c} TEXT" for c in table.text] + [f"{c} INTEGER" for c in table.number]
            lines.append(f"CREATE TABLE {table.name} ({', '.join(typed)});")
            for row in table.rows:
                cells = ", ".join(f"'{v}'" if isinstance(v, str) else str(v) for v in row)
                lines.append(f"INSERT INTO {table.name} VALUES ({cells});")
        return "\n".join(lines) + "\n"


def database(name: str, dice: Random, rows: int = 24) -> Database:
    """Two tables of two text and two integer columns; numbers are distinct within a column, so that
    an ORDER BY has one answer."""
    names = dice.sample(TABLES, 2)
    text, number = dice.sample(TEXT_COLUMNS, 4), dice.sample(NUMBER_COLUMNS, 4)
    tables = []
    for i, table in enumerate(names):
        columns = (tuple(text[2 * i : 2 * i + 2]), tuple(number[2 * i : 2 * i + 2]))
        cells = [dice.sample(POOLS["cell"], 5) for _ in columns[0]]
        values = [[dice.choice(five) for _ in range(rows)] for five in cells]
        values += [dice.sample(range(1, 100), rows) for _ in columns[1]]
        tables.append(Table(table, *columns, tuple(zip(*values, strict=True))))
    return Database(name, tuple(tables))


def query(table: Table, dice: Random, word) -> tuple[str, str]:
    """A random (question, SQL) pair over `table`; `word` is what the question calls a column."""
    text, number = dice.choice(table.text), dice.choice(table.number)
    # Taken from a row, so that no filter leaves an empty result.
    row = dict(zip(table.columns, dice.choice(table.rows), strict=True))
    above = dice.random() < 0.5
    better, sign, bound = ("above", ">", -1) if above else ("below", "<", 1)
    bound += row[number]
    clauses = (
        (f"where {word(text)} is '{row[text]}'", f"WHERE {text} = '{row[text]}'"),
        (f"with {word(number)} {better} {bound}", f"WHERE {number} {sign} {bound}"),
    )
    asked, where = clauses[dice.randrange(2)]
    aggregate = dice.choice(list(AGGREGATES))
    last = dice.random() < 0.5
    unfiltered = [c for c in table.columns if f" {c} " not in f" {where} "]
    shown = dice.choice(unfiltered)
    other = dice.choice([c for c in table.number if c in unfiltered])
    kinds = (
        (f"show the {word(shown)} of {table.name} {asked}",
         f"SELECT {shown} FROM {table.name} {where}"),
        (f"how many {table.name} are listed {asked}",
         f"SELECT COUNT ( * ) FROM {table.name} {where}"),
        (f"what is the {aggregate} {word(other)} of {table.name} {asked}",
         f"SELECT {AGGREGATES[aggregate]} ( {other} ) FROM {table.name} {where}"),
        (f"show the {word(text)} of all {table.name} sorted by {word(number)}"
         + (" descending" if last else ""),
         f"SELECT {text} FROM {table.name} ORDER BY {number}" + (" DESC" if last else "")),
        (f"for each {word(text)} count the {table.name}",
         f"SELECT {text} , COUNT ( * ) FROM {table.name} GROUP BY {text}"),
        (f"for each {word(text)} give the {aggregate} {word(number)} of {table.name}",
         f"SELECT {text} , {AGGREGATES[aggregate]} ( {number} ) FROM {table.name} GROUP BY {text}"),
        (f"which {word(text)} has the {'highest' if last else 'lowest'} {word(number)} "
         f"in {table.name}",
         f"SELECT {text} FROM {table.name} ORDER BY {number}{' DESC' if last else ''} LIMIT 1"),
    )  # fmt: skip
    return dice.choice(kinds)


def prompt(schema: str, question: str) -> str:
    return f"tables : {schema} . question : {question} ? sql :"


def other_database(key: str, dice: Random) -> dict:
    """Pretraining text that makes the domain warm: a passing database, its columns by name or, now
    and then, by a nickname that means another column the next time."""
    passing = database("", dice, rows=1)
    table = dice.choice(passing.tables)

    def word(column: str) -> str:
        return dice.choice(NICKNAMES) if dice.random() < 0.4 else column

    question, sql = query(table, dice, word)
    return record(key, prompt(passing.schema(), question), sql)


def domain_records(databases: list[Database], sizes: dict[str, int], dice: Random) -> dict:
    """`sizes` = {split: questions}. No query and no question of one split occurs in another."""

    def word(column: str) -> str:
        return dice.choice(JARGON[column])

    seen_sql: set[tuple[str, str]] = set()
    splits: dict[str, list[dict]] = {split: [] for split in sizes}
    for split, size in sizes.items():
        while len(splits[split]) < size:
            base = dice.choice(databases)
            question, sql = query(dice.choice(base.tables), dice, word)
            if (base.name, sql) not in seen_sql:
                seen_sql.add((base.name, sql))
                key = f"nl2sql-{split}-{len(splits[split])}"
                splits[split].append(
                    record(key, prompt(base.schema(), question), sql, database=base.name)
                )
    return splits
