"""Against transformers' and peft's own `generate`, with random weights: what a text is does not matter."""

import json
import random
from collections.abc import Iterable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM

from inference import (
    AdapterRef,
    AdapterUnavailable,
    Engine,
    EngineError,
    Event,
    InvalidRequest,
    ModelUnavailable,
    Request,
    Sampling,
    adapters,
)
from inference.backends.torch import TorchRunner
from inference.backends.torch_costs import blank_rows
from inference.engine.loop import Loop
from inference.engine.messages import Batch, Cancel, Submit
from inference.engine.scheduler import Limits
from inference.models import ResolvedModel, resolve
from tests.support.families import save_lora, save_soft_prompt, write_family, write_sentencepiece

# peft 0.21 asks transformers 5.23 for a property by its old name.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

N_CTX = 512
LIMITS = Limits(max_sequences=4, kv_cells=N_CTX, max_prefixes=16)
BASE = "b" * 64
GREEDY = Sampling(temperature=0.0, repetition_penalty=1.0, max_tokens=24)
LIVELY = Sampling(temperature=0.9, max_tokens=24, seed=7)
# Large random weights: with those of a fresh model a text would be one token again and again.
SHAPE = {
    "num_hidden_layers": 2,
    "hidden_size": 64,
    "intermediate_size": 96,
    "head_dim": 16,
    "tie_word_embeddings": False,
    "initializer_range": 0.3,
}


def write_model(folder: Path, family: str = "llama", **changes: Any) -> Path:
    return write_family(folder, family, **(SHAPE | changes))


def open_runner(folder: Path, **options: Any) -> TorchRunner:
    model = ResolvedModel(kind="torch", location=str(folder), name="tiny", sha256=BASE, **options)
    return TorchRunner(model, n_ctx=N_CTX, max_sequences=LIMITS.max_sequences, threads=None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def runner(folder: Path) -> TorchRunner:
    return open_runner(folder)


def request(
    subject: str = "tulips", sampling: Sampling = GREEDY, adapter: AdapterRef | None = None
) -> Request:
    messages = ({"role": "system", "text": "Style: news"}, {"role": "user", "text": f"Subject: {subject}"})
    return Request(id=subject, messages=messages, sampling=sampling, adapter=adapter)  # type: ignore[arg-type]


def write_all(runner: TorchRunner, requests: Iterable[Request], limits: Limits = LIMITS) -> list[list[Event]]:
    """The events of requests that come all at once; raises what the engine answers with."""
    loop = Loop(runner, limits)
    submits = [Submit(ticket, one) for ticket, one in enumerate(requests)]
    found: list[list[Event]] = [[] for _ in submits]
    collect(loop.turn(submits), found)
    while not loop.is_idle:
        collect(loop.turn([]), found)
    return found


def collect(batch: Batch, found: list[list[Event]]) -> None:
    for ticket, item in batch.items:
        if isinstance(item, EngineError):
            raise item
        found[ticket].append(item)


def write(runner: TorchRunner, request: Request, limits: Limits = LIMITS) -> tuple[int, ...]:
    return ids(write_all(runner, [request], limits)[0])


def ids(events: list[Event]) -> tuple[int, ...]:
    return tuple(id_ for event in events for id_ in event.token_ids)


def generated(model: Any, runner: TorchRunner, request: Request) -> tuple[int, ...]:
    """What transformers writes alone and greedily, up to the first control token.

    The matrix of the model has room for more tokens than the tokenizer has.
    """
    prompt = torch.tensor([runner.encode(request)])
    with torch.no_grad():
        whole = model.generate(
            input_ids=prompt,
            attention_mask=torch.ones_like(prompt),
            do_sample=False,
            max_new_tokens=request.sampling.max_tokens,
            suppress_tokens=list(range(runner._vocabulary.num_tokens, model.config.vocab_size)) or None,
        )
    answer = whole[0, prompt.shape[1] :].tolist()
    ends = [place for place, token_id in enumerate(answer) if runner.is_end(token_id)]
    return tuple(answer[: min(ends, default=len(answer))])


def seal_lora(base: Path, folder: Path, **options: Any) -> tuple[AdapterRef, Any]:
    """A sealed adapter, and the model with it as peft runs it."""
    adapted = save_lora(base, folder, **options)
    (folder / adapters.GGUF_NAME).write_bytes(b"GGUF of no use here")
    sealed = adapters.seal(folder, base_sha256=BASE)
    return AdapterRef(sha256=sealed.sha256, path=str(folder)), adapted


# --- the same tokens as transformers -------------------------------------------------------------


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "mistral"])
def test_greedy_text_is_that_of_transformers(tmp_path: Path, family: str) -> None:
    folder = write_model(tmp_path / family, family)
    runner, model = open_runner(folder), AutoModelForCausalLM.from_pretrained(folder)
    for subject in ("tulips", "a much longer subject, with many more words in it"):
        written = write(runner, request(subject))
        assert written == generated(model, runner, request(subject))
        assert len(set(written)) > 5, "a text of one token would prove little"


def test_the_model_says_what_it_is(runner: TorchRunner) -> None:
    info = runner.info
    assert (info.name, info.sha256, info.context_length) == ("tiny", BASE, 256)
    assert (info.backend, info.quantization) == ("torch", "F32")


@pytest.mark.parametrize("seed", [1, 2])
def test_texts_that_join_and_leave_are_those_that_were_written_alone(runner: TorchRunner, seed: int) -> None:
    draw = random.Random(seed)
    requests = [
        request(
            " ".join(draw.choices(["ferry", "harbour", "library", "opens", "at nine"], k=draw.randint(1, 9))),
            replace(draw.choice((GREEDY, LIVELY)), max_tokens=draw.randint(1, 20), seed=number),
        )
        for number in range(8)
    ]
    alone = [write(runner, one) for one in requests]
    loop = Loop(runner, replace(LIMITS, step_tokens=24))
    found: list[list[Event]] = [[] for _ in range(12)]
    waiting = [Submit(ticket, requests[ticket % 8]) for ticket in range(12)]
    while waiting or not loop.is_idle:
        joining = [waiting.pop(0) for _ in range(min(len(waiting), draw.randint(0, 2)))]
        leaving = [Cancel(draw.randint(8, 11))] if draw.random() < 0.2 else []
        collect(loop.turn([*joining, *leaving]), found)
    assert [ids(events) for events in found[:8]] == alone
    for number, events in enumerate(found[8:]):
        assert ids(events) == alone[number][: len(ids(events))], "a text that left was right so far"


@pytest.mark.parametrize("step_tokens", [5, 16, 17])
def test_a_prompt_in_pieces_is_the_same_prompt(runner: TorchRunner, step_tokens: int) -> None:
    whole = write(runner, request())
    assert write(runner, request(), replace(LIMITS, step_tokens=step_tokens)) == whole


def test_a_beginning_that_prompts_share_is_computed_once(runner: TorchRunner) -> None:
    style = {"role": "system", "text": "Style: news of the harbour, in short and plain sentences."}
    requests = [
        replace(request(subject), messages=(style, {"role": "user", "text": subject}))  # type: ignore[arg-type]
        for subject in ("tulips", "ferry", "library", "pier", "tulips")
    ]
    alone = [write(runner, one, replace(LIMITS, max_prefixes=0)) for one in requests]
    loop = Loop(runner, LIMITS)
    found: list[list[Event]] = [[] for _ in requests]
    batch = loop.turn([Submit(ticket, one) for ticket, one in enumerate(requests)])
    collect(batch, found)
    while not loop.is_idle:
        batch = loop.turn([])
        collect(batch, found)
    assert [ids(events) for events in found] == alone
    assert batch.stats.kv_used > 16, "the prefix stays for the next prompt"


# --- settings ------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampling", [GREEDY, LIVELY, replace(LIVELY, top_k=0, min_p=0.05)])
@pytest.mark.parametrize("num_committed", [1, 13, 23])
def test_a_resumed_draft_goes_on_with_the_same_tokens(
    runner: TorchRunner, sampling: Sampling, num_committed: int
) -> None:
    whole = write(runner, request(sampling=sampling))
    resumed = replace(request(sampling=sampling), resume_ids=whole[:num_committed])
    assert write(runner, resumed) == whole[num_committed:]


def test_seeds_differ(runner: TorchRunner) -> None:
    texts = {write(runner, request(sampling=replace(LIVELY, seed=seed))) for seed in range(4)}
    assert len(texts) == 4


def test_logprobs_are_those_of_the_model(runner: TorchRunner, folder: Path) -> None:
    events = write_all(runner, [request(sampling=replace(GREEDY, logprobs=3, max_tokens=6))])[0]
    told = [one for event in events for one in event.logprobs]
    known = torch.tensor([[*runner.encode(request()), *ids(events)]])
    with torch.no_grad():
        logits = AutoModelForCausalLM.from_pretrained(folder)(known).logits[0, -len(told) - 1 : -1]
    expected = torch.log_softmax(logits[:, : runner._vocabulary.num_tokens], dim=-1).topk(3).values
    assert torch.allclose(
        torch.tensor([[value for _, value in one.alternatives] for one in told]), expected, atol=1e-4
    )
    assert all(one.alternatives[0] == (one.text, one.logprob) for one in told), "greedy takes the likeliest"


def test_going_back_leaves_no_trace_in_the_cache(runner: TorchRunner) -> None:
    """A text that was taken back and goes on is the one that a fresh request with its tokens goes on with."""
    free = "".join(event.text for event in write_all(runner, [request()])[0])
    letters = tuple(sorted({sign for sign in free.lower() if sign.isascii() and sign.isalpha()}))
    ruled = replace(request(), must_not_say=letters)
    events = write_all(runner, [ruled])[0]
    text = "".join(event.text for event in events)
    assert letters
    assert not any(word in letters for word in text.lower().split())
    begun = [event for event in events if event.token_ids][:8]
    resumed = replace(ruled, resume_ids=ids(begun), resume_text="".join(event.text for event in begun))
    assert write(runner, resumed) == ids(events)[len(ids(begun)) :]


def test_a_fact_that_has_begun_is_finished(runner: TorchRunner) -> None:
    """The facts go on with a token that the model finds a little less likely than its own."""
    sampling = replace(GREEDY, logprobs=8, max_tokens=12)
    free = {subject: write_all(runner, [request(subject, sampling)])[0] for subject in "abcdef"}
    facts = [(subject, fact) for subject, events in free.items() for fact in nearly_said(events)][:8]
    helped = write_all(
        runner, [replace(request(subject, sampling), must_say=(fact,)) for subject, fact in facts]
    )
    written = ["".join(event.text for event in events) for events in helped]
    assert facts
    assert any(fact in text for (_, fact), text in zip(facts, written, strict=True))
    own = ["".join(event.text for event in free[subject]) for subject, _ in facts]
    assert not any(fact in text for (_, fact), text in zip(facts, own, strict=True))


def nearly_said(events: list[Event]) -> list[str]:
    found, said = [], ""
    for one in (logprobs for event in events for logprobs in event.logprobs):
        close = [other for other, logprob in one.alternatives[1:] if logprob > one.logprob - 3]
        found += [said + other for other in close if len(said) > 6 and "\ufffd" not in said + other]
        said += one.text
    return found


@pytest.mark.parametrize("options", [{"grammar": 'root ::= "a"'}, {"json_schema": "{}"}])
def test_a_grammar_is_refused(runner: TorchRunner, options: dict[str, str]) -> None:
    with pytest.raises(InvalidRequest, match=r"llama\.cpp"):
        write(runner, request(sampling=replace(GREEDY, **options)))  # type: ignore[arg-type]


def test_text_that_a_user_types_is_no_control_token(runner: TorchRunner) -> None:
    typed, scaffold = runner.encode(request("<|im_end|>")), runner.encode(request(""))
    assert [typed.count(number) for number in range(3)] == [scaffold.count(number) for number in range(3)]
    assert b"".join(map(runner.piece, typed)).decode().count("<|im_end|>") == 1
    assert runner.encode(request("half a pair: \ud83d"))


def test_a_text_that_was_cancelled_leaves_its_cells(runner: TorchRunner) -> None:
    """Each of these texts takes half of all cells: without those of the cancelled ones the third fails."""
    loop = Loop(runner, LIMITS)
    long = request(sampling=replace(GREEDY, max_tokens=200))
    for ticket in range(12):
        loop.turn([Submit(ticket, long)])
        for _ in range(3):
            loop.turn([])
        loop.turn([Cancel(ticket)])
    assert loop.is_idle
    assert write(runner, request())


# --- adapters ------------------------------------------------------------------------------------


def test_lanes_in_turns_write_what_peft_writes(runner: TorchRunner, folder: Path, tmp_path: Path) -> None:
    news, adapted_to_news = seal_lora(folder, tmp_path / "news", r=4, lora_alpha=64)
    poems, adapted_to_poems = seal_lora(folder, tmp_path / "poems", r=8, lora_alpha=32, use_rslora=True)
    base = AutoModelForCausalLM.from_pretrained(folder)
    models = {None: base, news: adapted_to_news, poems: adapted_to_poems}
    requests = [
        request(f"tulips {n}", adapter=adapter) for n in range(2) for adapter in (None, news, poems, None)
    ]
    written = [ids(events) for events in write_all(runner, requests)]
    assert written == [generated(models[one.adapter], runner, one) for one in requests]
    assert len(set(written[:3])) == 3, "the adapters change the text"


def test_a_dora_adapter_works(runner: TorchRunner, folder: Path, tmp_path: Path) -> None:
    dora, adapted = seal_lora(folder, tmp_path / "dora", r=4, lora_alpha=64, use_dora=True)
    written = write(runner, request(adapter=dora))
    assert written == generated(adapted, runner, request())
    assert written != write(runner, request())


def test_more_adapters_than_lanes_replace_each_other(
    runner: TorchRunner, folder: Path, tmp_path: Path
) -> None:
    """With a quantum of one turn running texts are parked and go on, in whatever slot."""
    before = write(runner, request())
    refs = [seal_lora(folder, tmp_path / str(n), r=2 + n, lora_alpha=64)[0] for n in range(4)]
    first = [write(runner, request(adapter=ref)) for ref in refs]
    assert len(set(first)) == 4
    hectic = replace(LIMITS, max_lanes=2, quantum=1)
    together = write_all(runner, [request(adapter=ref) for ref in refs * 2], hectic)
    assert [ids(events) for events in together] == first * 2
    assert write(runner, request()) == before
    assert len({ref.sha256 for ref in refs} & set(runner._adapters.names)) <= hectic.max_lanes


def test_what_does_not_fit_is_refused_and_harms_nobody(
    runner: TorchRunner, folder: Path, tmp_path: Path
) -> None:
    good, _ = seal_lora(folder, tmp_path / "good", r=4, lora_alpha=64)
    before, tuned = write(runner, request()), write(runner, request(adapter=good))
    wide = write_model(tmp_path / "wide", hidden_size=32)
    misshapen, _ = seal_lora(wide, tmp_path / "misshapen", r=4)
    biased, _ = seal_lora(folder, tmp_path / "biased", r=4, bias="all")
    foreign = tmp_path / "foreign"
    save_lora(folder, foreign, r=4)
    (foreign / adapters.GGUF_NAME).write_bytes(b"GGUF")
    stranger = AdapterRef(sha256=adapters.seal(foreign, base_sha256="f" * 64).sha256, path=str(foreign))
    for bad, complaint in (
        (misshapen, "size mismatch"),
        (biased, "trains biases"),
        (stranger, "was trained on model"),
    ):
        with pytest.raises(AdapterUnavailable, match=complaint):
            write(runner, request(adapter=bad))
        assert write(runner, request()) == before
        assert write(runner, request(adapter=good)) == tuned


def test_an_adapter_with_other_layers_than_the_model_is_refused(
    runner: TorchRunner, folder: Path, tmp_path: Path
) -> None:
    deep = write_model(tmp_path / "deep", num_hidden_layers=3)
    ref, _ = seal_lora(deep, tmp_path / "deeper", r=4)
    with pytest.raises(AdapterUnavailable, match="does not fit this model"):
        write(runner, request(adapter=ref))
    assert write(runner, request())


# --- soft prompts --------------------------------------------------------------------------------


def seal_soft_prompt(base: Path, folder: Path, kind: str, **options: Any) -> tuple[AdapterRef, Any]:
    """A sealed soft prompt, and the model with it as peft runs it."""
    adapted = save_soft_prompt(base, folder, kind, **options)
    return AdapterRef(sha256=adapters.seal(folder, base_sha256=BASE).sha256, path=str(folder)), adapted


def likeliest(adapted: Any, runner: TorchRunner, request: Request) -> tuple[int, ...]:
    """What peft's model writes greedily when it reads everything anew for every token."""
    known = runner.encode(request)
    answer: list[int] = []
    while len(answer) < request.sampling.max_tokens:
        with torch.no_grad():
            logits = adapted(input_ids=torch.tensor([known + answer])).logits
        token_id = int(logits[0, -1, : runner._vocabulary.num_tokens].argmax())
        if runner.is_end(token_id):
            break
        answer.append(token_id)
    return tuple(answer)


@pytest.mark.parametrize("kind", ["PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING"])
def test_a_soft_prompt_works_as_in_peft(runner: TorchRunner, folder: Path, tmp_path: Path, kind: str) -> None:
    soft, adapted = seal_soft_prompt(folder, tmp_path / "soft", kind)
    for subject in ("tulips", "a much longer subject, with many more words in it"):
        one = request(subject, adapter=soft)
        written = write(runner, one)
        assert written == likeliest(adapted, runner, one)
        assert written != write(runner, request(subject))


def test_texts_of_soft_prompts_keep_company(runner: TorchRunner, folder: Path, tmp_path: Path) -> None:
    """They join, share beginnings, are parked and resumed, beside LoRAs and the bare model."""
    refs = [
        None,
        seal_lora(folder, tmp_path / "lora", r=4, lora_alpha=64)[0],
        seal_soft_prompt(folder, tmp_path / "prompt", "PROMPT_TUNING")[0],
        seal_soft_prompt(folder, tmp_path / "prefix", "PREFIX_TUNING", num_tokens=3)[0],
    ]
    style = {"role": "system", "text": "Style: news of the harbour, in short and plain sentences."}
    requests = [
        replace(request(subject, adapter=ref), messages=(style, {"role": "user", "text": subject}))  # type: ignore[arg-type]
        for subject in ("tulips", "ferry", "library at nine")
        for ref in refs
    ]
    alone = [write(runner, one, replace(LIMITS, max_prefixes=0)) for one in requests]
    hectic = replace(LIMITS, max_lanes=2, quantum=1, step_tokens=24)
    assert [ids(events) for events in write_all(runner, requests, hectic)] == alone


def test_a_soft_prompt_takes_no_cells_of_texts(runner: TorchRunner, folder: Path, tmp_path: Path) -> None:
    """Texts that fill all cells of a lane also fit in one with virtual tokens."""
    soft, _ = seal_soft_prompt(folder, tmp_path / "soft", "PROMPT_TUNING", num_tokens=16)
    long = request(sampling=replace(GREEDY, max_tokens=100), adapter=soft)
    alone = write(runner, long)
    assert [ids(events) for events in write_all(runner, [long] * 4)] == [alone] * 4


def test_a_text_that_the_virtual_tokens_leave_no_room_for_is_refused(
    runner: TorchRunner, folder: Path, tmp_path: Path
) -> None:
    soft, _ = seal_soft_prompt(folder, tmp_path / "soft", "PROMPT_TUNING")
    endless = replace(GREEDY, max_tokens=300)
    with pytest.raises(InvalidRequest, match="in the 250 tokens that this adapter leaves"):
        write(runner, request(sampling=endless, adapter=soft))
    assert write(runner, request(sampling=endless))


@pytest.mark.parametrize("kind", ["PROMPT_TUNING", "PREFIX_TUNING"])
def test_a_soft_prompt_of_another_model_is_refused(
    runner: TorchRunner, folder: Path, tmp_path: Path, kind: str
) -> None:
    before = write(runner, request())
    wide = write_model(tmp_path / "wide", hidden_size=32, num_hidden_layers=3)
    ref, _ = seal_soft_prompt(wide, tmp_path / "soft", kind)
    with pytest.raises(AdapterUnavailable, match="numbers for a token and this model needs"):
        write(runner, request(adapter=ref))
    assert write(runner, request()) == before


# --- costs and memory ----------------------------------------------------------------------------


def test_costs_are_measured_and_kept_for_this_device_and_type(folder: Path, tmp_path: Path) -> None:
    model = ResolvedModel(kind="torch", location=str(folder), name="tiny", sha256=BASE)
    first, second = (
        TorchRunner(model, n_ctx=N_CTX, max_sequences=4, threads=None, cache=tmp_path) for _ in range(2)
    )
    sizes = (1, 4, 64, 200)
    assert [first.costs.of(n) for n in sizes] == [second.costs.of(n) for n in sizes]
    assert len(list((tmp_path / "costs").iterdir())) == 1
    TorchRunner(model, n_ctx=N_CTX, max_sequences=3, threads=None, cache=tmp_path)
    assert len(list((tmp_path / "costs").iterdir())) == 2


def test_blank_passes_leave_no_cells_behind(folder: Path) -> None:
    """The first text after the start has the whole lane, and its tokens are those of any other time."""
    fresh = open_runner(folder)
    assert fresh._lanes == {}
    first = write(fresh, request())
    assert write(fresh, request()) == first
    assert fresh.max_lanes >= 1


@pytest.mark.parametrize(("size", "num_tokens"), [(3, [1, 1, 1]), (4, [1] * 4), (20, [1, 1, 1, 1, 16])])
def test_a_blank_pass_is_new_tokens_of_texts_then_a_prompt(size: int, num_tokens: list[int]) -> None:
    rows = blank_rows(size, max_sequences=4)
    assert [row.num_tokens for row in rows] == num_tokens
    assert [row.samples for row in rows] == [number < 4 for number in range(len(rows))]
    assert [row.sequence.slot for row in rows] == list(range(len(rows)))


# --- tokens and bytes ----------------------------------------------------------------------------


def test_every_byte_has_its_piece(runner: TorchRunner) -> None:
    pieces = set(runner._drawer.ids_of_pieces)
    assert {bytes([byte]) for byte in range(256)} <= pieces
    assert len(pre_tokenizers.ByteLevel.alphabet()) == 256
    text = "Grüße aus Köln, 老电车站 👩‍🚀\r\n\t  end"
    assert b"".join(map(runner.piece, runner._vocabulary.tokenize(text, False))) == text.encode()


def test_pieces_of_sentencepiece_are_bytes_too(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "spm")
    write_sentencepiece(folder)
    content = (folder / "tokenizer.json").read_text().replace("<start_of_turn>", "<|im_start|>")
    (folder / "tokenizer.json").write_text(content.replace("<eos>", "<|im_end|>"))
    runner = open_runner(folder)
    text = "The ferry  leaves: 老 👩‍🚀\n\nend"
    assert b"".join(map(runner.piece, runner._vocabulary.tokenize(text, False))) == text.encode()
    assert write(runner, request())


# --- what cannot be opened -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "changes", "complaint"),
    [
        ("mistral", {"sliding_window": 40}, "sliding-window attention over 40 tokens"),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 40, "max_window_layers": 0}, "sliding-wind"),
        ("llama", {"architectures": ["LlamaForSequenceClassification"]}, "no decoder"),
        ("llama", {"model_type": "t5"}, "no decoder"),
        ("llama", {"model_type": "no such family"}, "not a valid config"),
        ("llama", {"vocab_size": 300}, "tokens and the model 300"),
        ("llama", {"num_hidden_layers": 3}, "lacks weights"),
    ],
)
def test_a_model_that_cannot_run_here_is_one_clear_sentence(
    folder: Path, tmp_path: Path, family: str, changes: dict[str, Any], complaint: str
) -> None:
    if family == "llama":
        broken = copy_of(folder, tmp_path / "broken", **changes)
    else:
        broken = write_model(tmp_path / "broken", family, **changes)
    with pytest.raises(ModelUnavailable, match=complaint):
        open_runner(broken)


def copy_of(folder: Path, target: Path, **changes: Any) -> Path:
    target.mkdir()
    for file in folder.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    config = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps(config | changes))
    return target


def test_a_window_that_hides_nothing_is_no_hindrance(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "mistral", "mistral", sliding_window=256)
    runner, model = open_runner(folder), AutoModelForCausalLM.from_pretrained(folder)
    assert write(runner, request()) == generated(model, runner, request())


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("tokenizer.json", b"{", "tokenizer.json cannot be read"),
        ("model.safetensors", b"noise", "cannot load"),
    ],
)
def test_a_damaged_file_is_one_clear_sentence(
    folder: Path, tmp_path: Path, name: str, content: bytes, complaint: str
) -> None:
    broken = copy_of(folder, tmp_path / "broken")
    (broken / name).write_bytes(content)
    with pytest.raises(ModelUnavailable, match=complaint):
        open_runner(broken)


def test_a_model_without_chatml_is_refused(folder: Path, tmp_path: Path) -> None:
    broken = copy_of(folder, tmp_path / "broken")
    content = (broken / "tokenizer.json").read_text().replace("<|im_start|>", "<|other|>")
    (broken / "tokenizer.json").write_text(content)
    with pytest.raises(ModelUnavailable, match=r"has no <\|im_start\|> token"):
        open_runner(broken)


@pytest.mark.parametrize("options", ["bits=5", "bit=4", "bits"])
def test_an_unknown_option_is_refused(folder: Path, options: str) -> None:
    with pytest.raises(ModelUnavailable, match="bits=4 or bits=8"):
        open_runner(folder, options=options)


# --- the address ---------------------------------------------------------------------------------


def test_an_address_names_folder_and_options(folder: Path, tmp_path: Path) -> None:
    beside = copy_of(folder, tmp_path / "model")
    (beside / "tiny.gguf").write_bytes(b"GGUF weights")
    model = resolve(f"torch:{beside}?bits=4", tmp_path)
    assert (model.kind, model.path, model.name, model.options) == ("torch", beside, "model", "bits=4")
    assert model.sha256 == resolve(str(beside), tmp_path).sha256, "adapters run on both backends"


def test_a_model_that_llama_cpp_cannot_run_is_named_by_its_weights(folder: Path, tmp_path: Path) -> None:
    odd = copy_of(folder, tmp_path / "odd", hidden_act="gelu")
    weights = (odd / "model.safetensors").read_bytes()
    assert resolve(f"torch:{odd}", tmp_path).sha256 == sha256(weights).hexdigest()


@pytest.mark.parametrize(("files", "complaint"), [((), "no config.json"), (("config.json",), "no [*]")])
def test_what_is_no_folder_for_torch_is_one_clear_sentence(
    tmp_path: Path, files: tuple[str, ...], complaint: str
) -> None:
    (tmp_path / "model").mkdir()
    for name in files:
        (tmp_path / "model" / name).write_text('{"model_type": "bloom"}')
    with pytest.raises(ModelUnavailable, match=complaint):
        resolve(f"torch:{tmp_path / 'model'}", tmp_path)


def test_the_engine_opens_it_in_its_own_process(runner: TorchRunner, folder: Path, tmp_path: Path) -> None:
    with Engine.open(f"torch:{folder}", home=tmp_path, n_ctx=N_CTX, max_sequences=4, threads=1) as engine:
        assert engine.model_info.backend == "torch"
        assert engine.model_info.sha256 == resolve(str(folder), tmp_path).sha256
        assert ids(list(engine.submit(request()))) == write(runner, request())
