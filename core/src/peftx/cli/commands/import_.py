"""`peftx import PEFT_DIR`: an adapter that HF PEFT wrote becomes one of ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from peftx.cli.app import State
from peftx.errors import ArtifactError, ConfigError

EXAMPLES = (
    "peftx import their-adapter --task vision --model vit_base_patch16_224 --data cifar10 --out my-adapter",
)


@click.command(
    "import",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    epilog="\b\nExample:\n" + "\n".join(f"  {line}" for line in EXAMPLES),
)
@click.argument(
    "arguments", nargs=-1, type=click.UNPROCESSED, metavar="PEFT_DIR --model NAME --out DIR [OPTIONS]"
)
@click.pass_obj
def command(state: State, arguments: tuple[str, ...]) -> None:
    """Read the adapter in PEFT_DIR (adapter_config.json, adapter_model.safetensors) and save it for peftx.

    LORA, with use_rslora or use_dora, and SHIRA are read. The model, and the data set whose classes its head has, are
    named as for `peftx run`; --json prints JSON.
    """
    from peftx.cli.assembling import assemble
    from peftx.cli.commands.explain import with_task
    from peftx.cli.output import print_json

    registry = state.registry()
    if not arguments or {"-h", "--help"} & set(arguments):
        click.echo(command.get_help(click.get_current_context()))
        return
    folder, words = Path(arguments[0]), list(arguments[1:])
    if arguments[0].startswith("-"):
        raise ConfigError(f"the folder of the adapter comes first, got {arguments[0]}")
    if not folder.is_dir():
        raise ArtifactError(f"no folder {folder}; give the one that PEFT's save_pretrained wrote")
    request = assemble(registry, with_task(registry, ["core.lora", *words]))
    as_json = request.flags.switch("json")
    config = request.config()
    if config.out is None:
        raise ConfigError("name the folder to write with --out DIR")

    from peftx.runs import import_peft

    adapted = import_peft(folder, config.out, config, registry)
    found = _facts(adapted, config.out)
    if as_json:
        print_json(found)
    else:
        click.echo(
            f"read {found['method']}: {found['sites']} sites, {found['trainable']:,} values\nwritten: {found['folder']}"
            f"\nload it: peftx.artifacts.load(model, {found['folder']!r})"
        )


def _facts(adapted: Any, out: Path) -> dict[str, Any]:
    attachment = adapted.attachment()
    return {
        "folder": str(out),
        "method": attachment.method_name,
        "sites": len(attachment.plan),
        "trainable": adapted.counts().trainable,
    }
