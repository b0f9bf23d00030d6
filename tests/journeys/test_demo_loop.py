"""`manage.py demo_loop` against the running stack: it holds, and it notices when it does not."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from galley import embedded
from tests.support.stack import Stack

SABOTAGE = """
    CREATE FUNCTION sabotage() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN NEW.adapter_id := NULL; RETURN NEW; END $$;
    CREATE TRIGGER aa_sabotage BEFORE INSERT ON tuning_release
        FOR EACH ROW WHEN (NEW.kind = 'promotion') EXECUTE FUNCTION sabotage();
"""


@pytest.mark.model
def test_the_loop_holds(stack: Stack) -> None:
    told = stack.manage("demo_loop", "--json")

    assert told.returncode == 0, told.stdout + told.stderr
    figures = json.loads(told.stdout.splitlines()[-1])
    assert figures["edit distance after"] < figures["edit distance before"]
    assert figures["held-back loss after"] < figures["held-back loss before"]


@pytest.mark.model
def test_a_promotion_that_changes_nothing_breaks_the_story(stack: Stack) -> None:
    with _promotion_sabotaged(stack):
        told = stack.manage("demo_loop")

    assert told.returncode != 0
    assert "the promoted adapter is not live" in told.stderr


@contextmanager
def _promotion_sabotaged(stack: Stack) -> Iterator[None]:
    """The database swallows the adapter of every promotion while the block runs."""
    url = embedded.urls(Path(stack.environment["GALLEY_HOME"]))["DATABASE_URL"]
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(SABOTAGE)
        try:
            yield
        finally:
            connection.execute("DROP TRIGGER aa_sabotage ON tuning_release; DROP FUNCTION sabotage()")
