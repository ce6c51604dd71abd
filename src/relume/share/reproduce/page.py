"""The report as one HTML page: no script, no other file, light and dark."""

from __future__ import annotations

import html
from collections.abc import Iterable

from relume.share.reproduce.report import MARKS, claimed_and_found, environments, facts, shown_rows
from relume.share.reproduce.verdicts import Reproduction, Row, Stage, Verdict
from relume.text import printable

_CLASSES = {
    Verdict.EXACT: "exact",
    Verdict.WITHIN: "within",
    Verdict.DIFFERENT: "different",
    Verdict.UNCHECKED: "unchecked",
}
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_STYLE = """
:root { color-scheme: light dark; --text: #1c2024; --soft: #5d666f; --page: #f6f7f8; --card: #fff; --line: #e2e5e8;
  --exact: #18794e; --exact-soft: #e3f4ea; --within: #8a5a00; --within-soft: #fdf1d3; --different: #c62a2f;
  --different-soft: #fde7e7; --unchecked: #5d666f; --unchecked-soft: #eceef0; }
@media (prefers-color-scheme: dark) { :root { --text: #e8eaec; --soft: #9ba4ad; --page: #121416; --card: #1a1d20;
  --line: #2c3136; --exact: #5bd69a; --exact-soft: #12331f; --within: #f0c15a; --within-soft: #382a08;
  --different: #ff8b8b; --different-soft: #421719; --unchecked: #9ba4ad; --unchecked-soft: #262b30; } }
* { box-sizing: border-box }
body { margin: 0; background: var(--page); color: var(--text); font: 15px/1.5 system-ui, "Segoe UI", sans-serif }
main { max-width: 1040px; margin: 0 auto; padding: 32px 20px 64px }
h1 { font-size: 26px; line-height: 1.25; margin: 0 0 4px; overflow-wrap: anywhere }
h2 { font-size: 17px; margin: 36px 0 12px }
.soft { color: var(--soft) }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 18px 22px; overflow-x: auto }
.result { margin: 20px 0; border-left: 6px solid var(--kind); font-size: 18px; font-weight: 600; overflow-wrap: anywhere }
.exact { --kind: var(--exact); --kind-soft: var(--exact-soft) } .within { --kind: var(--within); --kind-soft: var(--within-soft) }
.different { --kind: var(--different); --kind-soft: var(--different-soft) }
.unchecked { --kind: var(--unchecked); --kind-soft: var(--unchecked-soft) }
.badge { display: inline-block; white-space: nowrap; border-radius: 99px; padding: 1px 10px; font-size: 12px; font-weight: 650;
  letter-spacing: .02em; color: var(--kind); background: var(--kind-soft) }
.path { display: flex; flex-wrap: wrap; gap: 8px; padding: 0; margin: 0; list-style: none }
.path li { border: 1px solid var(--line); background: var(--card); border-radius: 10px; padding: 8px 14px; flex: 1 1 110px }
.path b { display: block; font-size: 13px }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th { text-align: left; font-size: 12px; color: var(--soft); font-weight: 600; padding: 4px 14px 6px 0 }
td { border-top: 1px solid var(--line); padding: 8px 14px 8px 0; vertical-align: top; overflow-wrap: anywhere }
td.why { color: var(--soft); border-top: 0; padding-top: 0 }
td.name { font-weight: 600; white-space: nowrap } tr.other td { background: var(--within-soft) }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 4px 18px; margin: 0 }
dt { color: var(--soft) } dd { margin: 0; overflow-wrap: anywhere }
ul, ol { margin: 6px 0; padding-left: 22px } code { font: 13px ui-monospace, monospace }
summary { cursor: pointer; font-weight: 600 }
@media print { body { background: #fff } .card { break-inside: avoid } }
"""


def html_page(found: Reproduction) -> str:
    """The whole page."""
    title = f"Reproduction of {found.bundle or 'a bundle'}"
    kind = {0: "exact", 1: "different"}.get(found.exit_status, "unchecked")
    if kind == "exact" and any(stage.is_claim and stage.verdict is Verdict.WITHIN for stage in found.stages):
        kind = "within"
    body = [
        f"<h1>{_text(title)}</h1>",
        f'<div class="soft">{_text(found.time)} · relume {_text(found.relume)}</div>',
        f'<div class="card result {kind}">{_text(found.conclusion)}</div>',
        f'<ol class="path">{"".join(map(_step, found.stages))}</ol>',
        *_next(found),
        "<h2>Claims</h2>",
        f'<div class="card">{_claims(found.stages)}</div>',
        "<h2>Tolerances</h2>",
        f'<div class="card"><dl>{_terms((s.name, s.tolerance) for s in found.stages if s.tolerance)}</dl></div>',
        "<h2>This report</h2>",
        f'<div class="card"><dl>{_terms(facts(found))}</dl></div>',
        "<h2>Environments</h2>",
        f'<div class="card">{_environments(found)}</div>',
    ]
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f"<title>{_text(title)}</title><style>{_STYLE}</style>"
    )
    inner = "\n".join(body)
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body><main>\n{inner}\n</main></body></html>\n'


def _text(value: object) -> str:
    return html.escape(printable(value, 2000))


def _badge(verdict: Verdict) -> str:
    return f'<span class="badge {_CLASSES[verdict]}">{MARKS[verdict]} {verdict}</span>'


def _step(stage: Stage) -> str:
    return f"<li><b>{stage.name}</b>{_badge(stage.verdict)}</li>"


def _next(found: Reproduction) -> list[str]:
    parts = []
    if found.reasons:
        items = "".join(f"<li>{_text(one)}</li>" for one in found.reasons)
        parts.append(f"Most probable reasons<ol>{items}</ol>")
    if found.advice:
        items = "".join(f"<li>{_text(one)}</li>" for one in found.advice)
        parts.append(f"What to try<ul>{items}</ul>")
    if not parts:
        return []
    heading = f"First difference: {found.first_difference}" if found.first_difference else "To check more"
    return [f"<h2>{_text(heading)}</h2>", f'<div class="card">{"".join(parts)}</div>']


def _claims(stages: Iterable[Stage]) -> str:
    head = "<tr><th>stage</th><th>claim</th><th>claimed</th><th>found</th><th>verdict</th></tr>"
    return f"<table><thead>{head}</thead><tbody>{''.join(_rows(stage) for stage in stages)}</tbody></table>"


def _rows(stage: Stage) -> str:
    return "".join(_row(stage.name if not number else "", row) for number, row in enumerate(shown_rows(stage)))


def _row(name: str, row: Row) -> str:
    claimed, found = claimed_and_found(row)
    cells = f'<td class="name">{name}</td><td>{_text(row.claim)}</td><td>{_text(claimed)}</td><td>{_text(found)}</td>'
    why = f'<tr><td class="why"></td><td class="why" colspan="4">{_text(row.why)}</td></tr>' if row.why else ""
    return f"<tr>{cells}<td>{_badge(row.verdict)}</td></tr>{why}"


def _terms(pairs: Iterable[tuple[str, str]]) -> str:
    return "".join(f"<dt>{_text(name)}</dt><dd>{_text(value)}</dd>" for name, value in pairs)


def _environments(found: Reproduction) -> str:
    lines = list(environments(found))
    unlike = [line for line in lines if line[1] != line[2]]
    same = [line for line in lines if line[1] == line[2]]
    text = f"<p>{'These differ:' if unlike else 'Nothing differs.'}</p>{_pair_table(unlike) if unlike else ''}"
    more = f"<details><summary>{len(same)} that are the same</summary>{_pair_table(same)}</details>" if same else ""
    return text + more


def _pair_table(lines: Iterable[tuple[str, str, str]]) -> str:
    rows = "".join(
        f'<tr><td class="name">{_text(name)}</td><td>{_text(there)}</td><td>{_text(here)}</td></tr>'
        for name, there, here in lines
    )
    return f"<table><thead><tr><th></th><th>there</th><th>here</th></tr></thead><tbody>{rows}</tbody></table>"
