// A chart as an SVG file: written from the same numbers as the canvas, with axes, legend and marks as true vectors.

import { colour, ink } from "relume/colors.js";
import { visible } from "relume/dom.js";
import { bandParts, projection, signs, trace, portion } from "relume/charts/draw.js";
import { bands, drawn, phaseLabel } from "relume/charts/marks.js";
import { texts, ticks } from "relume/charts/ticks.js";

const FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', sans-serif";
const MOST_NAMED = 24;
const AXES = { step: "step", epoch: "epoch", time: "time since the run began" };
const SIGNS = { nan: "×", up: "▲", down: "▼" };

function escaped(text) {
  return visible(text).replace(/[\n\t]/g, " ").replace(/[&<>"']/g, (sign) => `&#${sign.charCodeAt(0)};`);
}

function element(name, properties, content = "") {
  const written = Object.entries(properties).filter(([, value]) => value !== null && value !== undefined)
    .map(([key, value]) => ` ${key}="${typeof value === "number" ? round(value) : escaped(value)}"`).join("");
  return content === "" ? `<${name}${written}/>` : `<${name}${written}>${content}</${name}>`;
}

function round(x) {
  return Number.isInteger(x) ? x : x.toFixed(1);
}

function text(x, y, content, properties = {}) {
  const { fill = ink("ink-2"), size = 11, anchor = "start", ...more } = properties;
  return element("text", { x, y, fill, "font-size": size, "text-anchor": anchor, ...more }, escaped(content));
}

// shown: what the plot shows, {lines, marks, x, y, log, axis, band}.
export function toSvg(shown, { title, width = 900, height = 480 }) {
  const runs = [...new Map(shown.lines.map((line) => [line.run, line])).values()];
  const legend = legendOf(runs, width);
  const box = { left: 66, top: 44, width: width - 90, height: height - 44 - 46 - legend.height };
  const inside = `${phases(shown, box)}${shown.lines.map((line) => lineParts(line, shown, box)).join("")} `;
  const parts = [
    element("rect", { width, height, fill: ink("card") }),
    text(16, 26, title, { fill: ink("ink"), size: 15, "font-weight": 600 }),
    grid(shown, box),
    `<clipPath id="plot">${element("rect", { x: box.left, y: box.top, width: box.width, height: box.height })}</clipPath>`,
    element("g", { "clip-path": "url(#plot)" }, inside),
    marks(shown, box),
    text(box.left + box.width, box.top + box.height + 36, AXES[shown.axis], { anchor: "end" }),
    legend.draw(box.top + box.height + 54),
  ];
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}" `
    + `font-family="${FONT}"><title>${escaped(title)}</title>${parts.join("")}</svg>`;
}

function grid(shown, box) {
  const project = projection(shown.x, shown.y, shown.log, box);
  const across = { time: shown.axis === "time", whole: shown.axis !== "time" };
  const xs = ticks(...shown.x, Math.floor(box.width / 70), across);
  const ys = ticks(...shown.y, Math.floor(box.height / 30), { log: shown.log });
  const xTexts = texts(xs, across);
  const yTexts = texts(ys);
  const line = (x1, y1, x2, y2) => element("line", { x1, y1, x2, y2, stroke: ink("line"), "stroke-width": 1 });
  const foot = box.top + box.height;
  return xs.map((x, at) => line(project.x(x), box.top, project.x(x), foot)
      + text(project.x(x), foot + 17, xTexts[at], { anchor: "middle" })).join("")
    + ys.map((y, at) => line(box.left, project.y(y), box.left + box.width, project.y(y))
      + text(box.left - 8, project.y(y) + 4, yTexts[at], { anchor: "end" })).join("");
}

function path(x, y, part, project, log) {
  let d = "";
  const write = (sign) => (px, py) => { d += `${sign}${round(px)} ${round(py)}`; };
  trace(x, y, part, project, log, write("M"), write("L"));
  return d;
}

function lineParts(line, shown, box) {
  const project = projection(shown.x, shown.y, shown.log, box);
  const part = portion(line, shown.x);
  const stroke = colour(line.place);
  const parts = [];
  if (line.low && shown.band && !line.branch) {
    const d = bandParts(line, part, project).map((points) => {
      const over = points.map(([x, top]) => `${round(x)} ${round(top)}`);
      const under = points.map(([x, , bottom]) => `${round(x)} ${round(bottom)}`).reverse();
      return `M${[...over, ...under].join("L")}Z`;
    }).join("");
    const faint = { "fill-opacity": "0.2", "stroke-opacity": "0.42", "stroke-width": "0.8" };
    parts.push(element("path", { d, fill: stroke, stroke, ...faint }));
  }
  const pattern = (line.branch ? [3, 4] : line.dash).join(" ") || null;
  const base = { fill: "none", stroke, "stroke-linejoin": "round" };
  const faint = line.branch ? "0.5" : line.smooth ? "0.28" : null;
  const add = (y, more) => parts.push(element("path", { ...base, d: path(line.x, y, part, project, shown.log), ...more }));
  add(line.y, { "stroke-width": "1.6", "stroke-dasharray": pattern, opacity: faint });
  if (line.smooth) {
    add(line.smooth, { "stroke-width": "2", "stroke-dasharray": line.dash.join(" ") || null });
  }
  if (line.sparse) {
    for (let place = part[0]; place < part[1]; place += 1) {
      const [cx, cy] = [project.x(line.x[place]), project.y(line.y[place])];
      if (Number.isFinite(line.y[place])) parts.push(element("circle", { cx, cy, r: "2.2", fill: stroke, opacity: faint }));
    }
  }
  for (const sign of signs(line, part, project, box)) {
    const y = sign.kind === "up" ? sign.y + 10 : sign.y - 3;
    parts.push(text(sign.x, y, SIGNS[sign.kind], { fill: stroke, size: 12, anchor: "middle" }));
  }
  return parts.join("");
}

function phases(shown, box) {
  const project = projection(shown.x, shown.y, shown.log, box);
  return bands(drawn(shown.marks, shown), shown.lines).map((mark) => {
    const left = Math.max(box.left, project.x(mark.x));
    const right = Math.min(box.left + box.width, project.x(Math.min(mark.until, shown.x[1])));
    if (right <= left) return "";
    const room = Math.floor((right - left - 8) / 6);
    const name = phaseLabel(mark.text);
    const label = name.length > room ? `${name.slice(0, Math.max(0, room - 1))}…` : name;
    const band = { x: left, y: box.top, width: right - left, height: box.height };
    return element("rect", { ...band, fill: ink("accent"), "fill-opacity": mark.number % 2 ? "0.1" : "0.045" })
      + (room > 3 ? text(left + 4, box.top + 13, label, { size: 10.5 }) : "");
  }).join("");
}

function marks(shown, box) {
  const project = projection(shown.x, shown.y, shown.log, box);
  const foot = box.top + box.height;
  return drawn(shown.marks, shown).map((mark) => {
    const x = project.x(mark.x);
    if (x < box.left || x > box.left + box.width) return "";
    const stroke = colour(mark.place);
    const name = `<title>${escaped(mark.text || mark.kind)}</title>`;
    if (mark.kind === "checkpoint" || mark.kind === "best") {
      const size = mark.kind === "best" ? 5.5 : 4;
      const d = `M${round(x)} ${round(foot - size * 1.9)}L${round(x + size)} ${foot}L${round(x - size)} ${foot}Z`;
      return element("path", { d, fill: mark.kind === "best" ? stroke : ink("card"), stroke, "stroke-width": "1.2" }, name);
    }
    const y1 = mark.kind === "end" ? foot - 14 : box.top;
    const y2 = mark.kind === "phase" ? box.top + 12 : foot;
    const pattern = mark.kind === "resume" ? "5 4" : null;
    return element("line", { x1: x, x2: x, y1, y2, stroke, "stroke-width": "1.2", "stroke-dasharray": pattern }, name);
  }).join("");
}

function legendOf(runs, width) {
  const named = runs.slice(0, MOST_NAMED);
  const rows = [[]];
  let used = 0;
  for (const line of named) {
    const label = line.run.length > 48 ? `${line.run.slice(0, 47)}…` : line.run;
    const room = 34 + label.length * 6.6;
    if (used + room > width - 32 && rows.at(-1).length) { rows.push([]); used = 0; }
    rows.at(-1).push({ line, label, x: 16 + used });
    used += room;
  }
  const more = runs.length - named.length;
  const draw = (top) => rows.map((row, number) => row.map(({ line, label, x }) => {
    const y = top + number * 18;
    const stroke = { stroke: colour(line.place), "stroke-width": "2.5", "stroke-dasharray": line.dash.join(" ") || null };
    return element("line", { x1: x, x2: x + 16, y1: y, y2: y, ...stroke })
      + text(x + 22, y + 4, label, { fill: ink("ink") });
  }).join("")).join("") + (more > 0 ? text(16, top + rows.length * 18 + 4, `and ${more} more runs`) : "");
  return { height: (rows.length + (more > 0 ? 1 : 0)) * 18 + 4, draw };
}
