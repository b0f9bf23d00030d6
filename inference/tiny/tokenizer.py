"""Byte-level BPE trained on the corpus; digits stand alone, control tokens cannot be typed."""

from collections.abc import Iterator
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from inference.chat import END_OF_TURN, Tokenize
from inference.tiny.corpus import make_pair

END_OF_TEXT = "<|endoftext|>"
CONTROL_TOKENS = (END_OF_TEXT, "<|im_start|>", END_OF_TURN)
VOCAB_SIZE = 10_240
MAX_TOKENS = 2048

# The split of the Qwen2 family: llama.cpp knows it as "qwen2". Every digit is a token, so
# that a number is copied digit by digit.
_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# For other programs; Galley writes the scaffold itself, see inference/chat.py.
_CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def train_tokenizer(*, seed: int, num_pairs: int, vocab_size: int = VOCAB_SIZE) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in CONTROL_TOKENS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(seed, num_pairs), trainer)
    return tokenizer


def _texts(seed: int, num_pairs: int) -> Iterator[str]:
    for index in range(num_pairs):
        pair = make_pair(seed=seed, split="train", index=index)
        yield from (message["text"] for message in pair.messages)
        yield pair.text


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    wrapped = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        eos_token=END_OF_TURN,
        pad_token=END_OF_TEXT,
        model_max_length=MAX_TOKENS,
        clean_up_tokenization_spaces=False,
    )
    wrapped.chat_template = _CHAT_TEMPLATE
    wrapped.save_pretrained(folder)


def load_tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def tokenize_with(folder: Path) -> Tokenize:
    """The function that `inference.chat` asks for."""
    scaffold, typed = load_tokenizer(folder), load_tokenizer(folder)
    typed.encode_special_tokens = True

    def tokenize(text: str, special: bool) -> list[int]:
        ids: list[int] = (scaffold if special else typed).encode(text, add_special_tokens=False).ids
        return ids

    return tokenize
