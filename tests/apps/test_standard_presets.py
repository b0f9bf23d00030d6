"""The presets of a new project speak as the model that ships was taught."""

import pytest

from apps.styles.services import STANDARD_INSTRUCTIONS
from inference.tiny.corpus import STYLES, default_instructions


@pytest.mark.parametrize("style", STYLES)
def test_standard_instructions_are_those_of_the_corpus(style: str) -> None:
    assert STANDARD_INSTRUCTIONS[style] == default_instructions(style)  # type: ignore[index, arg-type]
