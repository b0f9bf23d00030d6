"""Hugging Face weights, tokenizers and LoRA adapters to GGUF, checked against the originals.

Families: Llama and Mistral (one architecture for llama.cpp), Qwen2, Qwen3, Gemma 1, 2 and 3 (text).
What cannot be carried over exactly is refused with a sentence that says why.
"""

from inference.gguf.lora import export_lora
from inference.gguf.model import export_model
from inference.gguf.quantize import ATTENTION_TYPES, QUANTIZATIONS, quantize

__all__ = ["ATTENTION_TYPES", "QUANTIZATIONS", "export_lora", "export_model", "quantize"]
