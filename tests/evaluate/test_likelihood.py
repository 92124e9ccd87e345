"""Log-likelihoods with a shared context against lm-eval's own, and the tokens they take by hand."""

import random
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from lm_eval.models.huggingface import HFLM

from lrmoclip.core.precision import autocast
from lrmoclip.data.batches import encode, framed
from lrmoclip.evaluate import likelihood
from lrmoclip.evaluate.likelihood import SharedContextLM
from tests.support.tinylm import VOCABULARY, byte_tokenizer, random_model

FAMILIES = {
    "Llama": {},
    "Qwen3": {"tie_word_embeddings": True},
    "Gemma": {},
    "GPTNeoX": {},
    "GPT2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 160},  # learned positions
    "Gemma2": {"sliding_window": 8, "final_logit_softcapping": 0.5},  # a windowed cache
}


@pytest.fixture(scope="module")
def tokenizer():
    return byte_tokenizer()


def model_of(family: str):
    return random_model(family, **{"max_position_embeddings": 160} | FAMILIES[family])


def requests(*, shared: int = 0, long: int = 40, contexts: int = 9, seed: int = 0) -> list:
    """Contexts of 1 to `long` tokens after `shared` common ones, each with 2 to 4 continuations of
    1 to 6 tokens, some the same token by token."""
    dice = random.Random(seed)

    def draw(count: int) -> list[int]:
        return [dice.randrange(1, VOCABULARY) for _ in range(count)]

    prefix = draw(shared)
    made = []
    for _ in range(contexts):
        context = prefix + draw(dice.randint(1, long))
        made += [(("c", "a"), context, draw(dice.randint(1, 6))) for _ in range(dice.randint(2, 4))]
    return made


def both(model, tokenizer, asked: list, batch_size: int = 4) -> tuple[list, list, list, list]:
    """(ours, lm-eval's, shapes fed by us, by lm-eval)."""
    shapes: list = []
    hook = model.base_model.register_forward_pre_hook(
        lambda _, args, kwargs: shapes.append(tuple((*args, *kwargs.values())[0].shape)),
        with_kwargs=True,
    )
    ours = SharedContextLM(model, tokenizer, batch_size)
    shapes.clear()
    found = ours.likelihoods(asked, disable_tqdm=True)
    fed = list(shapes)
    shapes.clear()
    plain = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size)
    expected = plain._loglikelihood_tokens(asked, disable_tqdm=True)
    hook.remove()
    return found, expected, fed, shapes


def assert_same(found: list, expected: list) -> None:
    assert len(found) == len(expected)
    for (logp, greedy), (wanted, wanted_greedy) in zip(found, expected, strict=True):
        assert logp == pytest.approx(wanted, abs=1e-4)
        assert greedy == wanted_greedy


@pytest.mark.parametrize("shared", [0, 70])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_scores_as_lm_eval_does(family, shared, tokenizer):
    model = model_of(family)
    asked = requests(shared=shared)
    found, expected, _, _ = both(model, tokenizer, asked)
    assert_same(found, expected)


def test_greedy_continuations_are_known_as_such(tokenizer):
    model = model_of("Llama")
    asked = requests()
    for _, context, continuation in asked[::2]:
        for place in range(len(continuation)):
            ids = torch.tensor([[*context, *continuation[:place]]])
            continuation[place] = int(model(ids).logits[0, -1].argmax())
    found, expected, _, _ = both(model, tokenizer, asked)
    assert [greedy for _, greedy in found[::2]] == [True] * len(found[::2])
    assert_same(found, expected)


def test_contexts_too_long_for_the_model_lose_their_beginning(tokenizer):
    model = model_of("GPT2")
    found, expected, _, _ = both(model, tokenizer, requests(shared=70, long=150))
    assert_same(found, expected)


def test_documents_longer_than_a_batch_may_be_are_scored_alone(tokenizer, monkeypatch):
    monkeypatch.setattr(likelihood, "_TOKENS", 50)
    monkeypatch.setattr(likelihood, "_PROJECTED", 7)
    model = model_of("Llama")
    text = [SimpleNamespace(args=(" the other A" * n,)) for n in (30, 3, 9)]  # one is two windows
    ours = SharedContextLM(model, tokenizer, 4, prefix_token_id=0)
    plain = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=4, prefix_token_id=0)
    assert ours.loglikelihood_rolling(text) == pytest.approx(
        plain.loglikelihood_rolling(text), abs=1e-3
    )


def test_letters_take_one_token_each_context_and_words_their_own_tokens(tokenizer):
    model = model_of("Llama")
    letters = [
        ((), context, [letter]) for context in ([5, 6, 7], [8, 9, 4]) for letter in (1, 2, 3)
    ]
    _, _, fed, plain = both(model, tokenizer, letters)
    assert fed == plain == [(2, 3)]
    # Two choices of 2 and 3 tokens after a context of 20; the last token is never fed.
    words = [((), list(range(1, 21)), continuation) for continuation in ([30, 31], [40, 41, 42])]
    _, _, fed, plain = both(model, tokenizer, words)
    assert fed == [(1, 20), (2, 2)] and plain == [(2, 22)]


def test_a_shared_prefix_is_fed_once(tokenizer):
    model = model_of("Llama")
    prefix = list(range(1, 91))
    asked = [((), [*prefix, 100 + i, 7], [letter]) for i in range(6) for letter in (1, 2)]
    _, _, fed, plain = both(model, tokenizer, asked)
    assert fed == [(1, 90), (4, 2), (2, 2)]
    assert plain == [(4, 92), (2, 92)]


def test_the_projection_stays_in_float32_where_the_body_is_bfloat16(tokenizer):
    model = model_of("Llama")
    context, letters = [5, 6, 7, 8], [1, 2, 3, 4]
    lm = SharedContextLM(model, tokenizer, 4)
    with autocast("bfloat16", model.device), torch.no_grad():
        found = lm.likelihoods([((), context, [i]) for i in letters], True)
        hidden = model.base_model(torch.tensor([context])).last_hidden_state[0, -1]
    expected = F.linear(hidden.float(), model.lm_head.weight).log_softmax(-1)[letters]
    assert [logp for logp, _ in found] == pytest.approx(expected.tolist(), abs=1e-5)


@pytest.mark.parametrize("beginning", [False, True], ids=["plain", "beginning"])
def test_evaluation_splits_prompt_and_answer_as_training_does(beginning):
    tokenizer = byte_tokenizer(beginning)
    records = [
        {"prompt": "Question: the other one?\nAnswer:", "answer": "An otter"},
        {"prompt": "A\nB\nSQL:", "answer": "SELECT 12 FROM t WHERE x = 'é'"},
        {"prompt": "the", "answer": "A"},
    ]
    lm = SharedContextLM(model_of("Llama"), tokenizer, 4)
    trained = encode(records, tokenizer)
    for record, ids, start in zip(records, trained.ids, trained.prompt_lengths, strict=True):
        context, continuation = lm._encode_pair(record["prompt"], f" {record['answer']}")
        assert [*context, *continuation, tokenizer.eos_token_id] == ids.tolist()
        assert len(context) == start
        assert tokenizer.decode(continuation) == f" {record['answer']}"
        [written], _ = lm.tok_batch_encode([record["prompt"]])  # what an answer is generated after
        assert written.tolist() == context
        assert (int(ids[0]) == tokenizer.bos_token_id) == beginning


def test_a_chat_template_that_writes_the_beginning_is_not_given_another():
    tokenizer = byte_tokenizer(beginning=True)
    tokenizer.chat_template = (
        "{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %} A:{% endif %}"
    )
    record = {"prompt": "the", "answer": "An otter"}
    [ids] = encode([record], tokenizer, chat=True).ids
    [prompt] = framed([record["prompt"]], tokenizer, chat=True)
    lm = SharedContextLM(model_of("Llama"), tokenizer, 4)
    assert ids.tolist().count(tokenizer.bos_token_id) == 1
    assert lm.tok_encode(prompt) == ids.tolist()[: len(lm.tok_encode(prompt))]
