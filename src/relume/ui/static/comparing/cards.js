// What stands around the drawings and the table: their headings, choices and files. The view keeps what it changes later.

import { button, fill, h } from "relume/dom.js";
import { saveCsv, svgToFile, svgToPng } from "relume/exports.js";
import { asTable } from "relume/comparing/differences.js";

function select(view, label, name) {
  return h("select", { "aria-label": label, onchange: (event) => view.app.state.set({ [name]: event.target.value }) });
}

export function parallelCard(view) {
  view.result = select(view, "Colour by", "result");
  return h(
    "section",
    { class: "card plot", "aria-labelledby": "parallel-title" },
    h(
      "div",
      { class: "bar" },
      h("h2", { id: "parallel-title" }, "Settings and results"),
      h("label", { class: "field" }, "colour", view.result),
      view.axes.element,
      h("span", { class: "space" }),
      files(
        view,
        "parallel",
        () => view.parallelPlace,
        () => view.values(view.want.axes),
      ),
    ),
    view.legend,
    view.parallelPlace,
    h(
      "div",
      { class: "bar under" },
      view.inside,
      view.keep,
      view.clear,
      h("span", { class: "dim hint" }, "Draw along an axis to set limits, press it to take them away."),
    ),
    view.limits.element,
  );
}

export function scatterCard(view) {
  view.x = select(view, "Across", "x");
  view.y = select(view, "Upwards", "y");
  view.xScale = scaleSelect(view, "Scale across", "xscale");
  view.yScale = scaleSelect(view, "Scale upwards", "yscale");
  view.missing = h("p", { class: "dim" });
  return h(
    "section",
    { class: "card plot", "aria-labelledby": "scatter-title" },
    h(
      "div",
      { class: "bar" },
      h("h2", { id: "scatter-title" }, "Two against each other"),
      h("label", { class: "field" }, "across", view.x),
      view.xScale,
      h("label", { class: "field" }, "up", view.y),
      view.yScale,
      h("span", { class: "space" }),
      files(
        view,
        "scatter",
        () => view.scatterPlace,
        () => view.values([view.want.x, view.want.y]),
      ),
    ),
    view.scatterPlace,
    view.missing,
  );
}

function scaleSelect(view, label, name) {
  const scales = select(view, label, name);
  fill(
    scales,
    [
      ["", "scale: by itself"],
      ["linear", "linear"],
      ["log", "log"],
    ].map(([value, text]) => h("option", { value }, text)),
  );
  return scales;
}

export function tableCard(view) {
  view.everything = h("input", {
    type: "checkbox",
    onchange: () => view.app.state.set({ all: view.everything.checked ? 1 : null }),
  });
  return h(
    "section",
    { class: "card plot", "aria-labelledby": "differences-title" },
    h(
      "div",
      { class: "bar" },
      h("h2", { id: "differences-title" }, "Differences"),
      h("label", { class: "check" }, view.everything, h("span", {}, "Show all")),
      h("span", { class: "space" }),
      button("CSV", () => view.found?.config && saveCsv(asTable(view.found), `${view.answer.root}-differences`), {
        "aria-label": "Differences as CSV",
      }),
    ),
    view.tablePlace,
  );
}

function files(view, what, place, rows) {
  const name = () => `${view.answer.root}-${what}`;
  const drawing = () => place().querySelector("svg");
  return h(
    "span",
    { class: "files" },
    button("PNG", () => svgToPng(drawing(), name()), { "aria-label": `${what} as PNG` }),
    button("SVG", () => svgToFile(drawing(), name()), { "aria-label": `${what} as SVG` }),
    button("CSV", () => saveCsv(rows(), name()), { "aria-label": `${what} as CSV` }),
  );
}
