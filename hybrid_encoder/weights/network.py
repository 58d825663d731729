"""Whether the hub can be asked at all: its client tries again for half a minute before it says that it cannot."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit
from urllib.request import getproxies

_SECONDS = 3.0
"""To wait for an answer to a connection."""


def hub_address() -> str:
    """The hub's, or that of the mirror which HF_ENDPOINT names."""
    from huggingface_hub import constants  # slow to import, and not needed for local weights

    return str(constants.ENDPOINT)


def hub_is_reachable() -> bool:
    """Whether a connection to the hub can be opened. A proxy in between is taken to answer for it; False in offline
    mode (HF_HUB_OFFLINE)."""
    from huggingface_hub import constants  # as above

    if constants.HF_HUB_OFFLINE:
        return False
    address = urlsplit(hub_address())
    if address.scheme in (proxies := getproxies()) or "all" in proxies:
        return True
    port = address.port or (80 if address.scheme == "http" else 443)
    try:
        socket.create_connection((address.hostname or "", port), _SECONDS).close()
    except OSError:
        return False
    return True
