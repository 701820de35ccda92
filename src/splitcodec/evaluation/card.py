"""What a bundle's model card says once something of the bundle was made anew.   used by: all that derive bundles"""

from __future__ import annotations

from splitcodec.wire.bundle import CARD, Bundle


def card_with(bundle: Bundle, told: str) -> dict[str, bytes]:
    """Return the file of the model card with a paragraph more; none of a bundle without a card."""
    return {CARD: bundle.read(CARD).rstrip() + f"\n\n{told}\n".encode()} if bundle.has(CARD) else {}
