"""The page's modules as one script that stands within a page.

A browser opens a file without a server, and fetches no module from beside it. Modules as ``data:`` addresses would need a
policy that lets any such address run; one script needs a policy that names its digest and nothing else. So each module
becomes a function, and what it imports and exports goes through a table. This knows the few forms in which the page's
modules are written, and refuses any other.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

_IMPORT = re.compile(r'^import\s+(?:(?P<what>[^"\';]+?)\s+from\s+)?"(?P<module>[^"\n]+)";[^\S\n]*$', re.MULTILINE)
_FUNCTION = re.compile(r"^export\s+(?=(?:async\s+)?function\s*\*?\s*(?P<name>[\w$]+))", re.MULTILINE)
_VALUE = re.compile(r"^export\s+(?=(?:const|class)\s+(?P<name>[\w$]+))", re.MULTILINE)
_LIST = re.compile(r"^export\s*\{(?P<names>[^}]*)\};[^\S\n]*$", re.MULTILINE)
_COMMENT = re.compile(r"^[^\S\n]*/\*.*?\*/", re.MULTILINE | re.DOTALL)
_LEFT = re.compile(r"^(?:import\b(?!\()|export\b).*", re.MULTILINE)
_LATER = re.compile(r"(?<![\w$.])import\((?=\s*[\"'])")

_TABLE = """\
const made = new Map();
const makers = new Map();
function need(name) {
  if (!made.has(name)) {
    const given = Object.create(null);
    made.set(name, given);
    makers.get(name)(need, given, async (later) => need(later));
  }
  return made.get(name);
}
"""


def one_script(modules: Mapping[str, str], first: str) -> str:
    """A script that does what the modules do when a browser loads ``first``.

    Args:
        modules: their sources, by the names under which they import each other.

    Raises:
        ValueError: a module imports or exports in a form that is not known here, or a module that there is not.

    Example:
        >>> print(one_script({"a.js": 'import { b } from "b.js";\\nb();\\n', "b.js": "export function b() {}\\n"}, "a.js"))
        const made = new Map();
        ...
        makers.set("a.js", ($need, $give, $later) => {
        const { b } = $need("b.js");
        b();
        });
        ...
        need("a.js");
        <BLANKLINE>
    """
    parts = [_TABLE]
    for name, source in modules.items():
        parts.append(
            f"makers.set({json.dumps(name)}, ($need, $give, $later) => {{\n{_function(name, source, modules)}}});\n"
        )
    parts.append(f"need({json.dumps(first)});\n")
    # Within a page, these would end the script, or begin a comment; in JavaScript's texts they mean the same so.
    return "".join(parts).replace("</script", "<\\/script").replace("<!--", "<\\!--")


def _function(name: str, source: str, known: Mapping[str, str]) -> str:
    """The body of the function that a module becomes."""
    imports: list[str] = []

    def imported(match: re.Match[str]) -> str:
        if match["module"] not in known:
            raise ValueError(f"{name} imports {match['module']!r}, which is no module of the page")
        imports.append(_taken(match["what"], match["module"]))
        return ""

    early: list[str] = []
    late: list[str] = []

    def listed(match: re.Match[str]) -> str:
        for item in filter(None, (item.strip() for item in match["names"].split(","))):
            inner, _, outer = (word.strip() for word in item.partition(" as "))
            late.append(f"$give[{json.dumps(outer or inner)}] = {inner};\n")
        return ""

    # Code that was commented out is no code; what else stands in comments, such as a licence, stays.
    body = _COMMENT.sub(lambda match: "" if _LEFT.search(match[0]) else match[0], source)
    body = _IMPORT.sub(imported, body)
    body = _LIST.sub(listed, body)
    for pattern, given in ((_FUNCTION, early), (_VALUE, late)):
        given += [f"$give.{match['name']} = {match['name']};\n" for match in pattern.finditer(body)]
        body = pattern.sub("", body)
    if left := _LEFT.search(body):
        raise ValueError(f"{name}: {left[0][:80]!r} is a form of import or export that a report does not know")
    body = _LATER.sub("$later(", body)
    # Functions are given before anything is taken: modules that need each other's find them.
    return "".join(early) + "".join(imports) + body.strip("\n") + "\n" + "".join(late)


def _taken(what: str | None, module: str) -> str:
    """What stands for an import: of names, of all as one, of the default, or of nothing."""
    needed = f"$need({json.dumps(module)})"
    if what is None:
        return f"{needed};\n"
    what = " ".join(what.split())
    if what.startswith("{"):
        return f"const {re.sub(r' as ', ': ', what)} = {needed};\n"
    if what.startswith("* as "):
        return f"const {what.removeprefix('* as ')} = {needed};\n"
    if re.fullmatch(r"[\w$]+", what):
        return f"const {what} = {needed}.default;\n"
    raise ValueError(f"import {what} from {module!r} is a form that a report does not know")
