"""Logits Replay + MoClip with the Trainer of transformers:  python examples/trainer.py

Stage 0 writes the candidate sets of the untouched model to a store, Stage 1 trains on them. Here a
tiny random model learns which token follows which. Replace `model`, `bound`, `records` (`labels`
are -100 where nothing is to be learned) and the collator, by one that pads and keeps `record`."""

import tempfile

import torch
import transformers
from transformers import default_data_collator as collate

import lrmoclip as lr
from lrmoclip.heads import head_of, supervised_hidden

torch.manual_seed(0)
config = transformers.Gemma2Config(vocab_size=300, hidden_size=64, intermediate_size=128,
                                   num_hidden_layers=2, head_dim=16)  # fmt: skip
model = transformers.AutoModelForCausalLM.from_config(config).eval()  # or .from_pretrained(...)
follower, data = torch.randperm(300), [torch.randint(300, (256,))]
for _ in range(9):
    data.append(follower[data[-1]])
records = [{"input_ids": ids, "labels": ids.where(torch.arange(10) > 1, -100), "record": i,
            "attention_mask": ids >= 0} for i, ids in enumerate(torch.stack(data, 1))]  # fmt: skip
bound = {"base": "tiny", "tokenizer": "none", "data": "followers"}  # of files: their hashes


def reach(model, inputs: dict) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Hidden states (N, d) and targets (N,) of supervised positions, and how many a record has."""
    ids, seen = (inputs[key][:, :-1] for key in ("input_ids", "attention_mask"))
    mask = (targets := inputs["labels"][:, 1:]) != -100
    return supervised_hidden(model, ids, mask, seen), targets[mask], mask.sum(1)


class RestrictedTrainer(transformers.Trainer):
    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        hidden, gold, _ = reach(model, inputs)
        head, sets = head_of(model)._asdict(), store.batch(inputs["record"].cpu()).to(gold.device)
        return lr.restricted_linear_cross_entropy(  # denominator="own", the default: as published
            hidden, candidates=sets, targets=gold, denominator="union", **head)  # fmt: skip


with tempfile.TemporaryDirectory() as folder:
    path, settings = f"{folder}/store", {"coverage": 0.9, "k_min": 1, "k_max": 32}
    with lr.StoreWriter(path, bound, vocabulary=300, settings=settings) as writer, torch.no_grad():
        for i in range(writer.records, len(records), 32):  # goes on where it stopped
            hidden, gold, counts = reach(model, collate(records[i : i + 32]))
            sets = lr.select_candidates(head_of(model).logits(hidden), gold, **settings)
            writer.add(sets, gold, counts)
    store = lr.CandidateStore.load(path, bound)
    options = transformers.TrainingArguments(
        folder, max_steps=80, per_device_train_batch_size=32, logging_steps=10, use_cpu=True,
        remove_unused_columns=False, save_strategy="no", report_to="none")  # fmt: skip
    moclip = (lr.MoClip, {"lr": 1e-2})
    trainer = RestrictedTrainer(model, options, collate, records, optimizer_cls_and_kwargs=moclip)
    trainer.loss_is_scaled_for_ga = False  # a loss is the mean over its own micro-batch
    trainer.train()
    hidden, gold, _ = reach(model.eval(), collate(records))
    print(f"accuracy {(head_of(model).logits(hidden).argmax(1) == gold).float().mean():.1%}")
