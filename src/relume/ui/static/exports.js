// What is drawn or tabled here, as files: CSV of rows, SVG and PNG of a drawing.

import { download } from "relume/dom.js";
import { ink } from "relume/colors.js";

// RFC 4180. A text that a spreadsheet would run as a formula gets an apostrophe before it: names are other people's input.
export function csv(rows) {
  return rows.map((row) => row.map(field).join(",")).join("\r\n") + "\r\n";
}

function field(value) {
  if (value === null || value === undefined) return "";
  if (typeof value !== "string") return String(value);
  const text = /^[=+\-@\t\r]/.test(value) && Number.isNaN(Number(value)) ? `'${value}` : value;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

export function saveCsv(rows, name) {
  download(`${safe(name)}.csv`, "text/csv", csv(rows));
}

// Names of files from names of metrics and runs.
export function safe(name) {
  return (
    name
      .replace(/[^\p{L}\p{N}._-]+/gu, "-")
      .slice(0, 120)
      .replace(/^[-.]+/, "") || "relume"
  );
}

const KEPT = [
  "fill",
  "fill-opacity",
  "stroke",
  "stroke-width",
  "stroke-opacity",
  "stroke-dasharray",
  "stroke-linejoin",
  "stroke-linecap",
  "opacity",
  "font-size",
  "font-family",
  "font-weight",
  "text-anchor",
  "dominant-baseline",
  "direction",
  "unicode-bidi",
  "paint-order",
  "visibility",
  "display",
];

// A copy that looks alike without the page's styles, on the page's card.
function standalone(element) {
  const copy = element.cloneNode(true);
  const from = [element, ...element.querySelectorAll("*")];
  const to = [copy, ...copy.querySelectorAll("*")];
  from.forEach((one, place) => {
    const style = getComputedStyle(one);
    for (const name of KEPT) to[place].style.setProperty(name, style.getPropertyValue(name));
  });
  copy.querySelectorAll("[data-only-page]").forEach((one) => one.remove());
  copy.querySelectorAll("a").forEach((one) => one.removeAttribute("href"));
  const { width, height } = size(element);
  copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  copy.setAttribute("width", width);
  copy.setAttribute("height", height);
  const paper = document.createElementNS("http://www.w3.org/2000/svg", "rect");
  paper.setAttribute("width", width);
  paper.setAttribute("height", height);
  paper.setAttribute("fill", ink("card"));
  copy.prepend(paper);
  return new XMLSerializer().serializeToString(copy);
}

function size(element) {
  const box = element.viewBox.baseVal;
  return box && box.width ? box : element.getBoundingClientRect();
}

export function svgToFile(element, name) {
  download(`${safe(name)}.svg`, "image/svg+xml", standalone(element));
}

export async function svgToPng(element, name, scale = 2) {
  const { width, height } = size(element);
  const image = new Image();
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(standalone(element).toWellFormed())}`;
  await image.decode();
  const canvas = document.createElement("canvas");
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  const blob = await new Promise((done) => {
    canvas.toBlob(done, "image/png");
  });
  download(`${safe(name)}.png`, "image/png", blob);
}
