"""Where every figure of a plan comes from: each has a derivation, whose formula comes to the figure.

Memory is told in explain_memory.py, time and what several devices share in explain_time.py; here is the rest, and who
tells what.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from groundup.errors import ConfigError, nearest
from groundup.model.decoder import Decoder
from groundup.planner import books, power, units
from groundup.planner.assumptions import BATCH_TOKENS, CHINCHILLA_TOKENS_PER_PARAM, SHARED_CONTEXT
from groundup.planner.derivation import Derivation, Term
from groundup.planner.explain_memory import EXPLAIN_MEMORY, row_choice
from groundup.planner.explain_time import EXPLAIN_TIME
from groundup.planner.figures import derive, own
from groundup.planner.scaling import BESIROGLU, FLOPS_PER_PARAM_TOKEN, LEAST_FLOPS, PETAFLOP_S_DAY
from groundup.planner.study import layer_names

if TYPE_CHECKING:
    from groundup.planner.plan import Plan

COUNTED = "counted on the model's own modules, built without memory (books.py)"
CONVENTION = (
    "2 operations for each pair of numbers multiplied and added, attention in full: Chowdhery et al. 2022 (PaLM, "
    "arXiv:2204.02311), appendix B"
)


def explain(plan: Plan, figure: str) -> Derivation:
    """Returns where a figure comes from: its terms, the formula with the numbers in it, the source.

    Raises:
        ConfigError: there is no such figure; the message names the nearest.
    """
    known = figures(plan)
    if figure not in known:
        hint = nearest(str(figure), known) or f"choose from {', '.join(known)}"
        raise ConfigError(f"a plan has no figure {figure!r} to explain; {hint}")
    return EXPLANATIONS[figure](plan)


def figures(plan: Plan) -> list[str]:
    """Returns the names of the figures that can be explained, in the order of the plan."""
    return [name for name in vars(plan) if name in EXPLANATIONS]


def derivations(plan: Plan) -> Iterator[Derivation]:
    """Yields where every figure comes from."""
    yield from (explain(plan, figure) for figure in figures(plan))


def _params(plan: Plan) -> Derivation:
    terms = [
        Term(name=part, value=count, unit="parameters", source="all layers" if "layers." in part else "")
        for part, count in plan.params_by_part.items()
    ]
    return derive(plan, "params", terms=terms, source=f"{COUNTED}; tied ones once")


def _active_params(plan: Plan) -> Derivation:
    idle = Term(
        name="idle_params",
        value=plan.params - books.active_params(plan.study.spec),
        unit="parameters",
        source="of the experts that a token does not go to",
    )
    return derive(
        plan, "active_params", formula="params - idle_params", terms=[own(plan, "params"), idle], source=COUNTED
    )


def _embedding_params(plan: Plan) -> Derivation:
    tables = books.embedding_params_by_table(plan.study.spec).items()
    terms = [Term(name=path, value=count, unit="parameters") for path, count in tables]
    return derive(plan, "embedding_params", terms=terms, source=COUNTED)


def _tokens(plan: Plan) -> Derivation:
    return derive(
        plan,
        "tokens",
        formula="steps * batch_tokens",
        terms=[own(plan, "steps"), own(plan, "batch_tokens")],
        source="whole steps, so that all tokens asked for are read",
    )


def _context(plan: Plan) -> Derivation:
    study = plan.study
    longest = Term(name="longest", value=study.spec.longest, unit="tokens", source="the model's context")
    if study.asked["context"] is not None:
        return _as_given(plan, "context")
    if plan.devices == 1:
        return derive(plan, "context", formula="longest", terms=[longest], source="the model's, for none was given")
    most = Term(name="usual", value=SHARED_CONTEXT, unit="tokens", source="longer rows are taught at the end")
    source = "Grattafiori et al. 2024 (Llama 3, arXiv:2407.21783), section 3.4"
    return derive(plan, "context", formula="min(longest, usual)", terms=[longest, most], source=source)


def _micro_batch(plan: Plan) -> Derivation:
    if plan.study.asked["rows"] is not None:
        return _as_given(plan, "micro_batch", option="rows")
    if plan.study.step.job is not None:
        given = plan.study.asked["layout"] != "auto"
        source = "the layout that was given" if given else "the fastest layout that fits; see layout"
        terms = [Term(name="micro", value=plan.micro_batch, unit="rows", source=source)]
        return derive(plan, "micro_batch", formula="micro", terms=terms, source=source)
    return row_choice(plan)


def _accumulate(plan: Plan) -> Derivation:
    study = plan.study
    if study.step.job is not None:
        terms = [
            Term(name="rows", value=study.step.job.rows, unit="rows", source="of a step"),
            _sized(plan, "dp", "replicas, which read rows of their own"),
            own(plan, "micro_batch"),
        ]
        source = "micro-batches that one replica reads in a step"
        return derive(plan, "accumulate", formula="floor(rows / (dp * micro_batch))", terms=terms, source=source)
    terms = [_wanted(plan), own(plan, "micro_batch"), _row_tokens(plan)]
    formula = "max(1, round(wanted_tokens / (micro_batch * row_tokens)))"
    return derive(plan, "accumulate", formula=formula, terms=terms, source="as many as come closest to those tokens")


def _batch_tokens(plan: Plan) -> Derivation:
    terms = [own(plan, "micro_batch"), own(plan, "accumulate"), _row_tokens(plan)]
    formula = "micro_batch * accumulate * row_tokens"
    if plan.study.step.job is not None:
        terms = [_sized(plan, "dp", "replicas"), *terms]
        formula = f"dp * {formula}"
    notes = [f"Wanted were {units.count(plan.study.rehearsed.wanted_tokens)} tokens: {_wanted(plan).source}."]
    return derive(plan, "batch_tokens", formula=formula, terms=terms, source="whole micro-batches", notes=notes)


def _steps(plan: Plan) -> Derivation:
    given = plan.study.asked["tokens"] is not None
    source = "given" if given else f"{CHINCHILLA_TOKENS_PER_PARAM} for each parameter; see chinchilla_tokens"
    text = Term(name="text_tokens", value=plan.study.text_tokens, unit="tokens", source=source)
    return derive(
        plan,
        "steps",
        formula="ceil(text_tokens / batch_tokens)",
        terms=[text, own(plan, "batch_tokens")],
        source="whole steps, so that all tokens asked for are read",
    )


def _forward_flops_per_token(plan: Plan) -> Derivation:
    study = plan.study
    names, tokens = layer_names(study.spec), study.shape.text
    by_part = books.forward_flops_by_part(study.spec, study.shape)
    counts = books.blueprint(study.spec).counts
    terms = [
        Term(name=names.get(path, path), value=flops / tokens, unit="operations", count=counts.get(path, 1))
        for path, flops in by_part.items()
        if flops
    ]
    notes = [f"Averaged over the {tokens:,} tokens of a row."]
    source = f"{COUNTED}; {CONVENTION}"
    return derive(plan, "forward_flops_per_token", terms=terms, source=source, notes=notes)


def _train_flops_per_token(plan: Plan) -> Derivation:
    study = plan.study
    backward = Term(
        name="backward_flops_per_token",
        value=books.backward_flops(study.spec, study.shape) / study.shape.text,
        unit="operations",
        source="a product has one for the gradient of either side, but for sides that are constant",
    )
    again = books.again_flops(study.spec, study.shape) / study.shape.text
    note = "Layers that keep nothing for their backward compute their forward once more, and that is not counted"
    return derive(
        plan,
        "train_flops_per_token",
        formula="forward_flops_per_token + backward_flops_per_token",
        terms=[own(plan, "forward_flops_per_token"), backward],
        source=CONVENTION,
        notes=[f"{note}: {units.flops(again)} a token."] if again else [],
    )


def _step_flops(plan: Plan) -> Derivation:
    terms = [own(plan, "train_flops_per_token"), own(plan, "batch_tokens")]
    formula = "train_flops_per_token * batch_tokens"
    return derive(plan, "step_flops", formula=formula, terms=terms, source=CONVENTION)


def _train_flops(plan: Plan) -> Derivation:
    params, tokens = plan.params, plan.tokens
    rule = FLOPS_PER_PARAM_TOKEN * params * tokens
    return derive(
        plan,
        "train_flops",
        formula="train_flops_per_token * tokens",
        terms=[own(plan, "train_flops_per_token"), own(plan, "tokens")],
        source=CONVENTION,
        notes=[f"The rule of thumb, 6 for each parameter and token, comes to {units.flops(rule)}."],
    )


def _petaflop_s_days(plan: Plan) -> Derivation:
    day = Term(
        name="petaflop_s_day", value=PETAFLOP_S_DAY, unit="operations", source="1e15 a second for 86,400 seconds"
    )
    return derive(
        plan,
        "petaflop_s_days",
        formula="train_flops / petaflop_s_day",
        terms=[own(plan, "train_flops"), day],
        source="Brown et al. 2020 (arXiv:2005.14165), appendix D",
    )


def _state_bytes(plan: Plan) -> Derivation:
    study = plan.study
    names, counts = layer_names(study.spec), books.blueprint(study.spec).counts
    by_layer = books.state_bytes_by_layer(study.spec, rows=1, max_len=plan.context, dtype=study.rehearsed.dtype)
    terms = [
        Term(name=names[path], value=size, unit="bytes", count=counts[path]) for path, size in by_layer.items() if size
    ]
    source = f"what each mixer's new_state makes for a row of {plan.context:,} tokens, in {plan.precision}"
    notes = [] if terms else ["Its layers keep nothing of what they have read."]
    return derive(plan, "state_bytes", terms=terms, source=source, notes=notes)


def _devices(plan: Plan) -> Derivation:
    terms = [Term(name="given", value=plan.devices, source=f"on={plan.study.asked['on']}")]
    if plan.devices == 1:
        terms = [Term(name="given", value=1, source=plan.machine)]
    return derive(plan, "devices", formula="given", terms=terms, source="as many as were named")


def _energy_kwh(plan: Plan) -> Derivation:
    study = plan.study
    device, missing = study.site.device, "nobody says what it draws; give --watts"
    source = missing if study.rates.watts is None else "given"
    if study.rates.watts is not None and not study.asked["watts"] and device is not None:
        source = f"under load, as designed for; {device.source or 'a file of your own'}"
    watts = Term(name="watts", value=study.rates.watts, unit="W", source=source)
    return derive(
        plan,
        "energy_kwh",
        formula="devices * train_seconds / 3600 * watts / 1000 * pue",
        terms=[own(plan, "devices"), own(plan, "train_seconds"), watts, own(plan, "pue")],
        source="device-hours times power and the centre's own share; Patterson et al. 2021 (arXiv:2104.10350)",
    )


def _co2_kg(plan: Plan) -> Derivation:
    grid = plan.study.rates.grid
    year = f", {grid.year}" if grid is not None and grid.year is not None else ""
    said = "nobody says whose electricity it is; give --region" if grid is None else f"{grid.name}{year}"
    grams = Term(name="grams_per_kwh", value=None if grid is None else grid.grams_per_kwh, unit="g/kWh", source=said)
    return derive(
        plan,
        "co2_kg",
        formula="energy_kwh * grams_per_kwh / 1000",
        terms=[own(plan, "energy_kwh"), grams],
        source="Patterson et al. 2021 (arXiv:2104.10350); the grid's figure from the planner's grids/",
    )


def _cost_usd(plan: Plan) -> Derivation:
    study, device = plan.study, plan.study.site.device
    source = "nobody says; give --usd-per-hour" if study.rates.usd_per_hour is None else "given"
    if study.rates.usd_per_hour is not None and not study.asked["usd_per_hour"] and device is not None:
        source = device.price or "a file of your own"
    price = Term(name="usd_per_hour", value=study.rates.usd_per_hour, unit="USD", source=source)
    return derive(
        plan,
        "cost_usd",
        formula="devices * train_seconds / 3600 * usd_per_hour",
        terms=[own(plan, "devices"), own(plan, "train_seconds"), price],
        source="the hours of all devices times the price of one",
    )


def _chinchilla_tokens(plan: Plan) -> Derivation:
    each = Term(
        name="tokens_per_param",
        value=CHINCHILLA_TOKENS_PER_PARAM,
        unit="tokens",
        source="400M parameters go with 8.0B tokens, 1B with 20.2B",
    )
    return derive(
        plan,
        "chinchilla_tokens",
        formula="tokens_per_param * params",
        terms=[each, own(plan, "params")],
        source="Hoffmann et al. 2022 (arXiv:2203.15556), table 3",
    )


def _predicted_loss(plan: Plan) -> Derivation:
    law, unknown = BESIROGLU, _no_law(plan)
    constants = {"irreducible": law.floor, "size": law.size, "length": law.length, "alpha": law.alpha, "beta": law.beta}
    terms = [
        Term(name=name, value=None if unknown else value, source="" if unknown else law.source)
        for name, value in constants.items()
    ]
    notes = ["It is the loss on the text and with the vocabulary of Hoffmann et al. 2022."]
    return derive(
        plan,
        "predicted_loss",
        formula="irreducible + size / params ** alpha + length / tokens ** beta",
        terms=[*terms, own(plan, "params"), own(plan, "tokens")],
        source="Besiroglu et al. 2024 (arXiv:2404.10102), fitted to the runs of Hoffmann et al. 2022",
        notes=[f"Not told: {unknown}."] if unknown else notes,
    )


def _predicted_loss_end(figure: str, end: int) -> Callable[[Plan], Derivation]:
    """The derivation of an end of the loss's interval."""

    def told(plan: Plan) -> Derivation:
        law, unknown = BESIROGLU, _no_law(plan)
        ends = None if unknown else law.floor_ends
        terms = [
            own(plan, "predicted_loss"),
            Term(name="irreducible", value=None if unknown else law.floor, source="the law's floor"),
            Term(name="end", value=None if ends is None else ends[end], source="of 95% of 4,000 draws of the floor"),
        ]
        return derive(
            plan, figure, formula="predicted_loss - irreducible + end", terms=terms, source="Besiroglu et al. 2024"
        )

    return told


def _told(figure: str, source: str, missing: str = "", *, formula: str = "given") -> Callable[[Plan], Derivation]:
    """The derivation of what was asked for, or left at what is usual."""

    def told(plan: Plan) -> Derivation:
        value = getattr(plan, figure)
        said = missing if value is None else source
        number = None if value is None else float(value)
        return derive(plan, figure, formula=formula, terms=[Term(name="given", value=number, source=said)], source=said)

    return told


def _embodied_kg(plan: Plan) -> Derivation:
    asked = plan.embodied_kg is not None
    each = Term(name="kg_an_hour", value=power.embodied_kg(1.0) if asked else None, unit="kg", source="of a device")
    return derive(
        plan,
        "embodied_kg",
        formula="devices * train_seconds / 3600 * kg_an_hour",
        terms=[own(plan, "devices"), own(plan, "train_seconds"), each],
        source="the making of the devices, over the hours that they serve (power.py); give --embodied",
    )


def _no_law(plan: Plan) -> str:
    """Why the law does not hold; empty where it does."""
    if plan.predicted_loss is not None:
        return ""
    if not isinstance(plan.study.spec, Decoder):
        return "the law is of decoders that predict the next token"
    if plan.active_params != plan.params:
        return "the law is of models in which every parameter takes part in each token"
    flops = FLOPS_PER_PARAM_TOKEN * plan.params * plan.tokens
    if flops < LEAST_FLOPS:
        return (
            f"the law was fitted to runs of {units.flops(LEAST_FLOPS)} or more, and this one has {units.flops(flops)}"
        )
    return "the law is of the next token, and this run learns something else"


def _as_given(plan: Plan, figure: str, *, option: str | None = None) -> Derivation:
    terms = [Term(name="given", value=getattr(plan, figure), source=f"--{option or figure}")]
    return derive(plan, figure, formula="given", terms=terms, source="as it was asked for")


def _row_tokens(plan: Plan) -> Term:
    return Term(name="row_tokens", value=plan.study.shape.text, unit="tokens", source="of text in a row")


def _sized(plan: Plan, name: str, source: str) -> Term:
    return Term(name=name, value=None if plan.layout is None else plan.layout[name], source=source)


def _wanted(plan: Plan) -> Term:
    asked = plan.study.asked
    if asked["batch_tokens"] is not None:
        source = "given with --batch-tokens"
    elif asked["rows"] is not None and plan.study.step.job is None:
        source = "one micro-batch, for only its rows were given"
    elif plan.study.step.job is not None:
        source = "0.2920 C^0.3271 for C operations, a power of two; DeepSeek-AI 2024 (arXiv:2401.02954), section 3.1"
    else:
        source = f"{BATCH_TOKENS:,} as GPT-3's small sizes (Brown et al. 2020, table 2.1), or one row"
    return Term(name="wanted_tokens", value=plan.study.rehearsed.wanted_tokens, unit="tokens", source=source)


EXPLANATIONS: dict[str, Callable[[Plan], Derivation]] = {
    "params": _params,
    "active_params": _active_params,
    "embedding_params": _embedding_params,
    "tokens": _tokens,
    "context": _context,
    "micro_batch": _micro_batch,
    "accumulate": _accumulate,
    "batch_tokens": _batch_tokens,
    "steps": _steps,
    "forward_flops_per_token": _forward_flops_per_token,
    "train_flops_per_token": _train_flops_per_token,
    "step_flops": _step_flops,
    "train_flops": _train_flops,
    "petaflop_s_days": _petaflop_s_days,
    "state_bytes": _state_bytes,
    "devices": _devices,
    "energy_kwh": _energy_kwh,
    "co2_kg": _co2_kg,
    "cost_usd": _cost_usd,
    "chinchilla_tokens": _chinchilla_tokens,
    "predicted_loss": _predicted_loss,
    "predicted_loss_low": _predicted_loss_end("predicted_loss_low", 0),
    "predicted_loss_high": _predicted_loss_end("predicted_loss_high", 1),
    "watts": _told("watts", "given, capped, or as the device was designed for", "nobody says; give --watts"),
    "watts_cap": _told("watts_cap", "given with --watts-cap", "there is no cap"),
    "pue": _told("pue", "given with --pue, of the cloud's region, or 1"),
    "embodied_kg": _embodied_kg,
    "offload": _told("offload", "given with --offload, or the fastest layout's", formula="1 <= given"),
    **EXPLAIN_MEMORY,
    **EXPLAIN_TIME,
}
