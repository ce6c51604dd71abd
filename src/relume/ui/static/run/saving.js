// A drawing as a file: SVG that stands for itself, PNG at twice the size, and its numbers as CSV.

import { button, download, h } from "relume/dom.js";
import { ink } from "relume/colors.js";

const COPIED = ["fill", "fill-opacity", "stroke", "stroke-width", "stroke-dasharray", "stroke-opacity", "opacity", "font-size",
  "font-family", "font-weight", "text-anchor", "dominant-baseline"];

// The drawing with the colours that the page's style gives it: outside of the page there is no such style.
export function standalone(drawing) {
  const copy = drawing.cloneNode(true);
  const sources = [drawing, ...drawing.querySelectorAll("*")];
  [copy, ...copy.querySelectorAll("*")].forEach((element, place) => {
    const style = getComputedStyle(sources[place]);
    for (const name of COPIED) element.setAttribute(name, style.getPropertyValue(name));
    for (const name of ["class", "tabindex", "style"]) element.removeAttribute(name);
  });
  const box = drawing.viewBox.baseVal;
  const [width, height] = box?.width ? [box.width, box.height] : [drawing.clientWidth, drawing.clientHeight];
  copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  copy.setAttribute("width", width);
  copy.setAttribute("height", height);
  const paper = document.createElementNS("http://www.w3.org/2000/svg", "rect");
  for (const [name, value] of Object.entries({ x: box?.x ?? 0, y: box?.y ?? 0, width, height, fill: ink("card") })) {
    paper.setAttribute(name, value);
  }
  copy.prepend(paper);
  return { text: new XMLSerializer().serializeToString(copy), width, height };
}

async function picture({ text, width, height }) {
  const url = URL.createObjectURL(new Blob([text], { type: "image/svg+xml" }));
  try {
    const image = new Image();
    image.src = url;
    await image.decode();
    const canvas = h("canvas", { width: Math.round(2 * width), height: Math.round(2 * height) });
    canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
    return await blobOf(canvas);
  } finally {
    URL.revokeObjectURL(url);
  }
}

export function blobOf(canvas) {
  return new Promise((resolve) => { canvas.toBlob(resolve, "image/png"); });
}

// Cells that a spreadsheet would take for a formula are led by an apostrophe: names and texts are other people's.
export function csv(rows) {
  const cell = (value) => {
    let text = value === null || value === undefined ? "" : String(value);
    if (typeof value === "string" && /^[=+\-@\t\r]/.test(text)) text = `'${text}`;
    return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return `${rows.map((row) => row.map(cell).join(",")).join("\r\n")}\r\n`;
}

// Buttons to save a drawing: each of drawing() -> svg element, canvas() -> canvas and rows() -> rows of a CSV may be left out.
export function saving(name, { drawing, canvas, rows }) {
  const file = (extension) => `${name.replace(/[^\p{L}\p{N}._-]+/gu, "-").slice(0, 80)}.${extension}`;
  const one = (label, save) => button(label, save, { class: "quiet", "aria-label": `Save as ${label}` });
  return h("span", { class: "saving", role: "group", "aria-label": "Save this" },
    drawing && one("PNG", async () => download(file("png"), "image/png", await picture(standalone(drawing())))),
    canvas && one("PNG", async () => download(file("png"), "image/png", await blobOf(canvas()))),
    drawing && one("SVG", () => download(file("svg"), "image/svg+xml", standalone(drawing()).text)),
    rows && one("CSV", () => download(file("csv"), "text/csv", csv(rows()))));
}
