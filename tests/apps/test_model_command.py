"""`manage.py model`: bring your own model, from the shell to the settings of the next start."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from inference.sizing import human
from inference.tiny import MODEL_DIR
from tests.support.hub import COMMIT, running
from tests.support.random_gguf import write_model
from tests.support.servers import free_port

ROOT = Path(__file__).resolve().parents[2]
TOO_MANY_CELLS = str(10**9)


@dataclass
class Shell:
    """A shell of somebody who has just installed Galley."""

    home: Path
    environment: dict[str, str] = field(default_factory=dict)

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("HF_", "GALLEY_")) and name.lower() not in ("http_proxy", "all_proxy")
        }
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=ROOT,
            env=kept | {"GALLEY_HOME": str(self.home)} | self.environment,
            capture_output=True,
            text=True,
            timeout=120,
        )

    def model(self, *arguments: str) -> str:
        """What the command prints; it must succeed."""
        answer = self.run("manage.py", "model", *arguments)
        assert answer.returncode == 0, answer.stderr
        return answer.stdout

    def refused(self, *arguments: str) -> str:
        """The one sentence of a command that must fail."""
        answer = self.run("manage.py", "model", *arguments)
        assert answer.returncode == 1, answer.stdout
        (sentence,) = answer.stderr.splitlines()
        return sentence

    def configured(self) -> str:
        program = "from galley import settings; print(settings.GALLEY_MODEL)"
        return self.run("-c", program).stdout.strip()


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path / "home")


def test_a_gguf_is_added_chosen_and_checked(shell: Shell, tmp_path: Path) -> None:
    gguf = write_model(tmp_path / "harbour-Q8_0.gguf")
    assert shell.configured() == str(MODEL_DIR)

    added = shell.model("add", str(gguf), "--name", "harbour")
    assert added.index("memory: ") < added.index("added harbour")
    assert "8192 KV cells" in added
    assert "restart `make up`" in shell.model("use", "harbour")
    assert shell.configured() == str(shell.home / "models" / "harbour" / gguf.name)

    starred = [line for line in shell.model("list").splitlines() if line.startswith("*")]
    assert len(starred) == 1
    assert "harbour" in starred[0]

    checked = shell.model("check")
    for told in (
        "Q8_0",
        "context: 1024 tokens",
        "wrote ",
        " tokens/s",
        "memory: ",
        "training: no",
        "it works",
    ):
        assert told in checked

    shell.model("use", "galley-tiny")
    assert shell.configured() == str(MODEL_DIR)


def test_a_folder_can_be_written_with_and_trained(shell: Shell, tmp_path: Path) -> None:
    folder = tmp_path / "quay"
    shutil.copytree(MODEL_DIR, folder, ignore=shutil.ignore_patterns("*.gguf"))

    assert "can be trained" in shell.model("add", str(folder))
    checked = shell.model("check", "quay")

    assert "F16" in checked
    assert "training: possible" in checked
    shell.model("use", "quay")
    assert (Path(shell.configured()) / "config.json").is_file()


def test_galley_model_wins_and_says_so(shell: Shell, tmp_path: Path) -> None:
    shell.model("add", str(write_model(tmp_path / "harbour.gguf")))
    shell.environment["GALLEY_MODEL"] = "fake:"

    assert "GALLEY_MODEL=fake: is set (in the shell or in .env) and wins" in shell.model("use", "harbour")
    assert "wins over the choice of `model use` (harbour)" in shell.model("list")
    assert "the model in use: fake:" in shell.model("check")
    assert shell.configured() == "fake:"


def test_a_choice_that_was_removed_by_hand_can_be_mended(shell: Shell, tmp_path: Path) -> None:
    shell.model("add", str(write_model(tmp_path / "harbour.gguf")))
    shell.model("use", "harbour")
    shutil.rmtree(shell.home / "models" / "harbour")

    assert "there is no model 'harbour'" in shell.refused("check")
    assert shell.configured().endswith("models/harbour")  # the engine will say that it is not there
    shell.model("use", "galley-tiny")
    assert "it works" in shell.model("check")


def test_what_does_not_fit_is_refused_with_what_would(shell: Shell, tmp_path: Path) -> None:
    gguf = str(write_model(tmp_path / "harbour.gguf"))
    shell.environment["GALLEY_CONTEXT"] = TOO_MANY_CELLS

    assert "not even Q2_K would fit: take a smaller model; a smaller GALLEY_CONTEXT" in shell.refused(
        "add", gguf
    )
    assert "added harbour" in shell.model("add", gguf, "--force")


def test_what_is_damaged_ends_with_a_sentence(shell: Shell, tmp_path: Path) -> None:
    gguf = write_model(tmp_path / "harbour.gguf")
    shell.model("add", str(gguf))
    content = gguf.read_bytes()
    gguf.write_bytes(content[: len(content) // 2])

    answer = shell.run("manage.py", "model", "check", "harbour")

    assert answer.returncode == 1
    assert "it is damaged or of an unknown kind: fetch it again" in answer.stderr.splitlines()[-1]


def test_without_a_network_the_sentence_says_what_to_try(shell: Shell) -> None:
    shell.environment["HF_ENDPOINT"] = f"http://127.0.0.1:{free_port()}"
    sentence = shell.refused("add", "quay/harbour")
    assert "fetch the model on another machine and add the folder" in sentence


def test_it_tells_its_actions_and_options(shell: Shell) -> None:
    assert "add,list,use,check" in shell.run("manage.py", "model", "--help").stdout.replace("', '", ",")
    assert "--quantization" in shell.run("manage.py", "model", "add", "--help").stdout


def test_progress_and_the_end_are_told_for_a_hub_too(shell: Shell, tmp_path: Path) -> None:
    with running() as hub:
        gguf = write_model(tmp_path / "harbour.gguf")
        size = human(gguf.stat().st_size)
        hub.repos["quay/harbour"] = {"harbour.gguf": gguf.read_bytes()}
        shell.environment |= {"HF_ENDPOINT": hub.address, "NO_PROXY": "127.0.0.1"}
        answer = shell.run("manage.py", "model", "add", "quay/harbour")

    assert f"harbour.gguf: {size} of {size} (100%)" in answer.stderr
    assert f"quay/harbour at {COMMIT[:12]}, 1 file" in answer.stdout
    assert "quay/harbour at" in shell.model("list")
