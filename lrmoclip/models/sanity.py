"""Whether a pretrained model was read rightly: whether it predicts plain text."""

import math

import torch

from lrmoclip.core.errors import UserError

# Text of our own, so that no corpus holds it.
PASSAGE = (
    "A river carries rain and melted snow from the hills to the sea. On its way it wears down "
    "rock, carries sand and mud, and drops them where the water slows. Towns have grown beside "
    "rivers since people first farmed, for the water drives mills, carries boats and feeds the "
    "fields."
)
QUESTION, BEGUN = "What is the capital of France?", "The capital of France is"
WORST_PERPLEXITY = 200.0  # of PASSAGE; a model that knows nothing has one of V


@torch.no_grad()
def sanity(model, tokenizer) -> dict:
    """`perplexity` (per token) of PASSAGE, and for the reader of a manifest the `greedy` answer to
    a `question`, by the chat template, or without one to a text that it goes on with.

    Raises UserError for a perplexity that shows a model that was read wrongly.
    """
    model.eval()
    passage = tokenizer(PASSAGE, return_tensors="pt")["input_ids"]
    perplexity = math.exp(model(input_ids=passage, labels=passage).loss)
    if not perplexity < WORST_PERPLEXITY:
        raise UserError(
            f"The converted model is not sane: perplexity {perplexity:.0f} of a plain passage, a "
            f"model that was read rightly has less than {WORST_PERPLEXITY:.0f}",
            "Report it with the versions of transformers and gguf",
        )
    asked = QUESTION if tokenizer.chat_template else BEGUN
    if tokenizer.chat_template:
        prompt = tokenizer.apply_chat_template(
            [{"role": "user", "content": QUESTION}],
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=True,
        )
    else:
        prompt = tokenizer(BEGUN, return_tensors="pt")
    whole = model.generate(**prompt, max_new_tokens=24, do_sample=False)[0]
    greedy = tokenizer.decode(whole[prompt["input_ids"].shape[1] :], skip_special_tokens=True)
    return {"perplexity": round(perplexity, 2), "question": asked, "greedy": greedy.strip()}
