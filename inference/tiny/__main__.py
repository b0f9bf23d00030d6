"""`python -m inference.tiny corpus|briefs|tokenizer|train|export|evaluate`."""

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict, fields
from itertools import islice
from pathlib import Path

from inference.tiny import GGUF_PATH, MODEL_DIR
from inference.tiny.corpus import LANGUAGES, Pair, make_draft, pairs
from inference.tiny.recipe import Recipe


def main() -> None:
    options = _parser().parse_args()
    command: Callable[[argparse.Namespace], None] = options.command
    command(options)


def corpus(options: argparse.Namespace) -> None:
    """Pairs as JSON lines, to read or to train elsewhere."""
    for pair in islice(pairs(seed=options.seed, split=options.split), options.count):
        print(json.dumps(_row(pair), ensure_ascii=False))


def briefs(options: argparse.Namespace) -> None:
    """Believable held-out briefs and their texts as JSON lines."""
    for index in range(options.count):
        pair = make_draft(
            seed=options.seed, split="heldout", index=index, language=options.language, tame=True
        )
        print(json.dumps(_row(pair), ensure_ascii=False))


def _row(pair: Pair) -> dict[str, object]:
    return {**asdict(pair), "messages": pair.messages}


def tokenizer(options: argparse.Namespace) -> None:
    from inference.tiny.tokenizer import save_tokenizer, train_tokenizer

    save_tokenizer(train_tokenizer(seed=options.seed, num_pairs=options.count), options.out)


def train(options: argparse.Namespace) -> None:
    from inference.tiny.train import Trainer

    given = {field.name: getattr(options, field.name) for field in fields(Recipe)}
    trainer = Trainer(
        Recipe(**given),
        tokenizer_dir=options.tokenizer,
        out=options.out,
        workers=options.workers,
        compiled=options.compile,
        start=options.start,
        teacher=options.teacher,
    )
    trainer.run()


def export(options: argparse.Namespace) -> None:
    from inference.gguf import export_model

    path = export_model(
        options.model, options.out, quantization=options.quantization, attention=options.attention
    )
    print(path)


def evaluate(options: argparse.Namespace) -> None:
    from inference.tiny.evaluate import StyleClassifier, cell, figures, heldout_briefs, write_samples

    pairs = heldout_briefs(count=options.count, seed=options.seed)
    samples = write_samples(str(options.model), pairs, seed=options.seed)
    for sample in samples[: options.samples]:
        print(f"{sample.pair.messages[1]['text']}\n--- {sample.pair.style}\n{sample.text}\n{'=' * 40}")
    for language in LANGUAGES:
        found = figures(cell(samples, language), StyleClassifier(language, seed=options.seed))
        for name, value in found.items():
            print(f"{language} {name:28} {value:.3f}")


def card(options: argparse.Namespace) -> None:
    from inference.tiny.card import write_card_samples

    write_card_samples(options.card, options.model, seed=options.seed)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m inference.tiny", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")

    part = commands.add_parser("corpus", help="print pairs of request and text as JSON lines")
    part.set_defaults(command=corpus)
    part.add_argument("--count", type=int, default=10)
    part.add_argument("--seed", type=int, default=1)
    part.add_argument("--split", choices=("train", "heldout"), default="train")

    part = commands.add_parser("briefs", help="print believable held-out briefs with their texts")
    part.set_defaults(command=briefs)
    part.add_argument("--count", type=int, default=10)
    part.add_argument("--seed", type=int, default=1)
    part.add_argument("--language", choices=LANGUAGES, default="en")

    part = commands.add_parser("tokenizer", help="train the tokenizer on the corpus")
    part.set_defaults(command=tokenizer)
    part.add_argument("--count", type=int, default=40_000, help="pairs to read")
    part.add_argument("--seed", type=int, default=1)
    part.add_argument("--out", type=Path, default=MODEL_DIR)

    part = commands.add_parser("train", help="train the model; goes on from a checkpoint in --out")
    part.set_defaults(command=train)
    part.add_argument("--tokenizer", type=Path, default=MODEL_DIR, help="folder with tokenizer.json")
    part.add_argument("--out", type=Path, required=True)
    part.add_argument("--workers", type=int, default=1, help="processes that make batches")
    part.add_argument("--compile", action="store_true", help="torch.compile, worth it on a GPU")
    part.add_argument("--start", type=Path, help="folder of a model of the same shape to begin with")
    part.add_argument("--teacher", type=Path, help="folder of a model of the same vocabulary to learn from")
    _add_recipe(part)

    part = commands.add_parser("export", help="write a GGUF of a Hugging Face folder")
    part.set_defaults(command=export)
    part.add_argument("--model", type=Path, default=MODEL_DIR)
    part.add_argument("--out", type=Path, default=GGUF_PATH)
    part.add_argument("--quantization", default="Q8_0")
    part.add_argument("--attention", choices=("F16", "Q8_0", "Q6_K"), help="a finer type for the attention")

    part = commands.add_parser("evaluate", help="examine the model on held-out briefs")
    part.set_defaults(command=evaluate)
    part.add_argument("--model", type=Path, default=GGUF_PATH)
    part.add_argument("--count", type=int, default=200)
    part.add_argument("--seed", type=int, default=1)
    part.add_argument("--samples", type=int, default=0, help="texts to print")

    part = commands.add_parser("card", help="write the samples of the model card anew")
    part.set_defaults(command=card)
    part.add_argument("--model", type=Path, default=GGUF_PATH)
    part.add_argument("--card", type=Path, default=MODEL_DIR / "MODEL_CARD.md")
    part.add_argument("--seed", type=int, default=1)
    return parser


def _add_recipe(parser: argparse.ArgumentParser) -> None:
    for field in fields(Recipe):
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=field.type, default=field.default)


if __name__ == "__main__":
    main()
