"""The parts of a scale's file, with their bounds and defaults."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, model_validator

from lrmoclip.edge.typed import (
    Count,
    Name,
    NotNegative,
    Positive,
    PositiveShare,
    Seed,
    Share,
    Text,
    Typed,
    by_key,
    by_value,
    refuse_repeats,
)

CONTEXT = 512  # tokens that a base trained here can read
Repository = Annotated[str, Field(pattern=r"^[^/\s]+/[^/\s]+$")]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Lr = Annotated[float, Field(gt=0, le=1)]


class Architecture(Typed):
    """What the plan needs of a model, so that it works before the weights are there: entries of its
    transformers config, others than these included."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, int | bool | str]

    model_type: Text
    vocab_size: Count
    hidden_size: Count
    intermediate_size: Count
    num_hidden_layers: Count
    num_attention_heads: Count


class Scratch(Typed):
    """A base that is pretrained here."""

    family: Literal["qwen3", "llama", "gemma", "gpt_neox"]
    seed: Seed
    vocabulary: Annotated[int, Field(ge=8192, le=10**6)]
    hidden: Count
    intermediate: Count
    layers: Count
    heads: Count
    steps: Count
    batch_size: Count
    lr: Lr

    @model_validator(mode="after")
    def _heads_divide(self):
        # Rotary embeddings turn pairs; GPT-NeoX turns a quarter of each head.
        pairs = 8 if self.family == "gpt_neox" else 2
        if self.hidden % (pairs * self.heads):
            raise ValueError(
                f"hidden {self.hidden} with heads {self.heads}: each head must be a multiple of "
                f"{pairs} wide"
            )
        return self


class Wheel(Typed):
    """A base out of a PyPI wheel that carries a GGUF file of this digest, or parts of it."""

    wheel: Text
    version: Text
    sha256: Digest
    architecture: Architecture | None = None


class Hub(Typed):
    """A base from the Hugging Face hub, at a commit."""

    hub: Repository
    revision: Text
    architecture: Architecture


class Folder(Typed):
    """A base out of a folder of the user's, a Hugging Face checkpoint."""

    path: Text


Base = by_key(wheel=Wheel, hub=Hub, path=Folder, family=Scratch)


class MicroSizes(Typed):
    pretraining: Count
    replay: Count  # of the pretraining text, for replay and for EWC's Fisher
    validation: Annotated[int, Field(ge=1, le=300)]  # of facts, what test leaves of them
    test: Annotated[int, Field(ge=1, le=300)]
    databases: Annotated[int, Field(ge=1, le=1000)]
    nl2sql_train: Count

    @model_validator(mode="after")
    def _replay_is_of_pretraining(self):
        if self.replay > self.pretraining:
            raise ValueError(
                f"replay: {self.replay} records of {self.pretraining} of pretraining, lower it"
            )
        return self


class MicroData(Typed):
    """Generated."""

    generator: Literal["micro"]
    seed: Seed
    sizes: MicroSizes


class DomainSizes(Typed):
    """Records a split, all where it is left out. style: of telecom, what an answer is. schema: of
    SQL, whether CREATE TABLE statements open the prompt."""

    train: Count | None = None
    validation: Count | None = None
    test: Count | None = None
    style: Literal["text", "letter"] | None = None
    schema_: bool | None = Field(None, alias="schema")


class GeneralSizes(Typed):
    """tasks: the family of lm-eval's tasks, where it has several."""

    validation: Count | None = None
    test: Count | None = None
    tasks: Name | None = None


class Pin(Typed):
    hub: Repository
    revision: Text


class Leakage(Typed):
    ngram: Annotated[int, Field(ge=2, le=1000)]
    limit: Share


class PublishedData(Typed):
    """From a folder, or from `repositories` on the hub, by role."""

    generator: Literal["published"]
    seed: Seed
    domains: dict[Literal["telecom", "nl2sql", "sqleval"], DomainSizes]
    general: dict[Name, GeneralSizes]
    replay: Count
    leakage: Leakage
    repositories: dict[Name, Pin] = Field(default_factory=dict)


Data = by_value("generator", micro=MicroData, published=PublishedData)


class Benchmark(Typed):
    """An evaluation task and the metric that counts. exact: its metric of greedy exact answers.
    averaged: whether it enters the general score. optional: it runs where it is named alone.
    num_fewshot: instead of the number that lm-eval's task has."""

    task: Name
    kind: Literal["choice", "generate", "sql", "harness"]
    metric: Literal[
        "acc", "acc_norm", "exact_match", "exact_match,flexible-extract", "math_verify",
        "execution_accuracy", "perplexity", "word_perplexity",
    ]  # fmt: skip
    exact: Literal["exact_match"] | None = None
    chance: Share | None = None
    averaged: bool = True
    optional: bool = False
    max_new_tokens: Count | None = None
    num_fewshot: Annotated[int, Field(ge=0, le=100)] | None = None


class Domain(Benchmark):
    """A benchmark that is trained for. folder: of the user's own records (docs/extending.md), for a
    domain that the scale's data do not hold; train, validation, test: how many of them, all where
    one is left out, a tenth of train where there is no file of validation."""

    folder: Text | None = None
    train: Count | None = None
    validation: Count | None = None
    test: Count | None = None

    @model_validator(mode="after")
    def _sizes_are_of_a_folder(self):
        if self.folder is None and (self.train or self.validation or self.test):
            raise ValueError("train, validation and test are of a folder, add the key folder")
        if self.folder is not None and self.kind == "harness":
            raise ValueError("kind: of a folder of records it is choice, generate or sql")
        return self


class Stage0(Typed):
    """batch_size: records a forward pass."""

    coverage: PositiveShare
    k_min: Count
    k_max: Count
    batch_size: Count

    @model_validator(mode="after")
    def _smallest_is_not_above_largest(self):
        if self.k_min > self.k_max:
            raise ValueError(f"k_min {self.k_min} is above k_max {self.k_max}, lower it")
        return self


class Stage1(Typed):
    """warmup: share of the steps. probe_every, checkpoint_steps: steps between probes and between
    run states, None for none. micro_batch: records a forward pass, None for all of a step."""

    epochs: Annotated[float, Field(gt=0, le=10_000)]
    batch_size: Count
    warmup: Share
    weight_decay: NotNegative
    betas: Annotated[list[Annotated[float, Field(ge=0, lt=1)]], Field(min_length=2, max_length=2)]
    probe_records: Count
    probe_every: Count
    micro_batch: Count | None = None
    gradient_checkpointing: bool = False
    length_buckets: bool = False
    checkpoint_steps: Count | None = None


class Ewc(Typed):
    fisher_records: Count


class Evaluation(Typed):
    batch_size: Count
    max_new_tokens: Count
    backend: Literal["hf", "vllm"] = "hf"


Budget = Annotated[float, Field(ge=0, le=100)]


class Tuning(Typed):
    """docs/tuning.md. settings: of a method's knobs, tried at each rate; a method without knobs is
    tried at that many more rates between the same ends. seeds: the second one for what is near a
    choice. budget: points of general skill that a choice may lose; budgets: those of the fronts."""

    seeds: Annotated[list[Seed], Field(min_length=1, max_length=2)]
    learning_rates: Annotated[list[Lr], Field(min_length=2, max_length=100)]
    settings: Annotated[int, Field(ge=1, le=100)] = 1
    budget: Budget = 5.0
    budgets: list[Budget] = Field(default_factory=lambda: [5.0])

    @model_validator(mode="after")
    def _each_once(self):
        for name in ("learning_rates", "seeds", "budgets"):
            refuse_repeats(name, getattr(self, name))
        if self.budget not in self.budgets:
            raise ValueError(f"budget: {self.budget} is none of budgets. Add it")
        return self


class Study(Typed):
    """What `snakemake study` runs on every base: run seeds, and methods as they were chosen at the
    budget of the tables. at_budgets: those that run as chosen at every other budget, too."""

    seeds: Annotated[list[Annotated[int, Field(ge=1, lt=2**31)]], Field(min_length=1)]
    methods: Annotated[list[Name], Field(min_length=1)]
    at_budgets: list[Name] = Field(default_factory=list)

    @model_validator(mode="after")
    def _each_once(self):
        for name in ("seeds", "methods", "at_budgets"):
            refuse_repeats(name, getattr(self, name))
        if others := [name for name in self.at_budgets if name not in self.methods]:
            raise ValueError(f"at_budgets: {others[0]} is none of methods. Add it")
        return self


class Timing(Typed):
    """rounds: steps of each method, taken in turns."""

    rounds: Annotated[int, Field(ge=1, le=100_000)]


class Threads(Typed):
    """Of torch: constants, because another count may change the last bits."""

    pretrain: Annotated[int, Field(ge=1, le=4096)]
    train: Annotated[int, Field(ge=1, le=4096)]
    evaluate: Annotated[int, Field(ge=1, le=4096)]


class Averages(Typed):
    """What the plan takes a set for before its records are there: tokens of a prompt and an answer
    in the mean, options that are scored apart; records to train on and items of a split, where the
    data take all there are."""

    prompt: NotNegative
    answer: Positive
    options: Positive = 1.0
    records: Count | None = None
    validation: Count | None = None
    test: Count | None = None


class Prompting(Typed):
    chat_template: bool = False
    thinking: bool = False

    @model_validator(mode="after")
    def _leaves_no_room_for_thought(self):
        if self.thinking:
            raise ValueError(
                "thinking: choices are scored by their likelihood, which leaves no room for "
                "thought. Set thinking: false"
            )
        return self
