"""Logits Replay + MoClip in a training loop of your own:  python examples/own_loop.py

Stage 0 writes the candidate sets of the untouched model to a store, batch by batch; Stage 1 trains
on the restricted loss over these sets alone. Here a tiny random model learns which token follows
which. Replace `model`, `ids`, `targets` (the next tokens), `supervised` and `bound`."""

import tempfile

import torch
import transformers

import lrmoclip as lr
from lrmoclip.heads import head_of, supervised_hidden
from lrmoclip.losses import probe

torch.manual_seed(0)
config = transformers.Qwen3Config(vocab_size=300, hidden_size=64, intermediate_size=128,
                                  num_hidden_layers=2, head_dim=16)  # fmt: skip
model = transformers.AutoModelForCausalLM.from_config(config).eval()  # or .from_pretrained(...)
follower, data = torch.randperm(300), [torch.randint(300, (256,))]
for _ in range(9):
    data.append(follower[data[-1]])
ids, targets = torch.stack(data[:-1], 1), torch.stack(data[1:], 1)  # (256 records, 9 positions)
supervised = torch.arange(9).expand(256, 9) > 0  # what is asked for, not the prompt or padding
bound = {"base": "tiny", "tokenizer": "none", "data": "followers"}  # of files: their hashes


@torch.no_grad()
def report(when: str, sets: lr.Candidates) -> None:
    """The model over the whole vocabulary, which the restricted loss does not see."""
    hidden, gold = supervised_hidden(model.eval(), ids, supervised), targets[supervised]
    seen = probe(hidden, candidates=sets, targets=gold, **head_of(model)._asdict())
    accuracy = (head_of(model).logits(hidden).argmax(1) == gold).float().mean()
    print(f"{when}: full cross-entropy {seen.cross_entropy.mean():.3f}, accuracy {accuracy:.1%}, "
          f"outside mass {seen.log_outside.exp().mean():.1%}")  # fmt: skip


with tempfile.TemporaryDirectory() as folder:
    path, settings = f"{folder}/store", {"coverage": 0.9, "k_min": 1, "k_max": 32}
    with lr.StoreWriter(path, bound, vocabulary=300, settings=settings) as writer, torch.no_grad():
        for rows in torch.arange(writer.records, len(ids)).split(32):  # goes on where it stopped
            mask, gold = supervised[rows], targets[rows][supervised[rows]]
            logits = head_of(model).logits(supervised_hidden(model, ids[rows], mask))
            writer.add(lr.select_candidates(logits, gold, **settings), gold, mask.sum(1))
    store = lr.CandidateStore.load(path, bound)
    report("before", store.batch(range(len(ids))))
    optimizer = lr.MoClip(model.parameters(), lr=3e-3, weight_decay=0.01)
    for step, rows in enumerate(torch.randint(len(ids), (80, 32))):
        hidden = supervised_hidden(model.train(), ids[rows], supervised[rows])  # (N, d), no logits
        sets, gold = store.batch(rows), targets[rows][supervised[rows]]
        loss = lr.restricted_linear_cross_entropy(
            hidden, candidates=sets, targets=gold, **head_of(model)._asdict()
        )  # denominator="union" holds the outside mass down, too
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if step % 10 == 0:
            print(f"step {step}: restricted loss {loss.item():.3f}")
    report("after", store.batch(range(len(ids))))
