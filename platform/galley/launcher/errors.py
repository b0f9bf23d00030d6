class Refused(Exception):
    """The start cannot go on. The message is one sentence that says what to do."""
