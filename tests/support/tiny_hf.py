"""A random, very small Llama as a Hugging Face folder, and run folders that train it: milliseconds a step."""

import json
from pathlib import Path

CONTROL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
SAMPLE_TEXT = (
    "The ferry leaves at nine from the old pier.",
    "Style: news\nSubject: the harbour\nLength: 20 words",
)


def write_tiny_hf(folder: Path, *, seed: int = 0) -> Path:
    """Write config, weights (float32, about 130 thousand) and a byte-level BPE tokenizer; return `folder`."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    num_tokens = _write_tokenizer(folder)
    config = LlamaConfig(
        vocab_size=num_tokens,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        bos_token_id=0,
        eos_token_id=2,
        pad_token_id=0,
        tie_word_embeddings=True,
    )
    torch.manual_seed(seed)
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def _write_tokenizer(folder: Path) -> int:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=list(CONTROL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SAMPLE_TEXT, trainer)
    end_of_text, _, end_of_turn = CONTROL_TOKENS
    PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, bos_token=end_of_text, eos_token=end_of_turn, pad_token=end_of_text
    ).save_pretrained(folder)
    return tokenizer.get_vocab_size()


def write_run(folder: Path, model: Path, **settings: object) -> Path:
    """Write a run folder with 8 harbour notices and 2 held-out ones; `settings` go into config.json."""
    folder.mkdir(parents=True)
    config = {"model_dir": str(model), "base_sha256": "0" * 64, "device": "cpu", "batch_size": 4} | settings
    (folder / "config.json").write_text(json.dumps(config))
    write_records(folder / "train.jsonl", [harbour_notice(n) for n in range(8)])
    write_records(folder / "heldout.jsonl", [harbour_notice(n) for n in (90, 91)])
    return folder


def harbour_notice(number: int, **fields: object) -> dict[str, object]:
    messages = [
        {"role": "system", "text": "Style: news"},
        {"role": "user", "text": f"Subject: ferry {number}\nLength: {number % 5 + 8} words"},
    ]
    text = f"Ferry {number} leaves at nine{' sharp' * (number % 3)}.\n— Galley desk"
    return {"id": f"notice-{number:02}", "messages": messages, "completion": text} | fields


def write_records(path: Path, records: list[dict[str, object]]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
