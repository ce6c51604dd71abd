// What the run said, line by line.

import { button, copy, download, fill, h, uid, visible } from "relume/dom.js";
import { number } from "relume/format.js";

export const id = "console";
export const label = "Console";
export const isThere = () => true;

const SHOWN = 4000; // lines in the page at once; the file has them all
const END = 40; // as near to the end, in pixels, counts as following it

export async function mount(place, page) {
  const view = new Lines(page);
  fill(place, view.element);
  await view.load();
  return { refresh: () => view.load(), unmount: () => view.unmount() };
}

class Lines {
  #lines = [];
  #drawn = [];
  #timer = null;

  constructor(page) {
    this.page = page;
    const find = uid("find");
    this.find = h("input", { id: find, type: "search", placeholder: "Search the lines", oninput: () => this.#later() });
    this.count = h("span", { class: "dim", role: "status" });
    this.box = h("div", { class: "console", tabindex: "0", role: "log", "aria-label": "Console", "aria-live": "off" });
    this.box.addEventListener("scroll", () => this.#scrolled());
    this.follow = button("Follow the end", () => this.#follow(this.follow.getAttribute("aria-pressed") !== "true"),
      { "aria-pressed": "true" });
    const text = () => this.#lines.map(textOf).join("\n");
    this.element = h("section", { class: "card part", "aria-label": "Console" },
      h("div", { class: "bar" }, h("label", { class: "announcement", for: find }, "Search the lines"), this.find,
        page.source.isLive ? this.follow : null,
        button("Copy", (event) => copy(text(), event.currentTarget)),
        button("Download", () => download(`${page.name}-console.txt`, "text/plain", `${text()}\n`)), this.count),
      this.box);
  }

  async load() {
    const { lines = [], left_out: left = 0 } = await this.page.source.console(this.page.name);
    this.left = left;
    this.#lines = lines;
    this.#draw();
  }

  unmount() { clearTimeout(this.#timer); }

  #later() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#draw(), 120);
  }

  #draw() {
    const wanted = this.find.value.toLowerCase();
    const found = wanted ? this.#lines.filter((line) => textOf(line).toLowerCase().includes(wanted)) : this.#lines;
    const shown = found.slice(-SHOWN);
    const isMore = !wanted && this.#drawn.length > 0 && shown.length >= this.#drawn.length
      && this.#drawn.at(-1)?.text === shown[this.#drawn.length - 1]?.text
      && this.#drawn[0]?.text === shown[0]?.text && this.wanted === wanted;
    if (isMore) this.box.append(...shown.slice(this.#drawn.length).map((line) => this.#row(line)));
    else fill(this.box, shown.map((line) => this.#row(line)),
      this.#lines.length ? null : h("p", { class: "empty" }, "It has not said anything."));
    this.#drawn = shown;
    this.wanted = wanted;
    this.count.textContent = wanted ? `${number(found.length)} of ${number(this.#lines.length)} lines`
      : found.length > shown.length ? `the last ${number(shown.length)} of ${number(found.length)} lines`
        : `${number(found.length)} lines`;
    if (this.left) this.count.textContent += ` · ${number(this.left)} before them are left out`;
    if (this.follow.getAttribute("aria-pressed") === "true" && !wanted) this.box.scrollTop = this.box.scrollHeight;
  }

  #row({ time, step, kind, text }) {
    const clock = time ? new Date(time * 1000).toLocaleTimeString("en-GB") : "";
    return h("div", { class: `console-line kind-${String(kind).replace(/[^a-z]/g, "")}` },
      h("span", { class: "console-time", title: time ? new Date(time * 1000).toLocaleString("en-GB") : null }, clock),
      h("span", { class: "console-step" }, step === null || step === undefined ? "" : number(step)),
      h("span", { class: "console-text", dir: "auto" }, visible(text)));
  }

  #scrolled() {
    const isAtEnd = this.box.scrollHeight - this.box.scrollTop - this.box.clientHeight < END;
    this.follow.setAttribute("aria-pressed", String(isAtEnd));
  }

  #follow(isWanted) {
    this.follow.setAttribute("aria-pressed", String(isWanted));
    if (isWanted) this.box.scrollTop = this.box.scrollHeight;
  }
}

function textOf({ time, step, text }) {
  const when = time ? new Date(time * 1000).toISOString().replace("T", " ").slice(0, 19) : "";
  return [when, step ?? "", visible(text)].join("  ");
}
