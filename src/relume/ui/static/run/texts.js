// Texts and figures, each as it was logged. Markdown is shown as the text that it is.

import { button, copy, fill, h, said, visible } from "relume/dom.js";
import { number } from "relume/format.js";
import { empty } from "relume/run/parts.js";

const TABLE = /^\|.*\|\s*\n\|[-|: ]+\|/m; // rows of markdown: a wrapped one cannot be read

export class Text {
  constructor() {
    this.note = h("p", { class: "dim" });
    this.wrap = button("Wrap lines", () => this.#wrap(this.wrap.getAttribute("aria-pressed") !== "true"),
      { "aria-pressed": "true" });
    this.text = h("pre", { class: "logged-text", dir: "auto", tabindex: "0", "aria-label": "Text" });
    this.element = h("div", {}, this.note, this.text,
      h("div", { class: "bar" }, this.wrap, button("Copy", (event) => copy(this.text.textContent, event.currentTarget))));
  }

  show({ text = "", problem, shown, total }) {
    fill(this.text, visible(text));
    if (this.wasTable === undefined) this.#wrap(!(this.wasTable = TABLE.test(text)));
    this.note.textContent = problem ?? (total > shown ? `The first ${number(shown)} of ${number(total)} characters.` : "");
    this.note.hidden = !this.note.textContent;
  }

  #wrap(isWrapped) {
    this.wrap.setAttribute("aria-pressed", String(isWrapped));
    this.text.classList.toggle("unwrapped", !isWrapped);
  }
}

export class Figure {
  constructor(panel) {
    this.panel = panel;
    this.element = h("div", { class: "figure-shown" });
  }

  show({ file, width, height, caption }, item) {
    const { source, name } = this.panel.page;
    const src = file ? source.file(name, item.id, file) : null;
    if (!src) return fill(this.element, empty("The picture is not in this report."));
    return fill(this.element, h("figure", {},
      h("img", { src, width, height, alt: `${visible(this.panel.one.name)} at step ${number(item.step)}` }),
      h("figcaption", {}, caption ? said(caption) : null)),
    h("div", { class: "bar" }, h("a", { class: "button", href: src,
      download: `${visible(this.panel.one.name).replaceAll("/", "-")}-${item.step}.png` }, "Download")));
  }
}
