"""Models from a hub: a server on the loopback address that speaks, cuts and refuses as hubs do."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from inference import ModelUnavailable
from inference.store import Entry, Store
from inference.tiny import MODEL_DIR
from tests.support.hub import COMMIT, FakeHub, running
from tests.support.random_gguf import write_model
from tests.support.servers import free_port

REPO, GGUF_REPO = "quay/harbour-chat", "quay/harbour-GGUF"
WEIGHTS = "model.safetensors"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with running() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.address)
        ships = (path for path in MODEL_DIR.iterdir() if path.suffix != ".gguf")
        hub.repos[REPO] = {path.name: path.read_bytes() for path in ships}
        gguf = write_model(tmp_path / "made.gguf").read_bytes()
        hub.repos[GGUF_REPO] = {"README.md": b"#", "h-Q8_0.gguf": gguf, "h-Q4_0.gguf": gguf}
        yield hub


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "home")


def silent(*_: object) -> None:
    """No progress is wanted."""


def add(store: Store, repo: str = REPO, **options: str) -> Entry:
    return store.add(store.plan(repo, **options), copy=False, progress=silent, say=silent)


def test_a_folder_comes_whole_and_pinned(hub: FakeHub, store: Store) -> None:
    entry = add(store)

    place = store.path(entry)
    assert (entry.name, entry.source, entry.revision) == ("harbour-chat", REPO, COMMIT)
    assert entry.trainable
    assert (place / WEIGHTS).read_bytes() == hub.repos[REPO][WEIGHTS]
    assert not list(store.folder.rglob("*.part"))
    assert hub.asked_for("MODEL_CARD.md") == hub.asked_for("recipe.json") == []


def test_a_gguf_is_picked_by_its_quantisation(hub: FakeHub, store: Store) -> None:
    entry = add(store, GGUF_REPO, quantization="q8_0")
    assert store.path(entry).name == "h-Q8_0.gguf"
    assert hub.asked_for("h-Q4_0.gguf") == []


def test_nothing_large_is_asked_for_before_the_sizing(hub: FakeHub, store: Store) -> None:
    folder, gguf = store.plan(REPO), store.plan(GGUF_REPO, file="h-Q8_0.gguf")

    assert folder.need(8192).weights == (MODEL_DIR / WEIGHTS).stat().st_size
    assert gguf.facts.quantization == "Q8_0"
    assert folder.conversion_bytes == folder.need(8192).weights
    assert hub.asked_for(WEIGHTS) == []
    assert all(span.startswith("bytes=0-") for span in hub.asked_for("h-Q8_0.gguf"))


def test_a_model_without_chatml_is_refused_before_its_weights(hub: FakeHub, store: Store) -> None:
    files = hub.repos[REPO]
    files["tokenizer.json"] = files["tokenizer.json"].replace(b"<|im_end|>", b"<|end|>")
    with pytest.raises(ModelUnavailable, match=f"{REPO} has no ChatML tokens"):
        store.plan(REPO)
    assert hub.asked_for(WEIGHTS) == []


# --- connections that break ----------------------------------------------------------------------


def test_a_cut_connection_is_gone_on_with(hub: FakeHub, store: Store) -> None:
    hub.cuts[WEIGHTS] = [3_000_000, 2_000_000]
    entry = add(store)
    assert (store.path(entry) / WEIGHTS).read_bytes() == hub.repos[REPO][WEIGHTS]
    first, *later = hub.asked_for(WEIGHTS)
    assert first == "whole"
    assert len(later) == 2
    assert all(span != "bytes=0-" and span.startswith("bytes=") for span in later)


def test_the_next_call_goes_on_where_the_last_one_broke_off(hub: FakeHub, store: Store) -> None:
    hub.cuts[WEIGHTS], hub.down_after_cut = [3_000_000], True
    with pytest.raises(ModelUnavailable, match=r"status 503: run the same command again"):
        add(store)
    (part,) = store.folder.rglob("*.part")
    have = part.stat().st_size
    assert 0 < have <= 3_000_000

    hub.is_down = False
    entry = add(store)

    assert hub.asked_for(WEIGHTS)[-1] == f"bytes={have}-"
    assert (store.path(entry) / WEIGHTS).read_bytes() == hub.repos[REPO][WEIGHTS]


def test_a_server_without_ranges_is_read_from_the_beginning_again(hub: FakeHub, store: Store) -> None:
    hub.cuts[WEIGHTS], hub.ignores_ranges = [3_000_000], True
    entry = add(store)
    assert (store.path(entry) / WEIGHTS).read_bytes() == hub.repos[REPO][WEIGHTS]


def test_a_header_needs_no_ranges(hub: FakeHub, store: Store) -> None:
    hub.ignores_ranges = True
    assert store.plan(GGUF_REPO, file="h-Q8_0.gguf").facts.quantization == "Q8_0"


def test_what_was_left_of_other_files_is_not_gone_on_with(hub: FakeHub, store: Store) -> None:
    hub.cuts["h-Q8_0.gguf"] = []
    plan = store.plan(GGUF_REPO, file="h-Q8_0.gguf", name="harbour")
    plan.folder.mkdir(exist_ok=True)
    (plan.folder / "h-Q8_0.gguf.part").write_bytes(b"half")

    entry = add(store, GGUF_REPO, file="h-Q4_0.gguf", name="harbour")

    assert [path.name for path in store.path(entry).parent.glob("*.gguf*")] == ["h-Q4_0.gguf"]


def test_a_file_that_was_damaged_is_thrown_away(hub: FakeHub, store: Store) -> None:
    hub.wrong_sha256 = True
    with pytest.raises(ModelUnavailable, match=f"{WEIGHTS} was damaged on its way; run the same command"):
        add(store)
    assert not list(store.folder.rglob(f"{WEIGHTS}*"))


# --- who may have it -----------------------------------------------------------------------------


def test_the_token_opens_a_private_repository(
    hub: FakeHub, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.token = "tulip"
    with pytest.raises(
        ModelUnavailable, match=r"\(status 401\): check the spelling; for a private .* HF_TOKEN"
    ):
        store.plan(REPO)

    monkeypatch.setenv("HF_TOKEN", "rose")
    with pytest.raises(ModelUnavailable, match="that the token in HF_TOKEN is valid"):
        store.plan(REPO)

    monkeypatch.setenv("HF_TOKEN", "tulip")
    assert add(store).name == "harbour-chat"


def test_the_token_does_not_follow_to_another_server(
    hub: FakeHub, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "tulip")
    with running() as elsewhere:
        elsewhere.repos, hub.files_at = hub.repos, elsewhere.address
        entry = add(store, GGUF_REPO, file="h-Q8_0.gguf")
        assert store.path(entry).is_file()
        assert elsewhere.requests
        assert all("authorization" not in headers for _, _, headers in elsewhere.requests)


def test_a_repository_that_is_not_there(hub: FakeHub, store: Store) -> None:
    with pytest.raises(ModelUnavailable, match=r"does not give out quay/nothing \(status 404\)"):
        store.plan("quay/nothing")
    with pytest.raises(ModelUnavailable, match="has no revision v9; name a branch"):
        store.plan(REPO, revision="v9")
    with pytest.raises(ModelUnavailable, match="neither a path on this machine nor a repository"):
        store.plan("what is this?")


def test_terms_that_were_not_accepted(hub: FakeHub, store: Store) -> None:
    hub.gated = True
    with pytest.raises(ModelUnavailable, match="only to those who accept its terms"):
        store.plan(REPO)


def test_nothing_listens(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(ModelUnavailable, match=r"cannot be reached .* HF_ENDPOINT to a mirror"):
        store.plan(REPO)


@pytest.mark.parametrize(
    "name",
    ["../model.safetensors", "/etc/model.gguf", "a/../../b.gguf", "a\\b.gguf", "a//b.gguf", "C:b.gguf"],
)
def test_a_file_outside_of_its_folder_condemns_the_repository(hub: FakeHub, store: Store, name: str) -> None:
    hub.repos[REPO][name] = b"GGUF"
    with pytest.raises(ModelUnavailable, match="outside of its own folder"):
        store.plan(REPO)
    assert not store.folder.exists()


def test_several_ggufs_are_listed_with_what_the_machine_has(hub: FakeHub, store: Store) -> None:
    with pytest.raises(
        ModelUnavailable, match=r"name one with --file; there is h-Q4_0.gguf .* of memory free"
    ):
        store.plan(GGUF_REPO)
