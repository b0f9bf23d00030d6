import json
from pathlib import Path

import pytest

from inference.cli import main

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
    assert "generate: 20/20" in capsys.readouterr().err


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
