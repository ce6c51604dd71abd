"""The page's modules as one script."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from relume.ui.assets import modules
from relume.ui.reporting.script import one_script

NODE = shutil.which("node")

MODULES = {
    "first.js": """\
import { twice as double, Counter } from "numbers.js";
import * as all from "numbers.js";
import whole from "default.js";
import "effect.js";
import { later } from "circle.js";

export function started() { return "started"; }
globalThis.found = [double(2), new Counter().next(), all.LIMIT, whole, globalThis.effect, later(), await_free()];
async function await_free() { return (await import("numbers.js")).LIMIT; }
found[6].then((value) => { found[6] = value; console.log(JSON.stringify(found)); });
""",
    "numbers.js": """\
export const LIMIT = 7;
export class Counter { #n = 0; next() { this.#n += 1; return this.#n; } }
export function twice(x) { return x * 2; }
""",
    "default.js": 'const Thing = "thing";\nexport { Thing as default };\n',
    "effect.js": "/* Licence: free. */\n/*\nexport function gone() {}\n*/\nglobalThis.effect = true;\n",
    "circle.js": 'import { started } from "first.js";\nexport async function now() {}\nexport function later() { return started(); }\n',
}


@pytest.mark.skipif(NODE is None, reason="node runs it")
def test_the_one_script_does_what_the_modules_do(tmp_path: Path) -> None:
    script = tmp_path / "one.mjs"
    script.write_text(one_script(MODULES, "first.js"), "utf-8")
    said = subprocess.run([NODE or "node", str(script)], capture_output=True, text=True, check=True, timeout=60)
    assert json.loads(said.stdout) == [4, 1, 7, "thing", True, "started", 7]


def test_every_module_of_the_page_is_in_a_form_that_a_report_can_hold() -> None:
    sources = {name: path.read_text("utf-8") for name, path in modules().items()}
    script = one_script(sources, "relume/app.js")
    assert all(f'makers.set("{name}"' in script for name in sources)


def test_nothing_in_the_script_ends_the_element_that_holds_it() -> None:
    script = one_script({"a.js": 'console.log("</script><!--");\n'}, "a.js")
    assert "</script" not in script and "<!--" not in script
    assert '"<\\/script><\\!--"' in script


@pytest.mark.parametrize(
    "source",
    [
        "export let changing = 1;\n",
        'export * from "b.js";\n',
        'import a, { b } from "b.js";\n',
        "export default function () {}\n",
    ],
)
def test_a_form_that_a_report_does_not_know_is_refused(source: str) -> None:
    with pytest.raises(ValueError, match="form"):
        one_script({"a.js": source, "b.js": ""}, "a.js")


def test_a_module_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValueError, match=r"imports 'c\.js', which is no module"):
        one_script({"a.js": 'import { c } from "c.js";\n'}, "a.js")
