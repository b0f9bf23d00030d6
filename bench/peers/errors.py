class PeerError(Exception):
    """A peer gives no figures."""


class PeerMissing(PeerError):
    """It is not on this machine; the message says how to bring it here."""


class PeerFailed(PeerError):
    """It was there and did not work; the message has its last words."""
