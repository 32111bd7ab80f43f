"""`peftx explain METHOD --model NAME`: what goes where, how many parameters, how much memory, before
training."""

from __future__ import annotations

from typing import Any

import click
from click.shell_completion import CompletionItem

from peftx.cli.app import State
from peftx.errors import ConfigError

EXAMPLES = (
    "peftx explain core.lora --model vit_micro",
    "peftx explain core.dora --task vision --model vit_base_patch16_224 --rank 16 --sites",
)


def _complete(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    state = ctx.find_object(State) or State()
    return [CompletionItem(name) for name in state.registry().methods if name.startswith(incomplete)]


@click.command(
    "explain",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    epilog="\b\nExamples:\n" + "\n".join(f"  {line}" for line in EXAMPLES),
)
@click.argument(
    "arguments",
    nargs=-1,
    type=click.UNPROCESSED,
    metavar="METHOD [--model NAME] [OPTIONS]",
    shell_complete=_complete,
)
@click.pass_obj
def command(state: State, arguments: tuple[str, ...]) -> None:
    """Show what METHOD would change in a model: sites, counts, closed formula, memory estimate.

    Takes the options of `peftx run` (see `peftx run METHOD --help`); --sites lists every site, --json prints
    JSON. The base weights are not needed: shapes are enough.
    """
    from peftx.cli.assembling import assemble
    from peftx.cli.output import print_json

    registry = state.registry()
    if {"-h", "--help"} & set(arguments):
        click.echo(command.get_help(click.get_current_context()))
        return
    words = with_task(registry, list(arguments))
    request = assemble(registry, words, switches=("sites",))
    as_json, sites = request.flags.switch("json"), request.flags.switch("sites")
    config = request.config()

    from peftx.runs import preflight

    plan = preflight(config, registry)
    if plan.method.spec.kind == "model":
        raise ConfigError(
            f"{plan.method.name} is a model of its own and changes none; `peftx run` counts its parameters"
        )
    explanation = _explain(plan)
    if as_json:
        print_json(explanation.to_dict())
    else:
        click.echo(explanation.render(sites=sites))


def with_task(registry: Any, words: list[str]) -> list[str]:
    """Add the only task there is when none can be read off the arguments: a core method fits every domain,
    and with one pack installed there is nothing to ask."""
    from peftx.cli.assembling import assemble

    if not words:
        raise ConfigError("name a method, such as `peftx explain core.lora --model vit_micro`")
    if assemble(registry, words, need_task=False, switches=("sites",)).chosen.task is None:
        domains = list(dict.fromkeys(entry.domain for entry in registry.tasks.values()))
        if len(domains) == 1:
            return [*words, "--task", domains[0]]
    return words


def _explain(plan: Any) -> Any:
    """Build the model of the plan, without its pretrained weights where it can do without, and ask the
    method."""
    import dataclasses

    import peftx
    from peftx.runs.session import load_data, make_task

    fields = getattr(type(plan.model_config), "model_fields", {})
    if "pretrained" in fields and "pretrained" not in plan.model_config.model_fields_set:
        # Shapes do not depend on the weights, and fetching them may take long or fail.
        plan = dataclasses.replace(
            plan, model_config=plan.model_config.model_copy(update={"pretrained": False})
        )
    model = make_task(plan, load_data(plan)).build_model()
    return peftx.explain(model, plan.method.name, config=plan.method_config)
