// Which block of the model trained when, and at which learning rate.

import { fill, h, said, svg, visible } from "relume/dom.js";
import { number, toNumber } from "relume/format.js";
import { section, switches } from "relume/run/parts.js";
import { saving } from "relume/run/saving.js";
import { valueOf } from "relume/tables/columns.js";

export const id = "freeze";
export const label = "Freezing";
export const isThere = ({ facts: { freeze } }) => Boolean(freeze?.phases?.length);

const ROW = 26;
const TOP = 44;
const LEFT = 170;
const WIDTH = 960;

export async function mount(place, page) {
  const { state } = page.app;
  const shown = h("div");
  const readout = h("p", { class: "readout", role: "status" }, "Point at a bar, or move through them with the Tab key.");
  const wanted = () => (state.get("axis") === "epoch" ? "epoch" : "step");
  const axis = switches("Axis", [["step", "Steps"], ["epoch", "Epochs"]], wanted(),
    (value) => state.set({ axis: value === "step" ? null : value }));
  let drawing = null;
  let drawn = "";
  const draw = () => {
    const { step, epoch } = page.facts;
    const freeze = known(page.facts.freeze);
    const by = wanted();
    const text = JSON.stringify([freeze, by, by === "step" ? step : epoch]);
    if (text === drawn) return;
    drawn = text;
    drawing = timeline(freeze, by, { step, epoch }, (said) => { readout.textContent = said; });
    fill(shown, h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Timeline" }, drawing), table(freeze));
  };
  draw();
  fill(place, section("Which block trained when",
    h("div", { class: "bar" }, axis, saving(`${page.name}-freezing`,
      { drawing: () => drawing, rows: () => rowsOf(known(page.facts.freeze)) })), readout, shown,
    h("p", { class: "dim" },
      "The top row is the block next to the input, the last the one next to the output. "
      + "A stronger bar trained at a higher learning rate; where there is no bar, the block was frozen.")));
  return { refresh: draw, update: draw };
}

// A run that was made before blocks were recorded has phases and their rates: one row, of whatever was trained.
function known(freeze) {
  if (freeze.blocks.length) return freeze;
  const phases = freeze.phases.map((phase) => ({ ...phase, trained: [0], lr: phase.largest_lr ?? null,
    text: phase.text || `phase ${phase.number ?? ""}` }));
  return { blocks: ["what was trained"], phases };
}

function rateOf(phase, block) {
  const rate = phase.lr !== null && typeof phase.lr === "object" ? valueOf(phase.lr, block) : phase.lr;
  return rate ?? null;
}

function rateText(rate) { return String(Number(toNumber(rate).toPrecision(3))); }

function isPartly(phase, row) { return phase.partly?.includes(row) ?? false; }

function isTrained(phase, row) { return phase.trained.includes(row) || isPartly(phase, row); }

// Where a phase ends on the axis; the one that goes on ends where the run is now.
function bounds(phase, axis, now) {
  const first = toNumber(phase[`first_${axis}`] ?? 0);
  const last = phase[`last_${axis}`];
  return [first, Math.max(first, toNumber(last ?? now[axis] ?? first))];
}

function timeline({ blocks, phases }, axis, now, say) {
  const spans = phases.map((phase) => bounds(phase, axis, now));
  const end = Math.max(...spans.map(([, last]) => last), 1e-9);
  const begin = Math.min(...spans.map(([first]) => first));
  const x = (at) => LEFT + ((WIDTH - LEFT - 16) * (at - begin)) / Math.max(end - begin, 1e-9);
  const rates = phases.flatMap((phase) => blocks.map((block) => toNumber(rateOf(phase, block)))).filter((rate) => rate > 0);
  const [low, high] = [Math.log(Math.min(...rates)), Math.log(Math.max(...rates))];
  const shade = (rate) => (!(rate > 0) || high <= low ? 0.8 : 0.35 + (0.6 * (Math.log(rate) - low)) / (high - low));
  const height = TOP + blocks.length * ROW + 34;
  return svg("svg", { class: "freeze", viewBox: `0 0 ${WIDTH} ${height}`, role: "group", "aria-label": "Freeze timeline" },
    phases.map((phase, place) => heading(phase, place, spans[place], x, height)),
    blocks.map((block, row) => svg("g", {},
      svg("title", {}, visible(block)),
      svg("text", { x: LEFT - 10, y: TOP + row * ROW + 17, "text-anchor": "end", direction: "ltr" }, cut(block, 22)),
      svg("path", { class: "rail", d: `M${LEFT} ${TOP + row * ROW + ROW / 2}H${WIDTH - 16}` }),
      phases.map((phase, place) => (isTrained(phase, row) ? bar(phase, block, row, spans[place], axis, x, shade, say) : null)))),
    ticks(begin, end, x, height, axis));
}

function heading({ text }, place, [first, last], x, height) {
  const width = x(last) - x(first);
  return svg("g", { class: place % 2 ? "phase odd" : "phase" }, svg("title", {}, visible(text ?? "")),
    svg("rect", { class: "band", x: x(first), y: TOP - 6, width: Math.max(width, 1), height: height - TOP - 26 }),
    svg("path", { class: "rule", d: `M${x(first)} ${TOP - 22}V${height - 32}` }),
    svg("text", { x: x(first) + 5, y: TOP - 14, direction: "ltr" }, cut(text ?? `phase ${place + 1}`, Math.floor(width / 7))));
}

function bar(phase, block, row, [first, last], axis, x, shade, say) {
  const rate = rateOf(phase, block);
  const said = `${visible(block)}: ${isPartly(phase, row) ? "partly trained" : "trained"} from ${axis} ${number(first)} `
    + `to ${number(last)}${rate === null ? "" : ` at learning rate ${rateText(rate)}`}`
    + `${phase.text ? ` (${visible(phase.text)})` : ""}`;
  const width = Math.max(2, x(last) - x(first) - 1);
  const strength = shade(toNumber(rate));
  const tell = () => say(said);
  return svg("g", { class: isPartly(phase, row) ? "block partly" : "block", tabindex: "0", role: "img", "aria-label": said,
    onfocus: tell, onpointerenter: tell, onclick: tell },
    svg("title", {}, said),
    svg("rect", { x: x(first), y: TOP + row * ROW + 3, width, height: ROW - 6, rx: 4, "fill-opacity": strength }),
    rate !== null && width > 60 ? svg("text", { class: strength > 0.6 ? "rate" : "rate faint", x: x(first) + width / 2,
      y: TOP + row * ROW + 17, "text-anchor": "middle" }, `lr ${rateText(rate)}`) : null);
}

function ticks(begin, end, x, height, axis) {
  const places = [0, 0.25, 0.5, 0.75, 1].map((share) => begin + share * (end - begin));
  return svg("g", { class: "ticks" }, places.map((at, place) => svg("text",
    { x: x(at), y: height - 14, "text-anchor": place === 0 ? "start" : place === 4 ? "end" : "middle" },
    `${place === 0 ? `${axis} ` : ""}${number(axis === "step" ? Math.round(at) : at, 3)}`)));
}

function cut(text, most) {
  const shown = visible(text);
  return shown.length <= most ? shown : most < 3 ? "" : `${shown.slice(0, most - 1)}…`;
}

function wordOf(phase, row) {
  return isPartly(phase, row) ? "partly trained" : isTrained(phase, row) ? "trained" : "frozen";
}

function rowsOf({ blocks, phases }) {
  return [["phase", "first_step", "last_step", "first_epoch", "last_epoch", "block", "trained", "lr"],
    ...phases.flatMap((phase, place) => blocks.map((block, row) => [phase.text ?? `phase ${place + 1}`, phase.first_step,
      phase.last_step,
      phase.first_epoch, phase.last_epoch, block, wordOf(phase, row), isTrained(phase, row) ? rateOf(phase, block) : ""]))];
}

function table({ blocks, phases }) {
  const end = (phase) => (phase.last_step === null || phase.last_step === undefined ? "now" : number(phase.last_step));
  const range = (phase) => `steps ${number(phase.first_step)} – ${end(phase)}`;
  return h("details", { class: "as-table" }, h("summary", {}, "As a table"),
    h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Freezing as a table" },
    h("table", { class: "grid" }, h("caption", { class: "announcement" }, "Which block trained in which phase"),
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "block"), phases.map((phase, place) => h("th", { scope: "col" },
        said(phase.text ?? `phase ${place + 1}`), h("br"), h("span", { class: "dim" }, range(phase)))))),
      h("tbody", {}, blocks.map((block, row) => h("tr", {}, h("th", { scope: "row" }, said(block)), phases.map((phase) => {
        const rate = rateOf(phase, block);
        return h("td", {}, isTrained(phase, row) ? `${wordOf(phase, row)}${rate === null ? "" : `, lr ${rateText(rate)}`}`
          : h("span", { class: "dim" }, "frozen"));
      })))))));
}
