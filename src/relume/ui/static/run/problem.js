import { h, said } from "relume/dom.js";
import { SourceError } from "relume/source.js";

// What stands where something could not be shown.
export function problem(error) {
  if (!(error instanceof SourceError)) console.error(error);
  return h("div", { class: "problem", role: "alert" }, h("h3", {}, "This cannot be shown"), h("p", {}, said(error.message)));
}
