"""Which model Galley opens where GALLEY_MODEL does not name one. `inference/store.py` writes the choice."""

import json
from pathlib import Path

BUILT_IN = "galley-tiny"
BUILT_IN_FOLDER = Path(__file__).resolve().parents[2] / "inference" / "tiny" / "model"


def chosen_model(home: Path) -> str:
    """What `manage.py model use` chose, else the model that ships.

    A choice whose model is gone is returned as it is: the engine says that it cannot be read, and
    `manage.py model use` still starts.
    """
    try:
        name = (home / "models" / "in-use").read_text().strip()
    except FileNotFoundError:
        name = ""
    if name in ("", BUILT_IN):
        return str(BUILT_IN_FOLDER)
    folder = home / "models" / name
    try:
        return str(folder / json.loads((folder / "model.json").read_text())["location"])
    except (OSError, ValueError, KeyError, TypeError):
        return str(folder)
