"""The page of one run: its score beside the baselines first, then how it came about, then all that explains it."""

from __future__ import annotations

from peftx.plugins.registry import Registry
from peftx.report import facts
from peftx.report.curves import curves
from peftx.report.figures import finite
from peftx.report.headline import banner, header, summary
from peftx.report.markup import Html, join, tag
from peftx.report.page import page
from peftx.report.panel import plugin_panels
from peftx.report.parts import callout, figure, legend, section
from peftx.report.reliability import diagram
from peftx.report.results_table import efficiency, failed, metrics, results
from peftx.report.scatter import Point, scatter
from peftx.report.source import RunSource, mapping, sequence

__all__ = ["render_run"]

Sections = list[tuple[str, str, Html]]


def render_run(source: RunSource, registry: Registry | None = None) -> str:
    """The whole page as text: the same for the same files, without a time of its own."""
    record = source.record
    sections: Sections = []

    def add(key: str, menu: str, title: str, *body: object, note: str = "") -> None:
        if any(part is not None and part != "" for part in body):
            sections.append((key, menu, section(key, title, *body, note=note)))

    add("results", "Results", "Results", *_results(source))
    drawn = curves(source)
    if drawn:
        add("curves", "Curves", "Training", _grouped(source, drawn, legend(source.names, own=0)))
    costs = _costs(source)
    if costs:
        body = _grouped(source, costs, legend(source.names, own=0, toggles=False))
        add("cost", "Cost", "Quality against cost", body, note=_cost_note(source))
    add("efficiency", "Efficiency", "Efficiency", efficiency(source))
    add("calibration", "Calibration", "Calibration", *_calibration(source))
    for number, panel in enumerate(plugin_panels(registry, "run", source)):
        add(f"panel-{number}", panel.title, panel.title, Html(panel.body_html), note=panel.note)
    add("settings", "Settings", "Configuration", *facts.configuration(source))
    add("provenance", "Provenance", "Where it comes from", facts.provenance([record]))
    add("next", "Next", "Next commands", facts.commands(sequence(record.get("next"))))
    version = mapping(record.get("versions")).get("peftx", "")
    return page(
        f"{record.get('method', 'run')} on {mapping(record.get('data')).get('name', 'data')} · peftx",
        header(source),
        sections,
        f"A run of peftx {version}. Every figure is from record.json, metrics.jsonl and details.json beside this file.",
    )


def _results(source: RunSource) -> list[object]:
    found: list[object] = [banner(source), *facts.notes(sequence(source.record.get("notes")))]
    if any("error" not in row for row in source.rows):
        found += [summary(source), results(source)]
        everything = metrics(source)
        found += [tag("h3", "All metrics"), everything] if everything is not None else []
    found += [
        callout(join([tag("strong", name), " failed: ", tag("span", cause)]), "bad")
        for name, cause in failed(source)
    ]
    return found


def _grouped(source: RunSource, figures: list[Html], key: Html) -> Html:
    return tag("div", key, tag("div", *figures, class_="plots"), class_="series-group")


def _costs(source: RunSource) -> list[Html]:
    found = []
    unit = source.unit(source.primary)
    quality = f"{'test' if source.split == 'test' else 'validation'} {source.primary}"
    for key, kind, title, cost in (
        ("trainable", "count", "Trained parameters", "trained parameters"),
        ("peak_memory_bytes", "bytes", "Peak memory", "peak memory"),
        ("seconds", "seconds", "Training time", "training time"),
    ):
        points = [
            Point(source.names.index(str(row["method"])), str(row["method"]), cost_value, value)
            for row in source.rows
            if (value := source.score(row)) is not None and (cost_value := finite(row.get(key))) is not None
        ]
        drawn = scatter(
            points,
            f"{quality} against {cost}",
            kind=kind,
            cost=cost,
            quality=quality,
            unit=unit,
            higher_is_better=source.higher_is_better,
        )
        if drawn is not None:
            found.append(figure(title, drawn))
    return found


def _cost_note(source: RunSource) -> str:
    how = {str(row.get("peak_memory_how")) for row in source.rows if row.get("peak_memory_how")}
    memory = f" Memory: {'; '.join(sorted(how))}." if how else ""
    cached = [str(row["method"]) for row in source.rows if mapping(row.get("features")).get("cached") is True]
    features = (
        f" Trained on features that the frozen part computed once: {', '.join(cached)}; time and memory are of that."
        if cached
        else ""
    )
    return (
        f"One seed, so no error bars. The dashed line joins the rows that no other beats.{memory}{features}"
    )


def _calibration(source: RunSource) -> list[object]:
    plots = []
    for index, name in enumerate(source.names):
        details = mapping(mapping(source.details.get(name)).get(source.split))
        drawn = diagram(details, name, index)
        if drawn is None:
            continue
        row = next((row for row in source.rows if row.get("method") == name), {})
        values = source.scores(row, source.split)
        told = [
            f"{key.upper()} {values[key]:.3g}"
            for key in ("ece", "mce", "ace")
            if finite(values.get(key)) is not None
        ]
        told += [f"Brier {values['brier']:.3g}"] if finite(values.get("brier")) is not None else []
        plots.append(figure(name, drawn, " · ".join(told)))
    if not plots:
        return []
    split = {"test": "test", "val": "validation"}[source.split]
    note = (
        f"On the {split} split. Bars: share that is right among the samples of each range of confidence; on the "
        "dashed line the confidence would be honest. Whiskers: 95 % interval of that share (Wilson), wide where there "
        "are few samples."
    )
    return [tag("p", note, class_="note"), tag("div", *plots, class_="plots small")]
