// What a report says of itself: of when it is, what it holds and what it leaves out.

import { append, h, said } from "relume/dom.js";
import { moment, plural } from "relume/format.js";

export function about(report, runs) {
  const asOf = report.as_of ? ` as of ${moment(report.as_of)}` : "";
  return h("footer", { class: "about" },
    h("p", {}, said(report.title, { class: "about-title" }), h("span", {}, ` · a report on ${plural(runs, "run")}${asOf}, made by relume ${report.relume}`)),
    append(h("ul", {}), report.notes.map((note) => h("li", {}, said(note)))));
}
