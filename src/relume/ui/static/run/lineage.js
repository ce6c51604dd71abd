// The run's way as a drawing: what it began from, its steps with checkpoints and resumes, and what was done again.

import { svg, visible } from "relume/dom.js";
import { number } from "relume/format.js";

const HEIGHT = 150;
const MIDDLE = 62; // of the line of the run itself
const LEFT = 24;
const WIDTH = 900;
const BOX = 190;

export function lineage({ name, lineage: origin, checkpoints = {}, resumes = [], branches = [], step = 0, status }) {
  const parent = originText(origin);
  const start = LEFT + (parent ? BOX + 40 : 0);
  const end = WIDTH - 110;
  const steps = [step ?? 0, ...(checkpoints.rows ?? []).map((row) => row.step ?? 0),
    ...branches.map((one) => one.last_step ?? 0)];
  const last = Math.max(1, ...steps.filter(Number.isFinite));
  const x = (at) => start + ((end - start) * Math.min(Math.max(at ?? 0, 0), last)) / last;
  const rows = (checkpoints.rows ?? []).filter((row) => Number.isFinite(row.step));
  const said = [`${name}, ${status}, up to step ${number(step ?? 0)}`, parent && `began from ${parent}`,
    `${rows.length} checkpoints`, resumes.length && `resumed at step ${resumes.map((one) => number(one.step)).join(", ")}`,
    branches.length && `${branches.length} dead branches`].filter(Boolean).join("; ");
  return svg("svg", { class: "lineage", preserveAspectRatio: "xMinYMid meet", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img",
    "aria-label": visible(said) },
    parent ? box(LEFT, parent) : null,
    parent ? svg("path", { class: "way", d: `M${LEFT + BOX} ${MIDDLE}H${start}` }) : null,
    branches.map((one) => branch(one, x)),
    svg("path", { class: "way own", d: `M${start} ${MIDDLE}H${x(step ?? last)}` }),
    svg("circle", { class: "start", cx: start, cy: MIDDLE, r: 5 }), text(start, MIDDLE + 22, "start", "middle"),
    rows.map((row) => checkpoint(row, x(row.step))),
    resumes.map((one) => resume(one, x(one.step))),
    text(x(step ?? last) + 12, MIDDLE + 4, `step ${number(step ?? 0)}`, "start"),
    key());
}

function originText(origin) {
  if (!origin) return "";
  if (origin.imported) return `imported from ${origin.imported.kind ?? "elsewhere"}`;
  const from = origin.run ?? origin.weights ?? origin.name ?? "";
  return [from, origin.checkpoint].filter((part) => part && part !== from).length
    ? `${from ? `${from}, ` : ""}${origin.checkpoint}` : String(from || "another run");
}

function text(x, y, content, anchor, properties) {
  return svg("text", { x, y, "text-anchor": anchor, ...properties }, content);
}

function box(x, content) {
  const shown = visible(content);
  return svg("g", {}, svg("rect", { class: "box", x, y: MIDDLE - 22, width: BOX, height: 44, rx: 8 }), svg("title", {}, shown),
    text(x + BOX / 2, MIDDLE + 4, shown.length > 26 ? `${shown.slice(0, 25)}…` : shown, "middle", { direction: "ltr" }));
}

function checkpoint(row, x) {
  const said = `checkpoint ${row.name}${row.is_best ? ", the best" : ""}${row.is_newest ? ", the newest" : ""}`;
  return svg("g", { class: row.is_best ? "kept best" : "kept" }, svg("title", {}, visible(said)),
    svg("path", { d: `M${x} ${MIDDLE - 4}l5 -10h-10z` }),
    row.is_best ? text(x, MIDDLE - 20, "★", "middle") : null);
}

function resume({ step }, x) {
  return svg("g", { class: "resume" }, svg("title", {}, `resumed at step ${number(step)}`),
    svg("circle", { cx: x, cy: MIDDLE, r: 6 }), svg("path", { d: `M${x - 2} ${MIDDLE - 3}l4 3l-4 3z` }));
}

// A side way that ends: what was logged, and done again after a resume from before it.
function branch({ first_step: first, last_step: last, points }, x) {
  const [from, to] = [x(first), Math.max(x(last), x(first) + 18)];
  return svg("g", { class: "branch" },
    svg("title", {}, `steps ${number(first)} to ${number(last)} were done again after a resume: `
      + `${number(points)} points are of a dead branch`),
    svg("path", { d: `M${from} ${MIDDLE}C${from + 10} ${MIDDLE} ${from} ${MIDDLE + 38} ${from + 14} ${MIDDLE + 38}H${to}` }),
    svg("path", { d: `M${to - 4} ${MIDDLE + 34}l8 8m0 -8l-8 8` }));
}

function key() {
  const y = HEIGHT - 10;
  return svg("g", { class: "key-line" },
    svg("g", { class: "kept" }, svg("path", { d: `M${LEFT + 5} ${y}l5 -10h-10z` })), text(LEFT + 16, y, "checkpoint", "start"),
    svg("g", { class: "resume" }, svg("circle", { cx: LEFT + 112, cy: y - 4, r: 5 })), text(LEFT + 122, y, "resume", "start"),
    svg("g", { class: "branch" }, svg("path", { d: `M${LEFT + 190} ${y - 4}h22` })), text(LEFT + 218, y, "done again", "start"));
}
