"""Questions with SQL over small databases: GeoQuery (Zelle and Mooney 1996, in the SQL of
Finegan-Dollak et al. 2018, arXiv:1806.09029) and defog's sql-eval.

Both need a data folder: copies of GeoQuery on the hub lack its query split and its database, and
of sql-eval in SQLite's dialect with its databases there is none.
"""

from pathlib import Path

from lrmoclip.core.errors import UserError
from lrmoclip.data.domain import Domain, assemble
from lrmoclip.data.published.sources import Source
from lrmoclip.data.sql_execution import QueryFailed, execute

FIELDS = {
    "id": str, "db_id": str, "question": str, "sql": str, "sql_alternatives": list,
    "n_result_rows": int,
}  # fmt: skip
_QUERY_SPLITS = {"train": "train", "validation": "dev", "test": "test"}


def geography(source: Source, settings: dict, seed: int) -> Domain:
    """The set `nl2sql`: GeoQuery, regrouped by `query_split`, which shares no SQL between train and
    test, unlike the files' own question split. The SQL is the source's, verbatim.

    settings: sizes by split, and `schema`, whether CREATE TABLE statements open the prompt. By
    default they don't: all questions ask one database, and its schema costs 300 tokens a record.
    Raises Missing, UserError.
    """
    fields = FIELDS | {"query_split": str}
    rows = [
        row
        for split in ("train", "dev", "test")
        for row in source.records("nl2sql/geography", split, fields)
    ]
    pools = {
        split: [row for row in rows if row["query_split"] == name]
        for split, name in _QUERY_SPLITS.items()
    }
    return _domain(source, "nl2sql", pools, {"schema": False} | settings, seed)


def sqleval(source: Source, settings: dict, seed: int) -> Domain:
    """The set `sqleval`: 11 databases, hence `schema` is true by default.

    The source is an evaluation set, which the data folder divides into train and test. Questions
    about the present are not in it. Raises Missing, UserError.
    """
    fields = FIELDS | {"instructions": str}
    pools = {split: source.records("nl2sql/sqleval", split, fields) for split in ("train", "test")}
    return _domain(source, "sqleval", pools, {"schema": True} | settings, seed)


def _domain(source: Source, name: str, pools: dict, settings: dict, seed: int) -> Domain:
    asked = {row["db_id"] for pool in pools.values() for row in pool}
    databases = {db: source.path(f"nl2sql/databases/{db}.sqlite") for db in sorted(asked)}
    schemas = _schemas(source) if settings["schema"] else {}
    for pool in pools.values():
        for row in pool:
            _check_queries(name, row, databases[row["db_id"]])
    items = {
        split: [_item(row, schemas.get(row["db_id"], "")) for row in pool]
        for split, pool in pools.items()
    }
    domain = assemble(name, items, settings, seed)
    domain.databases = databases
    return domain


def _schemas(source: Source) -> dict[str, str]:
    rows = source.records("nl2sql", "schemas", {"id": str, "create_table": list})
    return {row["id"]: "".join(f"{table};\n" for table in row["create_table"]) for row in rows}


def _check_queries(name: str, row: dict, database: Path) -> None:
    """Each accepted query runs, and gold returns rows exactly where the record says so."""
    for query in (row["sql"], *row["sql_alternatives"]):
        try:
            rows = execute(database, query, time_limit_s=60.0)  # trusted: it may take its time
        except QueryFailed as failure:
            raise UserError(
                f"{name}, record {row['id']}: {query!r} fails ({failure.reason})",
                "Copy the data folder again",
            ) from None
        if query == row["sql"] and bool(rows) != (row["n_result_rows"] > 0):
            raise UserError(
                f"{name}, record {row['id']}: {len(rows)} rows, "
                f"but n_result_rows is {row['n_result_rows']}",
                "Copy the data folder again",
            )


def _item(row: dict, schema: str) -> dict:
    instructions = row.get("instructions", "")
    told = f"Instructions: {instructions}\n" if instructions else ""
    return {
        "id": row["id"],
        "prompt": f"{schema}Question: {row['question']}\n{told}SQL:",
        "answer": row["sql"],
        "database": row["db_id"],
        "alternatives": row["sql_alternatives"],
        "empty": row["n_result_rows"] == 0,
        "question": row["question"],
        "prose": "",
    }
