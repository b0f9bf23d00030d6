"""Measurements in one form: claim, figure, peer or limit, bar, holds. `python -m bench NAME [--json]`."""
