"""The micro world's words: hand-written English where a template needs sense, invented names
elsewhere. Every list is a constant of the seedless construction below, so it is the same
everywhere; the tokenizer's vocabulary is exactly these words."""

NUMBERS = [str(n) for n in range(1000)]

SUBJECTS = {  # subject -> its two relations
    "geography": ("capital", "export"),
    "biology": ("habitat", "diet"),
    "history": ("founder", "era"),
    "chemistry": ("solvent", "colour"),
}
TOWN_RELATIONS = ("river", "mayor", "dish", "festival")
ATTRIBUTES = ("modulation", "codec", "band", "timer", "interface", "bearer", "cipher", "beacon")
CLASSES = ("gateway", "relay", "terminal", "switch", "repeater", "router", "tower", "hub")
COLOURS = "red blue green black white yellow purple orange".split()
TABLES = (
    "crew ships ports staff rooms books films songs shops farms mines labs clubs teams parks "
    "roads bridges trains planes hotels museums schools banks stores plants animals lakes towers "
    "games tools"
).split()
TEXT_COLUMNS = (
    "name city owner kind country style brand material region status season grade"
).split()
NUMBER_COLUMNS = (
    "age price weight height length speed score rank year floor seats sales depth power area cost"
).split()
# Domain jargon: what the people of the NL2SQL domain say instead of the column's name.
JARGON = {
    "name": ("moniker", "label"),
    "city": ("base", "locale"),
    "owner": ("keeper", "holder"),
    "kind": ("flavour", "breed"),
    "country": ("flag", "realm"),
    "style": ("look", "cut"),
    "brand": ("badge", "marque"),
    "material": ("stuff", "fabric"),
    "region": ("zone", "sector"),
    "status": ("mood", "phase"),
    "season": ("spell", "stretch"),
    "grade": ("tier", "class"),
    "age": ("vintage", "miles"),
    "price": ("tag", "ask"),
    "weight": ("heft", "load"),
    "height": ("rise", "top"),
    "length": ("span", "reach"),
    "speed": ("pace", "clip"),
    "score": ("marks", "tally"),
    "rank": ("rung", "seat"),
    "year": ("mark", "stamp"),
    "floor": ("deck", "storey"),
    "seats": ("room", "berths"),
    "sales": ("takings", "turnover"),
    "depth": ("draft", "drop"),
    "power": ("punch", "muscle"),
    "area": ("spread", "footprint"),
    "cost": ("damage", "outlay"),
}
SQL = (
    "SELECT FROM WHERE ORDER BY GROUP DESC LIMIT COUNT MAX MIN AVG SUM AND DISTINCT ( ) * , = > < ;"
).split()
TEMPLATE_WORDS = (
    "question answer : . ? , in the of is what which a to does has use with for tell me its known "
    "how many times occur list listed box boxes holds passes who now first compute plus minus "
    "equals give home town lives comes from person standard specification according each average "
    "highest lowest total number all show above below where sorted by descending tables sql item "
    "items count that it are"
).split()

_ONSETS = "b d f g h j k l m n p r s t v w z br dr gr kr pl st tr".split()
_VOWELS = "a e i o u ai or en".split()
_SYLLABLES = [onset + vowel for onset in _ONSETS for vowel in _VOWELS]


def _invented(count: int) -> list[str]:
    """`count` distinct two- and three-syllable names, in a fixed scattered order."""
    size, taken = len(_SYLLABLES), set()
    english = {w.lower() for w in english_words()}
    for i in range(10 * count):
        parts = [_SYLLABLES[(i * 59 + 7) % size], _SYLLABLES[(i * i + 31 * i + i // size) % size]]
        if i % 3 == 0:
            parts.append(_SYLLABLES[(i * 83 + 5) % size])
        name = "".join(parts)
        if name not in english:
            taken.add(name)
        if len(taken) == count:
            return sorted(taken, key=lambda n: (sum(n.encode()) * 7919 % 1009, n))
    raise AssertionError("too few syllables for so many names")


def english_words() -> list[str]:
    """Every hand-written word and sign, without duplicates, in a fixed order."""
    words: dict[str, None] = {}
    for group in (
        SQL, TEMPLATE_WORDS, SUBJECTS, TOWN_RELATIONS, ATTRIBUTES, CLASSES, COLOURS, TABLES,
        TEXT_COLUMNS, NUMBER_COLUMNS, *SUBJECTS.values(), *JARGON.values(),
    ):  # fmt: skip
        words.update(dict.fromkeys(group))
    return list(words)


def name_pools(sizes: dict[str, int]) -> dict[str, list[str]]:
    """Disjoint pools of invented names, `sizes` names each, by purpose."""
    names = iter(_invented(sum(sizes.values())))
    return {purpose: [next(names) for _ in range(size)] for purpose, size in sizes.items()}


POOLS = name_pools(
    {
        "entity": 60,  # of micro_mmlu
        "value": 160,  # 8 relations x 20
        "person": 120,  # of micro_gpqa
        "town": 40,
        "town_value": 80,  # 4 relations x 20
        "item": 60,  # of micro_bbh
        "holder": 60,
        "code": 1500,  # first word of a telecom entity
        "telecom_value": 128,  # 8 attributes x 16
        "standard": 12,
        "cell": 300,  # text cells of databases
    }
)


def vocabulary(size: int) -> list[str]:
    """All words the world can write, filled up to `size` with names that it never writes.

    A real tokenizer, too, holds many tokens that a domain never uses.
    """
    words = english_words() + NUMBERS
    words += [name for pool in POOLS.values() for name in pool]
    words += [f"'{name}'" for name in POOLS["cell"]]
    if len(words) > size:
        raise ValueError(f"the micro world needs {len(words)} words, the vocabulary has {size}")
    known = set(words)
    spare = (n for n in _invented(12_000) if n not in known)
    return words + [next(spare) for _ in range(size - len(words))]
