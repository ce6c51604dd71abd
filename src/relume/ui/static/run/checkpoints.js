// What the run has kept: each checkpoint with its metrics and sizes, and where the run comes from.

import { fill, h, said, svg } from "relume/dom.js";
import { moment, number, plural, size } from "relume/format.js";
import { lineage } from "relume/run/lineage.js";
import { mainMetrics } from "relume/run/metrics.js";
import { facts, section, sortable } from "relume/run/parts.js";
import { saving } from "relume/run/saving.js";

export const id = "checkpoints";
export const label = "Checkpoints";
export const isThere = ({ facts: { checkpoints, lineage: origin } }) => Boolean(checkpoints?.rows?.length || origin);

const METRICS = 4;

export async function mount(place, page) {
  let drawn = "";
  const draw = () => {
    const { checkpoints = {}, lineage: origin, resumes, branches, step, epoch, status } = page.facts;
    const text = JSON.stringify([checkpoints, origin, resumes, branches, status === "running" ? null : [step, epoch]]);
    if (text === drawn) return; // so that a table in use is not drawn again under the hand
    drawn = text;
    fill(place, chain(page), table(page, checkpoints));
  };
  draw();
  return { refresh: draw };
}

function chain(page) {
  const drawing = lineage(page.facts);
  return section("Where it comes from", h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Lineage" },
    drawing),
    h("div", { class: "bar" }, saving(`${page.name}-lineage`, { drawing: () => drawing })));
}

function table(page, { rows = [], disk_bytes: disk, apart_bytes: apart }) {
  if (!rows.length) return section("Checkpoints", h("p", { class: "dim" }, "None is kept yet."));
  const names = mainMetrics(Object.fromEntries(rows.flatMap((row) => Object.entries(row.metrics ?? {}))
    .map(([name]) => [name, page.facts.metrics?.[name] ?? {}])), METRICS);
  const largest = Math.max(...rows.map(({ stored_bytes: stored, shared_bytes: shared }) => (stored ?? 0) + (shared ?? 0)), 1);
  const columns = [
    { label: "checkpoint", value: (row) => row.number ?? row.name, cell: nameOf },
    { label: "epoch", value: (row) => row.epoch, isNumber: true, cell: (row) => number(row.epoch, 3) },
    { label: "step", value: (row) => row.step, isNumber: true, cell: (row) => number(row.step) },
    ...names.map((name) => ({ label: name, value: (row) => row.metrics?.[name], isNumber: true,
      cell: (row) => number(row.metrics?.[name]) })),
    { label: "size", value: (row) => row.size_bytes, isNumber: true,
      cell: (row) => h("span", { class: "nowrap" }, size(row.size_bytes)) },
    { label: "new on disk · shared", value: (row) => row.stored_bytes, isNumber: true, cell: (row) => sizes(row, largest) },
    { label: "made", value: (row) => row.created, isNumber: true,
      cell: (row) => h("span", { class: "nowrap" }, row.created ? moment(row.created) : "") },
    { label: "kept because", value: (row) => row.kept,
      cell: (row) => (row.problem ? h("span", { class: "error" }, said(row.problem)) : said(row.kept ?? "")) },
  ];
  const csvRows = () => [["checkpoint", "epoch", "step", ...names, "size_bytes", "stored_bytes", "shared_bytes", "kept"],
    ...rows.map((row) => [row.name, row.epoch, row.step, ...names.map((name) => row.metrics?.[name]), row.size_bytes,
      row.stored_bytes, row.shared_bytes, row.kept])];
  return section(`Checkpoints`, facts([
    ["kept", plural(rows.length, "checkpoint")],
    ["on disk, all together", size(disk)],
    ["as files of their own", apart ? `${size(apart)}${disk ? ` · ${number(apart / disk, 2)} times as much` : ""}` : null],
  ]), sortable("Checkpoints", columns, rows), legend(),
    h("div", { class: "bar" }, saving(`${page.name}-checkpoints`, { rows: csvRows })));
}

function nameOf(row) {
  return h("span", { class: "checkpoint-name" }, h("span", { title: row.name },
    said(row.number === null || row.number === undefined ? row.name
    : String(row.number).padStart(6, "0"))),
  row.is_best ? h("span", { class: "chip best" }, "★ best") : null,
    row.is_newest ? h("span", { class: "chip" }, "newest") : null);
}

function sizes({ stored_bytes: stored, shared_bytes: shared }, largest) {
  if (!Number.isFinite(stored)) return "";
  const width = (bytes) => (100 * (bytes ?? 0)) / largest;
  return h("span", { class: "sizes" },
    svg("svg", { viewBox: "0 0 100 10", class: "size-bar", preserveAspectRatio: "none", "aria-hidden": "true" },
      svg("rect", { class: "size-new", x: 0, y: 0, width: width(stored), height: 10 }),
      svg("rect", { class: "size-shared", x: width(stored), y: 0, width: width(shared), height: 10 })),
    h("span", {}, `${size(stored)} · ${size(shared ?? 0)}`));
}

function legend() {
  return h("p", { class: "dim legend" }, h("span", { class: "key size-new" }), "new on disk ",
    h("span", { class: "key size-shared" }),
    "shared with checkpoints before it: stored once");
}
