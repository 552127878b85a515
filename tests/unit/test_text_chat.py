from __future__ import annotations

import sys
from datetime import datetime
from typing import Any

import pytest

from groundup.errors import MissingExtra, TextError
from groundup.text.tokenizer import Tokenizer
from groundup.text.train import train

HELLO = [{"role": "user", "content": "Hi"}]
ANSWERED = [*HELLO, {"role": "assistant", "content": "Hello"}]
CHATML = """{{ bos_token }}{% for message in messages %}
    {% if message.role == 'user' %}
<user>{{ message.content }}{{ eos_token }}
    {% elif message.role == 'assistant' %}
        {% generation %}
<assistant>{{ message.content }}{{ eos_token }}
        {% endgeneration %}
    {% else %}
{{ raise_exception('no role ' + message.role) }}
    {% endif %}
{% endfor %}
{%- if add_generation_prompt %}
<assistant>
{%- endif %}"""


def with_template(template: str | None) -> Tokenizer:
    plain = train(["some text"], vocab=257)
    return Tokenizer(plain.definition, begin=plain.end, end=plain.end, chat_template=template)


def test_a_conversation_becomes_the_text_of_the_template() -> None:
    tokenizer = with_template(CHATML)
    assert tokenizer.chat(HELLO) == "<|end|><user>Hi<|end|>\n<assistant>"
    expected = "<|end|><user>Hi<|end|>\n<assistant>Hello<|end|>\n"
    assert tokenizer.chat(ANSWERED, add_generation_prompt=False) == expected


@pytest.mark.slow
def test_transformers_gives_the_same_text() -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    template = CHATML + "{{ tools | tojson(indent=1) }}{% for m in messages %}{% break %}{% endfor %}<é&>"
    tools: list[Any] = [{"name": "look", "about": "<é & 'quotes'>"}]
    theirs, _ = render_jinja_template(
        [ANSWERED],
        chat_template=template,
        tools=tools,
        add_generation_prompt=True,
        bos_token="<|end|>",
        eos_token="<|end|>",
    )
    assert with_template(template).chat(ANSWERED, tools=tools) == theirs[0]


def test_what_the_template_asks_for_is_passed_on() -> None:
    tokenizer = with_template("{{ strftime_now('%Y') }} {{ enable_thinking }}")
    assert tokenizer.chat(HELLO, enable_thinking=True) == f"{datetime.now():%Y} True"


def test_no_template_is_an_error() -> None:
    with pytest.raises(TextError, match=r"has no chat template; put one beside tokenizer\.json"):
        with_template(None).chat(HELLO)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (CHATML, "refuses this conversation: no role system; change the messages"),
        ("{% if %}", "malformed at line 1"),
        ("{{ messages.pop() }}", "refuses this conversation: .*unsafe"),
        ("{{ ''.__class__.__mro__ }}", "refuses this conversation: .*unsafe"),
        ("{{ messages[0]['content'] + 1 }}", "fails on this conversation"),
    ],
)
def test_a_template_that_fails_says_so(template: str, message: str) -> None:
    with pytest.raises(TextError, match=message):
        with_template(template).chat([{"role": "system", "content": "x"}])


def test_a_message_without_a_role_is_refused() -> None:
    with pytest.raises(TextError, match=r"message 1 is .*; expected a mapping like"):
        with_template(CHATML).chat([*HELLO, {"content": "x"}])


def test_without_jinja_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MissingExtra, match=r"pip install 'groundup\[chat\]'"):
        with_template(CHATML).chat(HELLO)
