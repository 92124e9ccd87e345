"""Where the hub holds the general benchmarks: the repositories that lm-eval 0.4.13's tasks name.

Keys are the data folder's sets, as `sources.Hub` wants them; `{split}` is the part that an adapter
asks for. Revisions are not stated here: `lrmoclip fetch` finds them and keeps them in its lock
file. GPQA is gated: its terms must be accepted, and a token set.
"""

GENERAL: dict[str, dict[str, str]] = {
    "mmlu": {"repo": "cais/mmlu", "name": "all"},  # every subject, as one configuration
    "bbh": {"repo": "SaylorTwift/bbh", "name": "{split}", "split": "test"},
    "gpqa": {"repo": "Idavidrein/gpqa", "name": "{split}", "split": "train"},
    "math/algebra": {"repo": "EleutherAI/hendrycks_math", "name": "algebra"},
    "math/counting_and_probability": {
        "repo": "EleutherAI/hendrycks_math",
        "name": "counting_and_probability",
    },
    "math/geometry": {"repo": "EleutherAI/hendrycks_math", "name": "geometry"},
    "math/intermediate_algebra": {
        "repo": "EleutherAI/hendrycks_math",
        "name": "intermediate_algebra",
    },
    "math/number_theory": {"repo": "EleutherAI/hendrycks_math", "name": "number_theory"},
    "math/prealgebra": {"repo": "EleutherAI/hendrycks_math", "name": "prealgebra"},
    "math/precalculus": {"repo": "EleutherAI/hendrycks_math", "name": "precalculus"},
    "easy/arc_easy": {"repo": "allenai/ai2_arc", "name": "ARC-Easy"},
    "easy/hellaswag": {"repo": "Rowan/hellaswag", "split": "validation"},
    "easy/piqa": {"repo": "baber/piqa"},
    "easy/lambada": {"repo": "EleutherAI/lambada_openai", "name": "default"},
    "easy/blimp": {"repo": "nyu-mll/blimp", "name": "{split}", "split": "train"},
    "easy/wikitext2": {
        "repo": "EleutherAI/wikitext_document_level",
        "name": "wikitext-2-raw-v1",
    },
}
