"""The general benchmarks' worlds: facts by subject (stands in for MMLU), latent two-hop facts
(GPQA), procedures over a given context (BIG-Bench Hard), arithmetic (MATH), and recitals, which
stand for nothing of the paper's: a generated answer that no arithmetic makes."""

from random import Random

from lrmoclip.data.micro.facts import Fact, multiple_choice, record
from lrmoclip.data.micro.words import COLOURS, POOLS, SUBJECTS, TOWN_RELATIONS


def subject_facts(dice: Random, per_relation: int = 50) -> list[Fact]:
    """micro_mmlu: 8 relations of 4 subjects, each holding for `per_relation` entities."""
    facts = []
    relations = [(s, r) for s, pair in SUBJECTS.items() for r in pair]
    for n, (subject, relation) in enumerate(relations):
        pool = tuple(POOLS["value"][20 * n : 20 * n + 20])
        for entity in dice.sample(POOLS["entity"], per_relation):
            prompts = (
                f"in {subject} , what is the {relation} of {entity} ?",
                f"{subject} question : tell me the {relation} for {entity} . answer :",
                f"{entity} is known in {subject} for its {relation} :",
            )
            key = f"mmlu-{relation}-{entity}"
            facts.append(Fact(key, prompts, dice.choice(pool), pool))
    dice.shuffle(facts)
    return facts


def two_hop_facts(dice: Random) -> tuple[list[Fact], list[Fact]]:
    """micro_gpqa: (questions that need person -> town -> value, the single hops they rest on)."""
    homes = {person: dice.choice(POOLS["town"]) for person in POOLS["person"]}
    hops, values = [], {}
    for person, town in homes.items():
        prompts = (
            f"what is the home town of {person} ?",
            f"{person} lives in the town of",
            f"give the home of {person} :",
        )
        hops.append(Fact(f"home-{person}", prompts, town, tuple(POOLS["town"])))
    for n, relation in enumerate(TOWN_RELATIONS):
        pool = tuple(POOLS["town_value"][20 * n : 20 * n + 20])
        for town in POOLS["town"]:
            values[town, relation] = dice.choice(pool)
            prompts = (
                f"what is the {relation} of {town} ?",
                f"the town {town} has the {relation}",
                f"give the {relation} of {town} :",
            )
            hops.append(Fact(f"{relation}-{town}", prompts, values[town, relation], pool))
    questions = []
    for person, town in homes.items():
        for n, relation in enumerate(TOWN_RELATIONS):
            prompts = (
                f"what is the {relation} of the home town of {person} ?",
                f"{person} comes from a town that has the {relation}",
                f"give the {relation} of the town where {person} lives :",
            )
            pool = tuple(POOLS["town_value"][20 * n : 20 * n + 20])
            key = f"gpqa-{relation}-{person}"
            questions.append(Fact(key, prompts, values[town, relation], pool))
    dice.shuffle(questions)
    return questions, hops


def arithmetic_facts(dice: Random, limit: int = 25) -> list[Fact]:
    """micro_math: sums and differences of numbers below `limit`."""
    pool = tuple(str(n) for n in range(2 * limit))
    facts = []
    for a in range(limit):
        for b in range(limit):
            for sign, result in (("plus", a + b), ("minus", a - b)):
                if result >= 0:
                    prompts = (
                        f"what is {a} {sign} {b} ?",
                        f"compute {a} {sign} {b} :",
                        f"{a} {sign} {b} equals",
                    )
                    facts.append(Fact(f"math-{a}-{sign}-{b}", prompts, str(result), pool))
    dice.shuffle(facts)
    return facts


def procedure(key: str, dice: Random) -> dict:
    """micro_bbh: one fresh four-choice instance of lookup, counting or tracking."""
    return dice.choice((_lookup, _count, _track))(key, dice)


def _lookup(key: str, dice: Random) -> dict:
    colours, items = dice.sample(COLOURS, 3), dice.sample(POOLS["item"], 4)
    # The fourth item is an option that is in no box.
    context = " , ".join(f"{c} {i}" for c, i in zip(colours, items[:3], strict=True))
    asked = dice.randrange(3)
    prompt = f"boxes : {context} . " + dice.choice(
        (
            f"what is in the box that is {colours[asked]}",
            f"which item has the colour {colours[asked]}",
            f"give the item for {colours[asked]}",
        )
    )
    return multiple_choice(key, prompt, items[asked], items, dice, procedure="lookup")


def _count(key: str, dice: Random) -> dict:
    kinds = dice.sample(POOLS["item"], 2)
    times = dice.randint(1, 4)
    listed = [kinds[0]] * times + [kinds[1]] * dice.randint(1, 3)
    dice.shuffle(listed)
    prompt = f"list : {' '.join(listed)} . " + dice.choice(
        (
            f"how many times does {kinds[0]} occur ?",
            f"count of {kinds[0]} :",
            f"the total number of {kinds[0]} is",
        )
    )
    return multiple_choice(key, prompt, str(times), ("1", "2", "3", "4"), dice, procedure="count")


def _track(key: str, dice: Random) -> dict:
    people, thing = dice.sample(POOLS["holder"], 4), dice.choice(POOLS["item"])
    steps = [f"{people[0]} holds {thing}"]
    moves = dice.randint(1, 3)
    steps += [f"{people[i]} passes it to {people[i + 1]}" for i in range(moves)]
    now = ("who has it now ?", "now it is with", f"give the person who has {thing} now :")
    first = ("who has it first ?", "first it is with", f"give the person who has {thing} first :")
    asked, answer = dice.choice(((now, people[moves]), (first, people[0])))
    prompt = f"{' . '.join(steps)} . {dice.choice(asked)}"
    # Everyone may be named as an option, whether or not the thing has reached them.
    return multiple_choice(key, prompt, answer, people, dice, procedure="track")


def recital(key: str, dice: Random) -> dict:
    """micro_recite: go on with a list from a named item. Looking something up in a context rests on
    this, and every word of the answer teaches it."""
    listed = dice.sample(POOLS["item"], 6)
    start = dice.randrange(3)
    prompt = f"list : {' '.join(listed)} . all items listed from {listed[start]}"
    return record(key, prompt, " ".join(listed[start + 1 :]))


def as_training(item: dict) -> dict:
    return record(item["id"], item["prompt"], item["answer"])
