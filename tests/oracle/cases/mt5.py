"""mT5 as transformers configures it, small: its class scales nothing and believes no word about a tied head."""

from __future__ import annotations

from oracle.cases.t5 import T5

MT5 = T5 | {"model_type": "mt5", "architectures": ["MT5ForConditionalGeneration"], "feed_forward_proj": "gated-gelu"}
CASES = {
    "untied": MT5 | {"tie_word_embeddings": False},
    "unsaid": {name: value for name, value in MT5.items() if name != "feed_forward_proj"},
    "called-tied": MT5 | {"tie_word_embeddings": True},
}
