// The first part: the curves that matter most, and what the run has kept.

import { fill, h, said } from "relume/dom.js";
import { number, plural, setting, size } from "relume/format.js";
import { Charts } from "relume/run/charts.js";
import { mainMetrics } from "relume/run/metrics.js";
import { facts, section } from "relume/run/parts.js";

export const id = "overview";
export const label = "Overview";
export const isThere = () => true;

const CHARTS = 6;
const SETTINGS = ["model", "dataset", "loss", "optimizer", "lr", "batch_size", "epochs", "schedule", "precision", "device"];

export async function mount(place, page) {
  const charts = new Charts(page);
  const kept = h("div", { class: "columns" });
  const link = h("a", { class: "button", href: page.app.state.link("charts", null, { runs: [page.name] }) },
    "All charts of this run");
  const draw = () => {
    charts.fill(mainMetrics(page.facts.metrics, CHARTS));
    fill(kept, setup(page), checkpoints(page));
  };
  fill(place, charts.element, h("p", {}, link), kept);
  draw();
  return { refresh: draw, unmount: () => charts.unmount() };
}

function setup({ facts: { config = {} }, app, name }) {
  const shown = SETTINGS.filter((key) => Object.hasOwn(config, key)).map((key) => [key, setting(config[key])]);
  if (!shown.length) return null;
  return section("Set up as", facts(shown), h("p", {},
    h("a", { href: app.state.link("run", name, { part: "config" }) }, "All settings, code and environment")));
}

function checkpoints({ facts: { checkpoints: found }, app, name }) {
  const rows = found?.rows ?? [];
  if (!rows.length) return null;
  const named = (row) => h("span", { title: row.name },
    Number.isFinite(row.number) ? String(row.number).padStart(6, "0") : said(row.name),
    row.epoch > 0 ? ` · epoch ${number(row.epoch, 3)}` : ` · step ${number(row.step)}`);
  return section("Checkpoints", facts([
    ["kept", plural(rows.length, "checkpoint")],
    ["best", rows.some((row) => row.is_best) ? named(rows.find((row) => row.is_best)) : null],
    ["newest", named(rows.find((row) => row.is_newest) ?? rows.at(-1))],
    ["on disk", size(found.disk_bytes)],
    ["without sharing", found.apart_bytes ? size(found.apart_bytes) : null],
  ]), h("p", {}, h("a", { href: app.state.link("run", name, { part: "checkpoints" }) }, "All checkpoints")));
}
