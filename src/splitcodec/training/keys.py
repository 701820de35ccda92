"""What all parts of a recipe share: YAML, strictness, the choice between kinds by a key, differences."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Annotated, Any, TypeVar, final

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Kept = Annotated[float, Field(ge=0.0, lt=1.0)]
Weight = Annotated[float, Field(ge=0.0)]
Count = Annotated[int, Field(ge=0)]
_Colours = TypeVar("_Colours", bound=float | tuple[float, float, float])


def _of_unit_pixels(value: _Colours) -> _Colours:
    if max(value if isinstance(value, tuple) else (value,)) > 1:
        raise ValueError(f"{value}: pixels are from 0 to 1 here; divide what is of pixels up to 255 by 255")
    return value


OfPixels = AfterValidator(_of_unit_pixels)
"""What pixels from 0 to 1 are centred or scaled by: one number, or one for each colour."""


class Strict(BaseModel):
    """Keys and values of which none may be unknown; cannot be changed."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


@final
class Once(yaml.SafeLoader):
    """YAML in which no key is there twice: PyYAML takes the last one and says nothing."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return keys and values. Raises YAMLError for a key that is there twice."""
        seen = set[str]()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.YAMLError(f"line {key.start_mark.line + 1}: {key.value} is there twice; keep one")
            seen.add(str(key.value))
        return super().construct_mapping(node, deep=deep)


def by_kind(*kinds: str) -> Discriminator:
    """Choose among models tagged with these kinds by the key `kind`; the first is meant where there is none."""
    return Discriminator(
        _kind(kinds[0]),
        custom_error_type="kind",
        custom_error_message=f"expected keys, `kind` among them one of {', '.join(kinds)} (or left out: {kinds[0]})",
    )


def differences(was: BaseModel, now: BaseModel) -> list[str]:
    """Return the keys whose values differ, as --set takes them, each with what it was and what it is."""
    return list(_differences(was.model_dump(mode="json"), now.model_dump(mode="json"), ""))


def _differences(was: Any, now: Any, key: str) -> Iterator[str]:
    if isinstance(was, dict) and isinstance(now, dict):
        for name in dict.fromkeys((*was, *now)):
            yield from _differences(was.get(name), now.get(name), f"{key}.{name}" if key else name)
    elif was != now:
        before, after = (text if len(text) <= 40 else f"{text[:37]}..." for text in map(json.dumps, (was, now)))
        yield f"{key} (was {before}, is {after})"


def _kind(first: str) -> Callable[[Any], str | None]:
    def kind(value: Any) -> str | None:
        if isinstance(value, dict):
            found = value.get("kind", first)
            return found if isinstance(found, str) else None
        return getattr(value, "kind", None)

    return kind
