"""Domain `telecom`: a made-up communication standard. New entities (pairs of known words) and their
attributes, in the formats that pretraining showed with other standards and fresh values."""

from random import Random

from lrmoclip.data.micro.facts import Fact, record
from lrmoclip.data.micro.words import ATTRIBUTES, CLASSES, POOLS

# Pretraining names this standard in its other releases, and the domain's code words elsewhere.
DOMAIN_STANDARD = f"{POOLS['standard'][0]} 7"
OTHER_STANDARDS = [f"{name} {n}" for name in POOLS["standard"] for n in range(1, 10)]
OTHER_STANDARDS.remove(DOMAIN_STANDARD)
ENTITIES = 50


def _prompts(standard: str, attribute: str, entity: str) -> tuple[str, str, str]:
    return (
        f"in the {standard} standard , which {attribute} does the {entity} use ?",
        f"{standard} specification : {attribute} of the {entity} :",
        f"according to {standard} the {entity} has the {attribute}",
    )


def _values(attribute: str) -> list[str]:
    n = ATTRIBUTES.index(attribute)
    return POOLS["telecom_value"][16 * n : 16 * n + 16]


def facts(dice: Random) -> list[Fact]:
    """The domain: every attribute of each of the new standard's entities."""
    found = []
    codes = dice.sample(POOLS["code"], ENTITIES)
    for code in codes:
        entity = f"{code} {dice.choice(CLASSES)}"
        for attribute in ATTRIBUTES:
            pool = tuple(_values(attribute))
            found.append(
                Fact(
                    f"telecom-{attribute}-{entity.replace(' ', '-')}",
                    _prompts(DOMAIN_STANDARD, attribute, entity),
                    dice.choice(pool),
                    pool,
                )
            )
    dice.shuffle(found)
    return found


def other_standard(key: str, dice: Random) -> dict:
    """Pretraining text that makes the domain warm: another standard, a value that will not recur.

    Values follow a skewed prior, so that the base model learns which answers are plausible and no
    fact that could be memorised.
    """
    standard = dice.choice(OTHER_STANDARDS)
    attribute = dice.choice(ATTRIBUTES)
    entity = f"{dice.choice(POOLS['code'])} {dice.choice(CLASSES)}"
    values = _values(attribute)
    weights = [(rank + 2) ** -0.7 for rank in range(len(values))]
    answer = dice.choices(values, weights)[0]
    return record(key, dice.choice(_prompts(standard, attribute, entity)), answer)
