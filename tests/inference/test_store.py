"""Models of this installation: added from files and folders, named, chosen."""

import json
import shutil
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from inference import ModelUnavailable
from inference.model_cli import what_would_fit
from inference.models import resolve, shards
from inference.sources import LocalSource, choose
from inference.store import BUILT_IN, Entry, Store
from inference.tiny import MODEL_DIR
from tests.support.random_gguf import write_model


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "home")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face folder without a GGUF."""
    folder = tmp_path_factory.mktemp("models") / "harbour-chat"
    shutil.copytree(MODEL_DIR, folder, ignore=shutil.ignore_patterns("*.gguf"))
    return folder


def silent(*_: object) -> None:
    """No progress is wanted."""


def add(store: Store, source: Path | str, *, copy: bool = False, **options: str) -> Entry:
    plan = store.plan(str(source), **options)
    store.require_space(plan, copy=copy)
    return store.add(plan, copy=copy, progress=silent, say=silent)


def test_the_model_that_ships_is_built_in(store: Store) -> None:
    (entry,) = store.entries()
    assert (entry.name, entry.family, entry.trainable) == (BUILT_IN, "llama", True)
    assert store.chosen() == BUILT_IN
    assert resolve(str(store.path(entry)), store.home).kind == "gguf"


def test_a_gguf_is_linked_and_opens_from_its_place(store: Store, tmp_path: Path) -> None:
    gguf = write_model(tmp_path / "harbour-Q8_0.gguf")

    entry = add(store, gguf)

    assert entry.name == "harbour-Q8_0"
    assert entry.sha256 == sha256(gguf.read_bytes()).hexdigest()
    assert (entry.size, entry.quantization, entry.trainable) == (gguf.stat().st_size, "Q8_0", False)
    assert store.find("harbour-Q8_0") == entry
    assert store.path(entry).is_symlink()
    assert resolve(str(store.path(entry)), store.home).sha256 == entry.sha256


def test_a_copy_stays_when_the_original_goes(store: Store, tmp_path: Path) -> None:
    gguf = write_model(tmp_path / "harbour.gguf")
    linked, copied = add(store, gguf, name="linked"), add(store, gguf, name="copied", copy=True)
    gguf.unlink()

    assert store.use(copied.name) == copied
    with pytest.raises(ModelUnavailable, match=r"linked is gone from .*harbour.gguf; put it back"):
        store.use(linked.name)


def test_a_folder_is_for_writing_and_for_training(store: Store, folder: Path) -> None:
    entry = add(store, folder)

    place = store.path(entry)
    assert (entry.name, entry.quantization, entry.trainable) == ("harbour-chat", "F16", True)
    assert (place / "config.json").is_file()
    assert (place / "model.safetensors").resolve() == folder / "model.safetensors"
    assert resolve(str(place), store.home / "cache").path.parent == store.home / "cache"


def test_a_folder_is_written_in_the_quantisation_that_is_asked_for(store: Store, folder: Path) -> None:
    entry = add(store, folder, name="small", quantization="q4_0")

    opened = resolve(str(store.path(entry)), store.home / "cache")
    assert (entry.quantization, entry.trainable) == ("Q4_0", True)
    assert opened.path == store.path(entry) / "small-q4_0.gguf"
    assert not list(folder.glob("*.gguf"))


def test_the_gguf_beside_a_folder_comes_with_it(store: Store) -> None:
    entry = add(store, MODEL_DIR, name="again")

    opened = resolve(str(store.path(entry)), store.home)
    assert opened.sha256 == resolve(str(MODEL_DIR), store.home).sha256
    assert entry.trainable


def test_a_folder_that_was_linked_can_be_trained_on(store: Store, folder: Path) -> None:
    from inference.training.model import load_base, load_tokenize

    place = str(store.path(add(store, folder)))

    import torch

    written = json.loads((MODEL_DIR / "config.json").read_text())
    assert load_base(place, torch.device("cpu")).config.vocab_size == written["vocab_size"]
    assert len(load_tokenize(place)("<|im_end|>", True)) == 1


def test_a_split_gguf_is_one_model_with_one_name(store: Store, tmp_path: Path) -> None:
    names = shards("harbour-00001-of-00002.gguf")
    content = write_model(tmp_path / names[0]).read_bytes()
    (tmp_path / names[1]).write_bytes(b"GGUF and the rest")

    entry = add(store, tmp_path / names[0])

    assert entry.name == "harbour"
    assert entry.size == len(content) + 17
    opened = resolve(str(store.path(entry)), store.home)
    (tmp_path / names[1]).write_bytes(b"GGUF and another")
    assert resolve(str(store.path(entry)), store.home).sha256 != opened.sha256


# --- use -----------------------------------------------------------------------------------------


def test_the_choice_is_kept_and_taken_back(store: Store, tmp_path: Path) -> None:
    add(store, write_model(tmp_path / "harbour.gguf"))

    store.use("harbour")
    assert Store(store.home).chosen() == "harbour"

    store.use(BUILT_IN)
    assert store.chosen() == BUILT_IN


def test_an_unknown_name_is_told_with_the_known_ones(store: Store) -> None:
    with pytest.raises(ModelUnavailable, match=r"no model 'harbor'; there is galley-tiny \("):
        store.use("harbor")


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["../harbour", "a/b", ".hidden", "", BUILT_IN, "in-use", "x" * 65, "a b"])
def test_a_name_is_no_path(store: Store, tmp_path: Path, name: str) -> None:
    gguf = write_model(tmp_path / "Hafen Ü.gguf")
    if not name:
        assert store.plan(str(gguf)).name == "Hafen"
        return
    with pytest.raises(ModelUnavailable, match="cannot be a model's name"):
        store.plan(str(gguf), name=name)


def test_a_name_is_given_once(store: Store, tmp_path: Path) -> None:
    gguf = write_model(tmp_path / "harbour.gguf")
    add(store, gguf)
    with pytest.raises(ModelUnavailable, match="a model harbour already"):
        add(store, gguf)


def test_a_model_without_chatml_is_refused_by_name(store: Store, folder: Path, tmp_path: Path) -> None:
    gguf = write_model(tmp_path / "other.gguf")
    gguf.write_bytes(gguf.read_bytes().replace(b"<|im_start|>", b"<|im_starts>"))
    with pytest.raises(
        ModelUnavailable, match=r"other.gguf has no ChatML tokens; the engine speaks ChatML only"
    ):
        store.plan(str(gguf))

    other = shutil.copytree(folder, tmp_path / "other")
    text = (other / "tokenizer.json").read_text()
    (other / "tokenizer.json").write_text(text.replace("<|im_start|>", "<start>"))
    with pytest.raises(ModelUnavailable, match=r"other has no ChatML tokens.* Qwen families"):
        store.plan(str(other))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"model_type": "bert"}, "is a bert model"),
        ({"quantization_config": {"quant_method": "awq"}}, r"already quantised \(awq\)"),
        (
            {"rope_parameters": {"rope_type": "yarn", "factor": 2.0, "rope_theta": 1e4}},
            "scales its positions",
        ),
    ],
)
def test_a_folder_that_cannot_be_converted_is_refused_at_once(
    store: Store, folder: Path, tmp_path: Path, change: dict[str, object], complaint: str
) -> None:
    other = shutil.copytree(folder, tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(ModelUnavailable, match=complaint) as refusal:
        store.plan(str(other))
    assert ".adding" not in str(refusal.value)


def test_a_quantisation_that_we_cannot_write_is_refused(store: Store, folder: Path) -> None:
    with pytest.raises(ModelUnavailable, match="unknown quantization Q9; choose one of F32"):
        store.plan(str(folder), quantization="q9")


def test_what_is_no_model_is_refused(store: Store, tmp_path: Path) -> None:
    (tmp_path / "notes.gguf").write_text("dear diary")
    with pytest.raises(ModelUnavailable, match="not a GGUF file, or it is damaged"):
        store.plan(str(tmp_path / "notes.gguf"))
    with pytest.raises(ModelUnavailable, match=r"no file or folder /nowhere/x.gguf"):
        store.plan("/nowhere/x.gguf")


def test_a_disk_that_is_too_small_is_told_before_the_copy(store: Store, tmp_path: Path) -> None:
    gguf = write_model(tmp_path / "harbour.gguf")
    source = LocalSource(gguf)
    source.sizes = {"harbour.gguf": 10**18}
    plan = replace(store.plan(str(gguf)), source=source)
    store.require_space(plan, copy=False)
    with pytest.raises(ModelUnavailable, match=r"needs 1e\+06 TB on the disk"):
        store.require_space(plan, copy=True)


def test_what_would_fit_is_named_as_an_option_that_works(store: Store, folder: Path, tmp_path: Path) -> None:
    plan = store.plan(str(folder))
    needed = plan.need(8192)

    advice = [what_would_fit(plan, cells=8192, available=needed.total - short) for short in (1, 10**7, 10**8)]
    assert advice[0] == "--quantization Q8_0 would fit"
    assert advice[1] == "--quantization Q6_K would fit"
    assert advice[2] == "not even Q4_0 would fit: take a smaller model"

    small = plan.conversion_bytes - 1
    assert what_would_fit(plan, cells=1, available=small).startswith("not even Q2_K")
    gguf = store.plan(str(write_model(tmp_path / "harbour.gguf")))
    assert what_would_fit(gguf, cells=8192, available=10**10) == "a GGUF of it in F32 would fit"


# --- which files ---------------------------------------------------------------------------------

FOLDER = {"config.json": 1, "tokenizer.json": 1, "model.safetensors": 9, "consolidated.safetensors": 9}
GGUFS = {"x-Q4_K.gguf": 4, "x-Q4_K_M.gguf": 5, "deep/x-Q8_0.gguf": 8, "mmproj-F16.gguf": 1}


def test_one_gguf_is_picked_by_name_or_by_quantisation() -> None:
    assert choose(GGUFS, file="deep/x-Q8_0.gguf").gguf == ("deep/x-Q8_0.gguf",)
    assert choose(GGUFS, quantization="Q4_K").gguf == ("x-Q4_K.gguf",)
    assert choose(GGUFS | FOLDER, quantization="Q8_0").location == "deep/x-Q8_0.gguf"
    assert choose({"x.gguf": 1}).gguf == ("x.gguf",)


def test_a_whole_folder_comes_before_the_ggufs_in_it() -> None:
    choice = choose(GGUFS | FOLDER)
    assert choice.files == ("config.json", "tokenizer.json", "model.safetensors")
    assert choose(FOLDER, quantization="Q6_K").convert_to == "Q6_K"


@pytest.mark.parametrize(
    ("sizes", "options", "complaint"),
    [
        (GGUFS, {}, r"several GGUF files: name one with --file; there is deep/x-Q8_0.gguf \(8 B\), x-Q4_K.g"),
        (GGUFS, {"quantization": "Q2_K"}, "no single GGUF is in Q2_K"),
        (GGUFS, {"file": "y.gguf"}, "no whole GGUF y.gguf"),
        ({"x-00001-of-00002.gguf": 1}, {}, "neither a GGUF nor a whole"),
        ({"adapter_config.json": 1, "adapter_model.safetensors": 1}, {}, "an adapter, not a model"),
        ({"config.json": 1, "tokenizer.json": 1, "pytorch_model.bin": 1}, {}, "pickled"),
        ({"config.json": 1, "model.safetensors": 1}, {}, r"missing: tokenizer.json\)"),
        ({}, {}, "neither a GGUF nor"),
    ],
)
def test_what_cannot_be_chosen_is_told_with_what_there_is(
    sizes: dict[str, int], options: dict[str, str], complaint: str
) -> None:
    with pytest.raises(ModelUnavailable, match=complaint):
        choose(sizes, file=options.get("file", ""), quantization=options.get("quantization", ""))
