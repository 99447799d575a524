"""Small texts in the formats people have them in."""

import random

import pyarrow as pa
from pyarrow import parquet

WORDS = ("the", "of", "and", "a", "in", "to", "was", "on", "as", "for", "by", "with", "that", "it", "from", "his", "at")
SPLITS = {"train": 24, "validation": 4, "test": 4}


def articles(count, seed=0):
    """Articles as WikiText has them: lines with a title between equals signs, paragraphs and empty lines."""
    rng = random.Random(seed)  # noqa: S311
    lines = []
    for number in range(count):
        lines += ["", f" = Article {number} = ", ""]
        for _ in range(4):
            lines += [f" {' '.join(rng.choices(WORDS, k=60))} café — naïve . ", ""]
    return lines


def write_wikitext(root, suffix="tokens"):
    """``wiki.train.tokens`` and its likes, as published."""
    root.mkdir(parents=True, exist_ok=True)
    for seed, (split, count) in enumerate(SPLITS.items()):
        name = {"validation": "valid"}.get(split, split)
        (root / f"wiki.{name}.{suffix}").write_text("\n".join(articles(count, seed)) + "\n", encoding="utf-8")
    return root


def write_wikitext_parquet(root):
    """As on the Hugging Face Hub: a row a line, with its line break, empty lines without."""
    folder = root / "wikitext-2-raw-v1"
    folder.mkdir(parents=True)
    for seed, (split, count) in enumerate(SPLITS.items()):
        rows = [f"{line}\n" if line else "" for line in articles(count, seed)]
        parquet.write_table(pa.table({"text": rows}), folder / f"{split}-00000-of-00001.parquet")
    return root


def write_saved_dataset(root):
    """A folder of ``datasets.save_to_disk`` with three splits."""
    from datasets import Dataset, DatasetDict

    texts = {split: [" ".join(articles(1, seed)) for seed in range(count)] for split, count in SPLITS.items()}
    DatasetDict({split: Dataset.from_dict({"text": rows}) for split, rows in texts.items()}).save_to_disk(str(root))
    return root


def write_plain(root):
    """One .txt file."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "book.txt").write_text("\n".join(articles(12)), encoding="utf-8")
    return root
