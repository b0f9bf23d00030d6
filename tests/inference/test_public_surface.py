import subprocess
import sys

import inference

PUBLIC = {
    "AdapterRef",
    "AdapterUnavailable",
    "Engine",
    "EngineBusy",
    "EngineDied",
    "EngineError",
    "EngineStats",
    "Event",
    "InvalidRequest",
    "ModelInfo",
    "ModelUnavailable",
    "Request",
    "Sampling",
    "TokenLogprobs",
}


def test_the_public_names() -> None:
    assert set(inference.__all__) == PUBLIC
    assert all(hasattr(inference, name) for name in PUBLIC)


def test_importing_the_engine_loads_nothing_heavy() -> None:
    code = "import sys, inference, inference.adapters, inference.models; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    heavy = {"torch", "llama_cpp", "numpy", "gguf", "transformers", "django", "celery", "inference.backends"}
    assert "inference.engine.engine" in loaded
    assert heavy.isdisjoint(loaded)
