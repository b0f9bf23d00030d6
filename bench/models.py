"""Models with random weights in real sizes: their speed is real, their text is not."""

import shutil
from pathlib import Path

from inference import AdapterRef, adapters
from inference.gguf import export_lora, export_model
from inference.models import resolve
from inference.tiny import MODEL_DIR

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


def random_model(folder: Path) -> Path:
    """A Llama of 93 M parameters, 12 layers of 768 channels, as `folder`/hf and as a Q4_0 GGUF."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    hf = folder / "hf"
    hf.mkdir(parents=True)
    for name in _TOKENIZER_FILES:
        shutil.copyfile(MODEL_DIR / name, hf / name)
    shipped = PreTrainedTokenizerFast.from_pretrained(MODEL_DIR)  # type: ignore[no-untyped-call]
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(shipped),
        hidden_size=768,
        intermediate_size=2048,
        num_hidden_layers=12,
        num_attention_heads=12,
        num_key_value_heads=12,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=shipped.eos_token_id,
        pad_token_id=shipped.pad_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(hf)
    return export_model(hf, folder / "random-q4_0.gguf", quantization="Q4_0")


def random_adapter(folder: Path, model: Path, *, seed: int) -> AdapterRef:
    """A sealed LoRA of rank 16 on all linear layers of what `random_model` made in `folder`."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    config = LoraConfig(task_type="CAUSAL_LM", r=16, target_modules="all-linear", init_lora_weights=False)
    target = folder / f"adapter-{seed}"
    get_peft_model(AutoModelForCausalLM.from_pretrained(folder / "hf"), config).save_pretrained(str(target))
    export_lora(target, folder / "hf", target / adapters.GGUF_NAME)
    manifest = adapters.seal(target, base_sha256=resolve(str(model), folder).sha256)
    return AdapterRef(sha256=manifest.sha256, path=str(target))
