import json
from pathlib import Path

import pytest

from inference.cli import main
from tests.support.tiny_hf import write_tiny_hf

MODEL = "fake:?tokens_per_second=5000&num_tokens=12"


def write_briefs(path: Path, *subjects: str) -> Path:
    lines = [{"id": subject, "messages": [{"role": "user", "text": subject}]} for subject in subjects]
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    return path


def generate(tmp_path: Path, briefs: Path, *options: str) -> int:
    paths = ["--input", str(briefs), "--output", str(tmp_path / "out.jsonl")]
    return main(["generate", "--model-path", MODEL, *paths, *options])


def read(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]]


def test_every_brief_gets_a_text_in_its_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    subjects = [f"tulips {number}" for number in range(20)]
    assert generate(tmp_path, write_briefs(tmp_path / "in.jsonl", *subjects), "--batch-size", "4") == 0
    written = read(tmp_path / "out.jsonl")
    assert [line["id"] for line in written] == subjects
    assert {(line["finish_reason"], line["num_tokens"]) for line in written} == {("end", 12)}
    assert len({line["text"] for line in written}) > 1
    assert "20/20" in capsys.readouterr().err


def test_options_reach_the_decoder(tmp_path: Path) -> None:
    briefs = write_briefs(tmp_path / "in.jsonl", "tulips\u2028in spring")
    generate(tmp_path, briefs, "--max-tokens", "3")
    assert [(line["finish_reason"], line["num_tokens"]) for line in read(tmp_path / "out.jsonl")] == [
        ("length", 3)
    ]


def test_all_mistakes_of_the_input_are_told_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    briefs = tmp_path / "in.jsonl"
    briefs.write_text('not json\n{"id": "tulips"}\n{"id": 1, "messages": [{"role": "boss", "text": ""}]}\n')
    assert generate(tmp_path, briefs) == 1
    complaint = capsys.readouterr().err
    assert all(f"line {number}" in complaint for number in (1, 2, 3))
    assert not (tmp_path / "out.jsonl").exists()


def test_a_missing_file_and_a_missing_adapter_end_with_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert generate(tmp_path, tmp_path / "nowhere.jsonl") == 1
    assert "nowhere.jsonl" in capsys.readouterr().err
    briefs = write_briefs(tmp_path / "in.jsonl", "tulips")
    assert generate(tmp_path, briefs, "--adapter", str(tmp_path / "missing")) == 1
    assert "is the adapter sealed" in capsys.readouterr().err


def test_a_broken_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    briefs = write_briefs(tmp_path / "in.jsonl", *(f"tulips {number}" for number in range(6)))
    generate(tmp_path, briefs, "--batch-size", "1")
    whole = (tmp_path / "out.jsonl").read_text()
    part = broken_off(tmp_path, briefs)

    kept = [line | {"text": "kept"} for line in read(tmp_path / "out.jsonl")[:2]]
    part.write_text("".join(json.dumps(line) + "\n" for line in kept) + '{"id": "tul')
    assert generate(tmp_path, briefs, "--batch-size", "1") == 0

    written = read(tmp_path / "out.jsonl")
    assert [line["text"] for line in written[:2]] == ["kept", "kept"]
    assert written[2:] == [json.loads(line) for line in whole.splitlines()][2:]
    assert not part.exists()


def broken_off(tmp_path: Path, briefs: Path) -> Path:
    """The part file of a run that could not be finished."""
    (tmp_path / "out.jsonl").rename(tmp_path / "earlier.jsonl")
    (tmp_path / "out.jsonl").mkdir()
    assert generate(tmp_path, briefs, "--batch-size", "1") == 1
    (tmp_path / "out.jsonl").rmdir()
    (tmp_path / "earlier.jsonl").rename(tmp_path / "out.jsonl")
    (part,) = tmp_path.glob("out.jsonl.*.part")
    return part


def test_other_settings_do_not_go_on_with_what_was_broken_off(tmp_path: Path) -> None:
    briefs = write_briefs(tmp_path / "in.jsonl", "tulips", "roses")
    generate(tmp_path, briefs)
    part = broken_off(tmp_path, briefs)
    generate(tmp_path, briefs, "--max-tokens", "3")
    assert {line["num_tokens"] for line in read(tmp_path / "out.jsonl")} == {3}
    assert part.exists()


def test_a_folder_is_quantised_on_request_and_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GALLEY_HOME", str(tmp_path / "home"))
    folder = write_tiny_hf(tmp_path / "model")
    briefs, out = write_briefs(tmp_path / "in.jsonl", "tulips"), tmp_path / "out.jsonl"

    def generate_with(model: Path, quantization: str) -> int:
        options = ["--input", str(briefs), "--output", str(out), "--max-tokens", "4"]
        return main(["generate", "--model-path", str(model), *options, "--quantization", quantization])

    assert generate_with(folder, "q8_0") == 0
    (made,) = (tmp_path / "home" / "cache").glob("model-*-q8_0.gguf")
    made_at = made.stat().st_mtime_ns
    assert generate_with(folder, "q8_0") == 0
    assert made.stat().st_mtime_ns == made_at
    assert generate_with(made, "q4_0") == 1, "quantised twice"
    assert generate_with(folder, "q5_unknown") == 1
