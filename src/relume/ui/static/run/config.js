// How the run was set up: settings, code, environment, data; and what of it differs from another run.

import { fill, h, said, uid } from "relume/dom.js";
import { setting } from "relume/format.js";
import { choice, facts, section, switches } from "relume/run/parts.js";
import { problem } from "relume/run/problem.js";

export const id = "config";
export const label = "Config & code";
export const isThere = () => true;

export async function mount(place, page) {
  const { state, source } = page.app;
  const others = (await source.runs()).runs.map((row) => row.name).filter((name) => name !== page.name);
  const against = h("div");
  const own = h("div", { class: "masonry" });
  const picked = choice("Compare with", [["", "— no other run —"], ...others.map((name) => [name, name])], "",
    (name) => state.set({ with: name || null }));
  const select = picked.querySelector("select");
  fill(place, others.length ? h("div", { class: "bar" }, picked) : null, against, own);
  let shown = null;
  const update = async () => {
    const other = others.includes(state.get("with")) ? state.get("with") : "";
    select.value = other;
    if (other === shown) return;
    shown = other;
    own.hidden = other !== "";
    fill(against);
    if (!other) return;
    try {
      const found = await source.compare([page.name, other]);
      if (shown === other) fill(against, differences(found, page.name, other));
    } catch (error) {
      if (shown === other) fill(against, problem(error));
    }
  };
  draw(own, page.facts);
  await update();
  return { update };
}

function draw(place, { config = {}, versions = {}, packages = {}, argv = [], folder, started_in: directory, code = {},
  environment = {}, data = [] }) {
  fill(place, settings(config),
    code.lines?.length || code.line ? section("Code", code.line ? h("p", {}, said(code.line)) : null, lines(code.lines ?? []))
      : null,
    data.length ? section("Data", lines(data)) : null,
    Object.keys(environment).length ? section("Environment",
      facts(Object.entries(environment).map(([name, value]) => [name, setting(value)]))) : null,
    Object.keys(versions).length ? section("Versions", facts(Object.entries(versions)), packagesOf(packages)) : null,
    argv.length || folder ? section("Started as", argv.length ? h("pre", { class: "wrapped" }, said(argv.join(" "))) : null,
      facts([["in", directory], ["folder of the run", folder]])) : null);
}

function packagesOf(packages) {
  const names = Object.keys(packages);
  if (!names.length) return null;
  return h("details", { class: "as-table" }, h("summary", {}, `All ${names.length} packages`),
    facts(names.map((name) => [name, setting(packages[name])])));
}

function lines(texts) {
  if (!texts.length) return null;
  return h("pre", { class: "wrapped", tabindex: "0", "aria-label": "In detail" }, texts.map((text) => [said(text), "\n"]));
}

function settings(config) {
  const names = Object.keys(config);
  if (!names.length) return section("Settings", h("p", { class: "dim" }, "It was given none."));
  const find = uid("find");
  const body = h("tbody");
  const count = h("span", { class: "dim", role: "status" });
  const show = (wanted) => {
    const found = names.filter((name) => `${name} ${setting(config[name])}`.toLowerCase().includes(wanted.toLowerCase()));
    fill(body, found.map((name) => h("tr", {}, h("th", { scope: "row" }, said(name)),
      h("td", { class: "value" }, said(setting(config[name]))))));
    count.textContent = wanted ? `${found.length} of ${names.length}` : `${names.length}`;
  };
  show("");
  const field = h("input", { id: find, type: "search", placeholder: "Search the settings",
    oninput: (event) => show(event.target.value) });
  return section("Settings", h("div", { class: "bar" }, h("label", { class: "announcement", for: find }, "Search the settings"),
    field, count),
    h("div", { class: "scroll settings", tabindex: "0", role: "region", "aria-label": "Settings" },
      h("table", { class: "grid" }, h("caption", { class: "announcement" }, "Settings"), body)));
}

const LONGEST = 600; // characters of a value beside another

const KINDS = [["config", "Settings"], ["code", "Code"], ["environment", "Environment"]];

// An answer about two runs, or in a report about all of its runs, of which two are looked at.
function differences(found, name, other) {
  const [left, right] = [found.names.indexOf(name), found.names.indexOf(other)];
  const body = h("div", { class: "columns wide" });
  const show = (which) => fill(body, KINDS.map(([key, title]) => {
    const rows = (found[key] ?? []).map((row) => ({ name: row.name, a: row.values[left], b: row.values[right] }))
      .map((row) => ({ ...row, differs: setting(row.a) !== setting(row.b) }));
    const shown = which === "all" ? rows : rows.filter((row) => row.differs);
    return section(title, shown.length ? pairs(title, shown, name, other)
      : h("p", { class: "dim" },
        rows.length ? `Nothing differs: ${rows.length === 1 ? "1 entry is" : `${rows.length} entries are`} the same.`
        : "Neither has recorded any."));
  }));
  show("differences");
  return [h("div", { class: "bar" }, switches("What to show", [["differences", "Only differences"], ["all", "All"]],
    "differences", show)), body];
}

function pairs(title, rows, name, other) {
  return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": title }, h("table", { class: "grid pairs" },
    h("caption", { class: "announcement" }, title),
    h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "name"), h("th", { scope: "col" }, said(name)),
      h("th", { scope: "col" }, said(other)))),
    h("tbody", {}, rows.map((row) => h("tr", { class: row.differs ? "differs" : null },
      h("th", { scope: "row" }, said(row.name)), h("td", { class: "value" }, value(row.a)),
        h("td", { class: "value" }, value(row.b)))))));
}

function value(one) {
  if (one === null || one === undefined) return h("span", { class: "dim" }, "not set");
  const text = setting(one);
  return text.length > LONGEST ? said(`${text.slice(0, LONGEST)}…`, { title: `${text.length} characters` }) : said(text);
}
