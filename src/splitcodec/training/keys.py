"""What all parts of a recipe share: strictness, and the choice between kinds by a key that may be left out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Discriminator, Field

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Weight = Annotated[float, Field(ge=0.0)]
Count = Annotated[int, Field(ge=0)]


class Strict(BaseModel):
    """Keys and values of which none may be unknown; cannot be changed."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def by_kind(*kinds: str) -> Discriminator:
    """Choose among models tagged with these kinds by the key `kind`; the first is meant where there is none."""
    return Discriminator(
        _kind(kinds[0]),
        custom_error_type="kind",
        custom_error_message=f"expected keys, `kind` among them one of {', '.join(kinds)} (or left out: {kinds[0]})",
    )


def _kind(first: str) -> Callable[[Any], str | None]:
    def kind(value: Any) -> str | None:
        if isinstance(value, dict):
            found = value.get("kind", first)
            return found if isinstance(found, str) else None
        return getattr(value, "kind", None)

    return kind
