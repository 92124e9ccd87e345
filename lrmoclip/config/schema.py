"""What the files in workflow/config/ may say: a scale, its methods, devices; and within what
bounds."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, model_validator

from lrmoclip.edge.typed import (
    Count,
    NotNegative,
    Positive,
    PositiveShare,
    Seed,
    Share,
    Text,
    Typed,
    by_key,
    by_value,
)

CONTEXT = 512  # tokens that a base trained here can read
# Names become folders and files below results/, beside these.
TAKEN = {"data", "logs", "figures", "reference", "benchmarks"}
ScaleName = Annotated[str, Field(pattern=r"^[a-z0-9]+$")]
BaseName = Annotated[str, Field(pattern=r"^[a-z0-9]+([.-]+[a-z0-9]+)*$", max_length=60)]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=60)]
DeviceName = Annotated[str, Field(pattern=r"^[a-z0-9-]+$")]
Repository = Annotated[str, Field(pattern=r"^[^/\s]+/[^/\s]+$")]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Precision = Literal["float32", "bfloat16"]


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
    num_key_value_heads: Count | None = None
    head_dim: Count | None = None
    tie_word_embeddings: bool | None = None


class Scratch(Typed):
    family: Literal["qwen3", "llama", "gemma", "gpt_neox"]
    seed: Seed
    vocabulary: Annotated[int, Field(ge=8192, le=10**6)]
    hidden: Count
    intermediate: Count
    layers: Count
    heads: Count
    steps: Count
    batch_size: Count
    lr: Annotated[float, Field(gt=0, le=1)]

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
    wheel: Text
    version: Text
    sha256: Digest  # of the GGUF file in it
    architecture: Architecture | None = None


class Hub(Typed):
    hub: Repository
    revision: Text
    architecture: Architecture


Base = by_key(wheel=Wheel, hub=Hub, family=Scratch)


class MicroSizes(Typed):
    pretraining: Count
    replay: Count
    validation: Annotated[int, Field(ge=1, le=100)]
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
    generator: Literal["micro"]
    seed: Seed
    sizes: MicroSizes


class DomainSizes(Typed):
    train: Count | None = None
    validation: Count | None = None
    test: Count | None = None
    style: Literal["text", "letter"] | None = None  # telecom: what an answer is
    schema_: bool | None = Field(None, alias="schema")  # SQL: CREATE TABLE statements in the prompt


class GeneralSizes(Typed):
    validation: Count | None = None
    test: Count | None = None
    tasks: Name | None = None  # the family of lm-eval's tasks, where it has several


class Pin(Typed):
    hub: Repository
    revision: Text


class Leakage(Typed):
    ngram: Annotated[int, Field(ge=2, le=1000)]
    limit: Share


class PublishedData(Typed):
    generator: Literal["published"]
    seed: Seed
    domains: dict[Literal["telecom", "nl2sql", "sqleval"], DomainSizes]
    general: dict[Name, GeneralSizes]
    replay: Count
    leakage: Leakage
    repositories: dict[Name, Pin] | None = None  # on the hub, by role, at a revision


class Benchmark(Typed):
    task: Name
    kind: Literal["choice", "generate", "sql", "harness"]
    metric: Literal[
        "acc", "acc_norm", "exact_match", "exact_match,flexible-extract", "math_verify",
        "execution_accuracy", "word_perplexity",
    ]  # fmt: skip
    exact: Literal["exact_match"] | None = None
    chance: Share | None = None
    averaged: bool | None = None
    optional: bool | None = None  # runs where it is named: --config domains=
    max_new_tokens: Count | None = None
    # Instead of the number that lm-eval's task has.
    num_fewshot: Annotated[int, Field(ge=0, le=100)] | None = None


class Stage0(Typed):
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
    epochs: Annotated[float, Field(gt=0, le=10_000)]
    batch_size: Count
    warmup: Share
    weight_decay: NotNegative
    betas: Annotated[list[Annotated[float, Field(ge=0, lt=1)]], Field(min_length=2, max_length=2)]
    probe_records: Count
    probe_every: Count
    micro_batch: Count | None = None  # records a forward pass; steps stay batch_size
    gradient_checkpointing: bool | None = None
    length_buckets: bool | None = None
    checkpoint_steps: Count | None = None  # a run that died goes on from there


class Ewc(Typed):
    fisher_records: Count


class Evaluation(Typed):
    batch_size: Count
    max_new_tokens: Count
    backend: Literal["hf", "vllm"] | None = None


class Tuning(Typed):
    seed: Seed
    learning_rates: Annotated[
        list[Annotated[float, Field(gt=0, le=1)]], Field(min_length=2, max_length=100)
    ]

    @model_validator(mode="after")
    def _each_once(self):
        _refuse_repeats("learning_rates", self.learning_rates)
        return self


class Timing(Typed):
    rounds: Annotated[int, Field(ge=1, le=100_000)]


class Threads(Typed):
    pretrain: Annotated[int, Field(ge=1, le=4096)]
    train: Annotated[int, Field(ge=1, le=4096)]
    evaluate: Annotated[int, Field(ge=1, le=4096)]


class Prompting(Typed):
    chat_template: bool
    thinking: bool | None = None

    @model_validator(mode="after")
    def _leaves_no_room_for_thought(self):
        if self.thinking:
            raise ValueError(
                "thinking: choices are scored by their likelihood, which leaves no room for "
                "thought. Set thinking: false"
            )
        return self


RunSeed = Annotated[int, Field(ge=1, lt=2**31)]


class ScaleFile(Typed):
    """One scale of the study."""

    scale: ScaleName
    methods_file: Text
    data: by_value("generator", micro=MicroData, published=PublishedData)
    bases: Annotated[dict[BaseName, Base], Field(min_length=1)]
    general: Annotated[dict[Name, Benchmark], Field(min_length=1)]
    domains: Annotated[
        dict[Literal["telecom", "nl2sql", "sqleval"], Benchmark], Field(min_length=1)
    ]
    methods: Annotated[list[Name], Field(min_length=1)]
    seeds: Annotated[list[RunSeed], Field(min_length=1)]
    seeds_per_job: Count
    stage0: Stage0
    stage1: Stage1
    ewc: Ewc
    evaluation: Evaluation
    tuning: Tuning
    learning_rates: Text
    timing: Timing
    threads: Threads
    precision: Precision | None = None  # bfloat16: autocast; weights stay float32
    prompting: Prompting | None = None
    gpus: Annotated[int, Field(ge=1, le=4096)] | None = None  # of one run, sharded by FSDP2
    # Tokens of a record, for what is planned before its data are there.
    plan: dict[Name, dict[Name, Count]] | None = None

    @model_validator(mode="after")
    def _fits_together(self):
        for name in (self.scale, *self.bases):
            if name in TAKEN:
                raise ValueError(f"{name!r} names another folder of the results. Choose another")
        _refuse_repeats("methods", self.methods)
        _refuse_repeats("seeds", self.seeds)
        for base in self.bases.values():
            if isinstance(base, Scratch):
                for where in (self.evaluation, *self.general.values(), *self.domains.values()):
                    if (most := where.max_new_tokens) and most >= CONTEXT:
                        raise ValueError(
                            f"max_new_tokens {most}: a base trained here reads {CONTEXT} tokens, "
                            "with the prompt. Lower it"
                        )
        return self


class Full(Typed):
    name: Literal["full"]


class Restricted(Typed):
    name: Literal["restricted"]
    denominator: Literal["own", "union"] | None = None
    negatives: Count | None = None
    coverage: PositiveShare | None = None
    k_max: Count | None = None

    @model_validator(mode="after")
    def _negatives_need_the_union(self):
        if self.negatives and self.denominator != "union":
            raise ValueError("negatives need the union. Set denominator: union")
        return self


class AdamW(Typed):
    name: Literal["adamw"]


class MoClip(Typed):
    name: Literal["moclip"]
    max_angle: Annotated[float, Field(gt=0, le=180)] | None = None
    step: Literal["atan2", "adam"] | None = None


class NoAdapter(Typed):
    name: Literal["none"]


class Lora(Typed):
    name: Literal["lora"]
    rank: Annotated[int, Field(ge=1, le=65_536)]
    alpha: Positive


class NoPenalty(Typed):
    name: Literal["none"]


class EwcPenalty(Typed):
    name: Literal["ewc"]
    strength: Positive


Objective = by_value("name", full=Full, restricted=Restricted)
Optimizer = by_value("name", adamw=AdamW, moclip=MoClip)
Adapter = by_value("name", none=NoAdapter, lora=Lora)
Penalty = by_value("name", none=NoPenalty, ewc=EwcPenalty)
Replay = Annotated[float, Field(ge=0, le=10)]


class Defaults(Typed):
    objective: Objective
    optimizer: Optimizer
    adapter: Adapter
    penalty: Penalty
    replay: Replay


class Method(Typed):
    label: Text
    objective: Objective | None = None
    optimizer: Optimizer | None = None
    adapter: Adapter | None = None
    penalty: Penalty | None = None
    replay: Replay | None = None


class MethodsFile(Typed):
    """Methods as points on five axes."""

    defaults: Defaults
    methods: Annotated[dict[Name, Method], Field(min_length=1)]

    @model_validator(mode="after")
    def _base_is_no_method(self):
        for name in ("base", "stage0", "replay_stage0"):
            if name in self.methods:
                raise ValueError(f"methods: {name!r} names another folder. Choose another name")
        return self


class ByPrecision(Typed):
    float32: Positive
    bfloat16: Positive


class Achieved(Typed):
    float32: PositiveShare
    bfloat16: PositiveShare


class Sources(Typed):
    date: Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$")]
    peak: Text
    achieved: Text
    memory: Text
    price: Text


class DeviceEntry(Typed):
    label: Text
    kind: Literal["cpu", "cuda"]
    memory_gb: Positive
    reserved_gb: NotNegative
    peak_flops: ByPrecision
    achieved: Achieved
    bandwidth: Positive
    link: Positive
    launch_s: NotNegative
    usd_per_hour: Positive
    sources: Sources
    cores: Count | None = None


class DevicesFile(Typed):
    """Devices that the plan predicts time, memory and cost for."""

    devices: Annotated[dict[DeviceName, DeviceEntry], Field(min_length=1)]


def _refuse_repeats(key: str, values: list) -> None:
    for value in values:
        if values.count(value) > 1:
            raise ValueError(f"{key}: {value!r} stands twice. Name each once")
