from dataclasses import replace
from pathlib import Path

import pytest

from inference import AdapterRef, AdapterUnavailable, Engine, ModelUnavailable, Request, Sampling, adapters

TULIPS = Request(id="draft", messages=({"role": "user", "text": "tulips in spring"},))


def written(model: str, home: Path, *requests: Request) -> list[str]:
    with Engine.open(model, home=home) as engine:
        return ["".join(event.text for event in engine.submit(each)) for each in requests]


def sealed(folder: Path) -> AdapterRef:
    folder.mkdir()
    for name in (adapters.CONFIG_NAME, adapters.WEIGHTS_NAME, adapters.GGUF_NAME):
        (folder / name).write_bytes(b"anything")
    return AdapterRef(sha256=adapters.seal(folder, base_sha256="any").sha256, path=str(folder))


def test_a_text_depends_on_messages_seed_and_adapter_only(tmp_path: Path) -> None:
    requests = [
        TULIPS,
        replace(TULIPS, sampling=Sampling(seed=1)),
        replace(TULIPS, adapter=sealed(tmp_path / "adapter")),
        replace(TULIPS, messages=({"role": "user", "text": "roses in spring"},)),
    ]
    fast, faster = "fake:?tokens_per_second=5000", "fake:?tokens_per_second=9000"
    texts = written(fast, tmp_path, *requests)
    assert len(set(texts)) == 4
    assert written(faster, tmp_path, *(replace(each, id="again") for each in requests)) == texts


def test_its_length_is_an_option(tmp_path: Path) -> None:
    (text,) = written("fake:?num_tokens=7", tmp_path, TULIPS)
    assert len(text.split()) == 7


def test_it_checks_adapters_as_a_real_one_does(tmp_path: Path) -> None:
    missing = AdapterRef(sha256="0" * 64, path=str(tmp_path / "missing"))
    with pytest.raises(AdapterUnavailable):
        written("fake:", tmp_path, replace(TULIPS, adapter=missing))


@pytest.mark.parametrize("model", ["fake:?num_tokens=many", "fake:?num_tokens", "fake:?warp=9"])
def test_a_bad_option_is_refused(tmp_path: Path, model: str) -> None:
    with pytest.raises(ModelUnavailable):
        written(model, tmp_path)
