"""Chat templates: a conversation as one text, by the Jinja template that comes with a model.

The conventions are those of Hugging Face's ``apply_chat_template``: a sandbox, trimmed blocks, loop controls, and
the names ``raise_exception``, ``strftime_now``, ``tojson``, ``bos_token`` and ``eos_token``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from groundup.errors import MissingExtra, TextError

if TYPE_CHECKING:
    from jinja2 import Template

Json = Any  # what json.loads returns

# Marks the assistant's words for training masks; while rendering it only holds its body.
_GENERATION = re.compile(r"(\{%[-+]?\s*)(end)?generation(\s*[-+]?%\})")


def render(template: str, *, variables: Mapping[str, Json]) -> str:
    """Returns the template's text for these variables.

    Raises:
        TextError: the template is malformed, refuses the messages, or asks for what it may not.
        MissingExtra: Jinja2 is not installed.
    """
    try:
        import jinja2
    except ImportError as fault:
        raise MissingExtra("Jinja2", purpose="rendering a chat template", extra="chat") from fault
    for index, message in enumerate(variables.get("messages", ())):
        if not (isinstance(message, Mapping) and "role" in message):
            raise TextError(
                f'message {index} is {message!r}; expected a mapping like {{"role": "user", "content": "Hi"}}'
            )
    try:
        return _compiled(template).render(**variables)
    except jinja2.exceptions.TemplateSyntaxError as fault:
        raise TextError(f"the chat template is malformed at line {fault.lineno}: {fault.message}; repair it") from fault
    except jinja2.exceptions.TemplateError as fault:
        raise TextError(f"the chat template refuses this conversation: {fault.message}; change the messages") from fault
    except (TypeError, ValueError, KeyError, AttributeError) as fault:
        raise TextError(f"the chat template fails on this conversation: {fault}; change the messages") from fault


@lru_cache(maxsize=16)
def _compiled(template: str) -> Template:
    from jinja2.exceptions import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(message: str) -> None:
        raise TemplateError(message)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _tojson
    offered = {"raise_exception": refuse, "strftime_now": lambda form: datetime.now().strftime(form)}
    return environment.from_string(_GENERATION.sub(_as_condition, template), globals=offered)


def _as_condition(tag: re.Match[str]) -> str:
    return f"{tag[1]}{'endif' if tag[2] else 'if true'}{tag[3]}"


def _tojson(
    value: Json,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Jinja's own filter escapes HTML, which a model has never seen."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
