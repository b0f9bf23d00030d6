"""The small model that ships: its corpus, its tokenizer, its training and its examination."""

from pathlib import Path

MODEL_DIR = Path(__file__).resolve().parent / "model"
GGUF_PATH = MODEL_DIR / "galley-tiny-q8_0.gguf"
