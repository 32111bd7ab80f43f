"""Where a result comes from: configuration, device, versions, data, code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from peftx.report.figures import amount, finite
from peftx.report.markup import Html, esc, join, tag
from peftx.report.parts import Field, callout, copyable, facts, plain, reveal, table
from peftx.report.source import RunSource, mapping, sequence

__all__ = ["commands", "configuration", "data_facts", "environment", "notes", "provenance", "settings"]


def settings(source: RunSource) -> Html | None:
    """Every option and training setting of every row side by side; those that differ stand out."""
    planned = [row for row in sequence(source.record.get("plan")) if isinstance(row, Mapping)]
    done = {str(row.get("method")): row for row in source.rows if "error" not in row}
    rows = [(name, done.get(name) or _named(planned, name)) for name in source.names]
    rows = [(name, row) for name, row in rows if row]
    if not rows:
        return None
    keys: dict[tuple[str, str], None] = {}
    for _, row in rows:
        for part in ("train", "options"):
            keys.update({(part, str(key)): None for key in mapping(row.get(part))})
    ordered = sorted(keys, key=lambda key: key[0] != "train")
    values = [[_value(row, part, key) for _, row in rows] for part, key in ordered]
    differ = [len({text for text in line if text}) > 1 for line in values]
    fields = [
        Field(
            "setting", [f"{'train' if part == 'train' else 'method'}.{key}" for part, key in ordered], "text"
        )
    ]
    fields += [Field(name, [line[i] for line in values], "text") for i, (name, _) in enumerate(rows)]
    return table(
        fields, rows=["differs" if d else "" for d in differ], sortable=False, caption="settings of every row"
    )


def _named(rows: Sequence[Mapping[str, Any]], name: str) -> Mapping[str, Any]:
    return next((row for row in rows if row.get("method") == name), {})


def _value(row: Mapping[str, Any], part: str, key: str) -> str:
    held = mapping(row.get(part))
    return plain(held[key]) if key in held else ""


def configuration(source: RunSource) -> list[Html]:
    """What was asked for: config.toml as it stands, and the settings of all rows."""
    found = []
    compared = settings(source)
    if compared is not None:
        found.append(reveal("Settings of every row", compared))
    if source.config.strip():
        found.append(reveal("config.toml, fully resolved", copyable(source.config.rstrip())))
    return found


def environment(record: Mapping[str, Any], *, times: bool = True) -> Html:
    """Device, platform, precision; `times`: when it began, went on, and how long it took."""
    here = mapping(record.get("environment"))
    names = {"device_name": "name", "platform": "platform", "cuda": "CUDA"}
    pairs: list[tuple[str, object]] = [(names.get(key, key), plain(value)) for key, value in here.items()]
    pairs += [("precision", record.get("precision")), ("evaluation batch", record.get("eval_batch_size"))]
    if times:
        seconds = finite(record.get("seconds"))
        pairs.append(("begun", _time(record.get("started"))))
        pairs.append(("whole run", amount(seconds, "seconds") if seconds is not None else None))
        for event in sequence(record.get("resumed")):
            changed = "; ".join(map(str, sequence(mapping(event).get("changed")))) or "nothing had changed"
            pairs.append(("went on", f"{_time(mapping(event).get('at'))}: {changed}"))
    return facts(pairs)


def provenance(records: Sequence[Mapping[str, Any]]) -> Html:
    """Code, versions, data, model: what one needs to do it again. Of several records (those of a bench) every data set
    and model is told, and the machine and code of the first."""
    blocks: list[tuple[str, Html]] = []
    for record in records:
        blocks.append(("Data", data_facts(mapping(record.get("data")))))
    for record in records:
        model = mapping(record.get("model"))
        blocks.append(("Model", facts((str(key), _model(key, value)) for key, value in model.items())))
    for record in records:
        if fed := mapping(record.get("input")):
            blocks.append(("Input", facts((str(key), plain(value)) for key, value in fed.items())))
    blocks = list(dict.fromkeys(blocks))
    first = records[0]
    git = mapping(first.get("git"))
    commit = str(git.get("commit", ""))
    dirty = ", with uncommitted changes" if git.get("dirty") else ""
    code = f"{commit[:12]}{dirty}" if commit else "not in a repository"
    versions = [(str(name), tag("code", value)) for name, value in mapping(first.get("versions")).items()]
    blocks.append(("Environment", environment(first, times=len(records) == 1)))
    blocks.append(("Code", facts([("commit", tag("code", code, title=commit or None)), *versions])))
    return tag("div", *(tag("div", tag("h3", title), body) for title, body in blocks), class_="columns")


def _model(key: str, value: Any) -> str:
    return f"{value:,}" if key == "parameters" and isinstance(value, int) else plain(value)


def data_facts(data: Mapping[str, Any]) -> Html:
    """Name, sizes, fingerprint, and what the card says: licence, source, whether it is generated."""
    card = mapping(data.get("card"))
    sizes = ", ".join(
        f"{split} {size:,}" for split, size in mapping(data.get("sizes")).items() if finite(size) is not None
    )
    classes = sequence(data.get("classes"))
    fingerprint = str(data.get("fingerprint", ""))
    pairs: list[tuple[str, object]] = [
        ("name", data.get("name")),
        (str(data.get("unit") or "samples"), sizes),
        ("classes", f"{len(classes)}: {_listed(classes)}" if classes else ""),
        ("fingerprint", tag("code", f"{fingerprint[:16]}…", title=fingerprint) if fingerprint else ""),
        ("copy", _copy(mapping(data.get("copy")))),
    ]
    for key, value in card.items():
        if key == "synthetic":
            pairs.append(("origin", "generated: synthetic data" if value else "collected, not synthetic"))
        elif key == "verified":
            pairs.append(
                ("loader", "checked on the official files" if value else "never run on the official files")
            )
        elif isinstance(value, Mapping):  # for programs: as long as the data are wide
            pairs.append((str(key), "in record.json"))
        elif isinstance(value, list | tuple):
            pairs.append((str(key), f"{len(value)}: {_listed(value)}" if value else ""))
        else:
            pairs.append((str(key), _linked(plain(value))))
    return facts(pairs)


def _listed(values: Sequence[Any]) -> str:
    """The first twelve of a list."""
    return ", ".join(plain(value) for value in values[:12]) + (", …" if len(values) > 12 else "")


def _copy(copy: Mapping[str, Any]) -> str:
    """``official: its files have the published checksums``; nothing for data that nobody published."""
    return f"{copy.get('kind')}: {copy.get('detail')}" if copy else ""


def _linked(text: str) -> Html:
    """Addresses in a text become links, which fetch nothing until somebody follows them."""
    parts: list[object] = []
    for word in text.split(" "):
        bare = word.rstrip(".,;)")
        if bare.startswith(("https://", "http://")):
            parts += [tag("a", bare, href=bare, rel="noreferrer noopener"), word[len(bare) :], " "]
        else:
            parts += [word, " "]
    return join(parts[:-1])


def notes(texts: Sequence[Any]) -> list[Html]:
    """Remarks that came with a result: one by one, or as one list where they are many."""
    found = [str(text) for text in texts if str(text).strip()]
    if len(found) > 2:
        return [callout(tag("ul", *(tag("li", text) for text in found)))]
    return [callout(text) for text in found]


def commands(texts: Sequence[Any]) -> Html | None:
    """The commands to type next, each with a button that copies it."""
    found = [copyable(str(text)) for text in texts if str(text).strip()]
    return join(found) if found else None


def _time(value: Any) -> Html:
    text = str(value or "").replace("T", " ").replace("+00:00", " UTC")
    return esc(text)
