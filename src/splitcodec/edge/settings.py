"""Beside server.py: what an operator can tell the server.   read by: app.py, listen.py, service.py

Each setting is an option of `splitcodec serve`, and an environment variable: SPLITCODEC_PORT=9000, say. Tokens come
from a file or the environment alone: a command line is read by everybody on the machine.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from difflib import get_close_matches
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Literal, final

from splitcodec.errors import MissingExtra, SettingsError

try:
    from pydantic import AliasChoices, Field, FiniteFloat, SecretStr, ValidationError, field_validator
    from pydantic_settings import BaseSettings, SettingsConfigDict
except ModuleNotFoundError as error:
    raise MissingExtra(f"the server needs {error.name}; install it with: pip install 'splitcodec[edge]'") from None

_log = logging.getLogger("splitcodec.edge")
_PREFIX = "SPLITCODEC_"
# what other commands, docs/field.md and the tests have beside it
_OTHERS = ("TOKEN", "SERVER_TOKEN", "MQTT_USERNAME", "MQTT_PASSWORD", "MQTT_CA", "CACHE", "URL", "REQUIRE", "PROVIDERS")


@final
class Settings(BaseSettings):
    """What the server can be told; docs/server.md says it at length.

    Sizes are in bytes, packets or symbols, times in seconds unless the name says ms. `threads` goes to ONNX Runtime
    (none: its choice), `max_symbols` lowers the bundles' own limit (none: that limit). 0 turns a rate limit off.
    """

    model_config = SettingsConfigDict(env_prefix=_PREFIX, frozen=True, populate_by_name=True)

    host: str = Field(default="127.0.0.1", min_length=1)
    port: int = Field(default=8080, ge=0, le=65_535)
    tls_cert: Path | None = None
    tls_key: Path | None = None
    insecure: bool = False
    tokens: SecretStr | None = Field(
        default=None, validation_alias=AliasChoices("SPLITCODEC_TOKENS", "SPLITCODEC_TOKEN")
    )
    tokens_file: Path | None = None
    trusted_proxies: str = ""

    threads: int | None = Field(default=None, ge=1)
    workers: int = Field(default=2, ge=1, le=256)
    max_batch: int = Field(default=16, ge=1, le=1024)
    max_wait_ms: FiniteFloat = Field(default=0.0, ge=0, le=1000)
    max_queue: int = Field(default=256, ge=1)

    max_body_bytes: int = Field(default=65_536, ge=13)
    max_symbols: int | None = Field(default=None, ge=1)
    symbols_per_s: FiniteFloat = Field(default=4_000_000, ge=0)
    requests_per_s: FiniteFloat = Field(default=1000, ge=0)
    max_clients: int = Field(default=10_000, ge=1)
    max_connections: int = Field(default=1000, ge=1)
    head_timeout_s: FiniteFloat = Field(default=10, gt=0)
    body_timeout_s: FiniteFloat = Field(default=10, gt=0)
    keep_alive_s: int = Field(default=15, ge=1)
    linger_s: FiniteFloat = Field(default=1.0, ge=0)
    drain_s: FiniteFloat = Field(default=10.0, gt=0)

    replay_answers: int = Field(default=4096, ge=0)
    replay_bytes: int = Field(default=16 << 20, ge=0)
    replay_s: FiniteFloat = Field(default=600, gt=0)

    log: Literal["text", "json"] = "text"

    @field_validator("trusted_proxies")
    @classmethod
    def _proxies(cls, text: str) -> str:
        """Refuse what no proxy's address is ever equal to: uvicorn would believe nobody, and say nothing."""
        for one in (part.strip() for part in text.split(",") if part.strip() and text.strip() != "*"):
            try:
                ip_network(one)
            except ValueError:
                raise ValueError(
                    f"{one!r:.60} is no address such as 10.0.0.5, nor a network such as 10.0.0.0/8"
                ) from None
        return text


def read_settings(options: Mapping[str, object] | None = None) -> Settings:
    """Return the settings: `options` before the environment before the defaults; an option that is None is left out.

    A variable that begins like a setting and is none is warned of. Raises SettingsError naming what is wrong.
    """
    for name, meant in _misspelt(os.environ):
        _log.warning("%s is no setting of the server and does nothing%s", name, f"; {meant} is one" if meant else "")
    given: dict[str, Any] = {name: value for name, value in (options or {}).items() if value is not None}
    try:
        settings = Settings(**given)
    except ValidationError as error:
        raise SettingsError(f"server settings: {complaints(error.errors())}") from None
    if (settings.tls_cert is None) != (settings.tls_key is None):
        raise SettingsError("server settings: tls_cert and tls_key come together; give both files, or neither")
    return settings


def default_settings() -> Settings:
    """Return the defaults, whatever the environment says: for a server that only its own process asks."""
    return Settings.model_construct()


def _misspelt(environment: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return names that begin like a setting's and are nobody's, each with the likeliest setting, if any."""
    known = [_PREFIX + name.upper() for name in (*Settings.model_fields, *_OTHERS)]
    strange = sorted(name for name in environment if name.startswith(_PREFIX) and name not in known)
    return [(name, next(iter(get_close_matches(name, known, n=1, cutoff=0.9)), "")) for name in strange]


def complaints(errors: Any) -> str:
    """Return what pydantic says of wrong values, in one line of at most 500 characters."""
    told = [f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}, got {one['input']!r:.60}" for one in errors]
    return "; ".join(told)[:500]
