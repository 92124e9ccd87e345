"""From records to tokens: plain text and a chat template, and what is supervised of them."""

import pytest
import torch

from lrmoclip.core.errors import UserError
from lrmoclip.data.batches import collate, encode, framed

# The format of Qwen3's: turns between im_start and im_end, and an empty thought where thinking is
# switched off.
TEMPLATE = (
    "{% for message in messages %}"
    "<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n"
    "{% endif %}{% endif %}"
)
RECORDS = [
    {"prompt": "Which layer routes?", "answer": "network"},
    {"prompt": "Count:", "answer": "SELECT COUNT(*)\nFROM city"},
]


def byte_tokenizer(template: str | None = TEMPLATE, pad_token: str | None = "<|endoftext|>"):
    """Bytes, with one merge that a prompt's end and an answer's beginning could make."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*alphabet, "ĊĊ", "ĊS"]  # two line breaks; a line break and an S
    merges = [("Ċ", "Ċ"), ("Ċ", "S")]
    tokenizer = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [AddedToken(t, special=True) for t in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token=pad_token
    )
    fast.chat_template = template
    return fast


def texts(data, tokenizer) -> list[tuple[str, str]]:
    """Each record's prompt and the rest, decoded."""
    return [
        (tokenizer.decode(ids[:start]), tokenizer.decode(ids[start:]))
        for ids, start in zip(data.ids, data.prompt_lengths, strict=True)
    ]


def test_plain_text_is_prompt_space_answer():
    tokenizer = byte_tokenizer()

    found = texts(encode(RECORDS, tokenizer), tokenizer)

    assert found == [(r["prompt"], f" {r['answer']}<|im_end|>") for r in RECORDS]


def test_a_chat_is_a_users_turn_and_the_answer_as_the_assistants_without_a_thought():
    tokenizer = byte_tokenizer()

    found = texts(encode(RECORDS, tokenizer, chat=True), tokenizer)

    assert found == [
        (
            f"<|im_start|>user\n{r['prompt']}<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
            f"{r['answer']}<|im_end|>",
        )
        for r in RECORDS
    ]


def test_the_marks_of_a_turn_are_single_tokens_and_the_last_ends_the_sequence():
    tokenizer = byte_tokenizer()
    start, end = tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])

    for ids in encode(RECORDS, tokenizer, chat=True).ids:
        assert (ids == start).sum() == 2 and (ids == end).sum() == 2
        assert ids[-1] == end == tokenizer.eos_token_id


def test_what_is_supervised_follows_just_what_a_model_is_handed():
    tokenizer = byte_tokenizer()
    data = encode(RECORDS, tokenizer, chat=True)
    handed = framed([r["prompt"] for r in RECORDS], tokenizer, chat=True)

    for i, text in enumerate(handed):
        prompt = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert data.ids[i][: data.prompt_lengths[i]].tolist() == prompt
        batch = collate(data, [i])
        assert torch.equal(batch.gold, data.ids[i][len(prompt) :])


def test_a_template_whose_end_would_merge_with_the_answer_leaves_both_whole():
    template = "<|im_start|>{{ messages[0].content }}{{ '\n' }}"
    tokenizer = byte_tokenizer(template)
    merged = tokenizer("\nS", add_special_tokens=False)["input_ids"]
    assert len(merged) == 1  # so that the case is one

    found = texts(encode(RECORDS, tokenizer, chat=True), tokenizer)

    assert found[1] == ("<|im_start|>Count:\n", "SELECT COUNT(*)\nFROM city<|im_end|>")


def test_a_tokenizer_without_a_template_is_refused():
    with pytest.raises(UserError, match=r"no chat template.*prompting\.chat_template: false"):
        encode(RECORDS, byte_tokenizer(template=None), chat=True)


def test_without_a_pad_token_the_end_of_sequence_pads_and_is_not_supervised():
    tokenizer = byte_tokenizer(pad_token=None)
    data = encode(RECORDS, tokenizer)

    batch = collate(data, [0, 1])

    assert data.pad_id == tokenizer.eos_token_id
    assert [int(n) for n in batch.supervised.sum(1)] == data.supervised.tolist()
