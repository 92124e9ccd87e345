"""When the results of two queries agree: rows in any order, columns in any order, floats up to
rounding.

A cell agrees with one that is equal, NULL with NULL; a float with a number near it (9 significant
digits, and below 1e-12 it is zero). Nearness is no equivalence: a ~ b and b ~ c, but not a ~ c. So
rows are not sorted side by side but matched: they agree if each of one result can have a row of the
other to itself.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import pairwise, product

Row = tuple  # of None, int, float, str and bytes

_DIGITS = 9
_TINY = 1e-12
_TRIES = 1_000  # at orders of columns; up to 5 columns have fewer


def difference(rows: Sequence[Row], expected: Sequence[Row], ordered: bool) -> str:
    """In which respect the rows are not those expected; empty where they are."""
    if len(rows) != len(expected):
        return f"{len(rows)} rows, expected {len(expected)}"
    if rows and len(rows[0]) != len(expected[0]):
        return f"{len(rows[0])} columns, expected {len(expected[0])}"
    if rows == expected:
        return ""
    # In a fixed order of rows, columns can be matched as rows can.
    if ordered and matched(_turned(rows), _turned(expected)):
        return ""
    if not _in_some_order_of_columns(rows, expected):
        return "other rows"
    return "other order" if ordered else ""


def matched(ones: Sequence[Row], others: Sequence[Row]) -> bool:
    """Can each of `ones` have one of the `others`, as many and as long, to itself that agrees with
    it in every cell?

    In about linear time, unless many rows lie within rounding of each other and don't pair as
    sorted.
    """
    here, there = Counter(ones), Counter(others)
    if here == there:
        return True
    # Rows that agree have the same key. Where keys are the same, cells are equal or numbers.
    places = [_clusters(cells) for cells in zip(*here, *there, strict=True)]
    blocks: dict[tuple, tuple[Counter, Counter]] = defaultdict(lambda: (Counter(), Counter()))
    for side, rows in enumerate((here, there)):
        for row, count in rows.items():
            key = tuple(map(dict.__getitem__, places, row))
            blocks[key][side][row] = count
    unsettled = []
    for block in blocks.values():
        mine, yours = (sorted(rows.elements()) for rows in block)
        if len(mine) != len(yours):
            return False
        if not all(map(_agree, mine, yours)):
            if not all(map(_numbers_match, zip(*mine, strict=True), zip(*yours, strict=True))):
                return False
            unsettled.append(block)
    return all(_flow(*block) == block[0].total() for block in unsettled)


def _numbers_match(ones: Sequence, others: Sequence) -> bool:
    """As `matched`, for numbers on their own: if any pairing is near, the sorted one is."""
    numbers = isinstance(ones[0], int | float)
    return not numbers or all(map(_near, sorted(ones), sorted(others)))


def _flow(here: Counter, there: Counter) -> int:
    """How many rows can be matched at most: as much as flows from a source through each row here,
    a row there that agrees, and a sink, where a row lets through its count."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import maximum_flow

    left = {row: 1 + i for i, row in enumerate(here)}
    right = {row: 1 + len(left) + i for i, row in enumerate(there)}
    sink = 1 + len(left) + len(right)
    edges = [(0, left[row], count) for row, count in here.items()]
    edges += [(right[row], sink, count) for row, count in there.items()]
    pairs = product(here, there)
    edges += [(left[one], right[other], here[one]) for one, other in pairs if _agree(one, other)]
    start, end, capacity = zip(*edges, strict=True)
    graph = csr_array((capacity, (start, end)), shape=(sink + 1, sink + 1), dtype="int32")
    return int(maximum_flow(graph, 0, sink).flow_value)


def _agree(one: Row, other: Row) -> bool:
    return all(map(_same, one, other))


def _same(one: object, other: object) -> bool:
    if {type(one), type(other)} in ({float}, {float, int}):
        return _near(one, other)
    return one == other


def _near(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=10.0**-_DIGITS, abs_tol=_TINY)


def _clusters(cells: Sequence) -> dict:
    """A number for each cell, the same for those that agree.

    On the line of numbers those between two that are near are near to both, so where neighbours are
    not near, nobody beyond is.
    """
    if not any(isinstance(cell, float) for cell in cells):
        return {cell: cell for cell in cells}
    numbers = sorted({cell for cell in cells if isinstance(cell, int | float)})
    found = {cell: cell for cell in cells if not isinstance(cell, int | float)}
    found[numbers[0]] = cluster = 0
    for before, number in pairwise(numbers):
        cluster += not _near(before, number)
        found[number] = cluster
    return found


def _turned(rows: Sequence[Row]) -> list[Row]:
    return list(zip(*rows, strict=True))


def _in_some_order_of_columns(rows: Sequence[Row], expected: Sequence[Row]) -> bool:
    """Place the columns one after the other, those with the fewest candidates first, as long as the
    rows agree in what is placed; give up after _TRIES."""
    if matched(rows, expected):
        return True
    columns = Counter(_turned(rows))
    wanted = [
        (w, [c for c in columns if matched(_turned([c]), _turned([w]))]) for w in _turned(expected)
    ]
    wanted.sort(key=lambda place: len(place[1]))
    tries = iter(range(_TRIES))

    def placed(*before: Row) -> bool:
        """Is there a place for each of the columns that are left?"""
        if len(before) == len(wanted):
            return True
        goal = _turned([column for column, _ in wanted[: len(before) + 1]])
        left = columns - Counter(before)
        return any(
            next(tries, None) is not None
            and matched(_turned([*before, column]), goal)
            and placed(*before, column)
            for column in wanted[len(before)][1]
            if column in left
        )

    return placed()
