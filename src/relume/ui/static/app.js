// The frame of the page: heading, navigation, and the view that the link asks for.

import { about } from "relume/about.js";
import { button, fill, h, said } from "relume/dom.js";
import { open, SourceError } from "relume/source.js";
import { State } from "relume/state.js";
import * as charts from "relume/views/charts.js";
import * as compare from "relume/views/compare.js";
import * as run from "relume/views/run.js";
import * as runs from "relume/views/runs.js";

const VIEWS = { runs, charts, compare, run };
const TABS = [["runs", "Runs"], ["charts", "Charts"], ["compare", "Compare"]];

class App {
  #mounted = null;
  #shown = "";
  #turn = 0;

  constructor(source) {
    this.source = source;
    this.state = new State(source.home);
    this.status = h("p", { class: "announcement", role: "status", "aria-live": "polite" });
    this.lost = h("p", { class: "lost", role: "alert", hidden: true }, "The server does not answer. What stands here is as it was; it goes on when the server is back.");
    this.tabs = h("nav", { "aria-label": "Views" });
    this.main = h("main", { id: "main", tabindex: "-1" });
    fill(document.getElementById("app"),
      h("a", { class: "skip", href: "#main", onclick: (event) => { event.preventDefault(); this.main.focus(); } }, "Skip to the content"),
      h("header", { class: "top" },
        h("a", { class: "brand", href: "#/runs" }, "relume"),
        this.tabs,
        h("div", { class: "where" }, source.isLive ? null : h("span", { class: "chip" }, "report")),
        themeButton()),
      this.lost, this.main, source.isLive ? null : about(source.report, source.count), this.status);
    this.state.on(() => this.#show());
    source.onChange((change) => { this.lost.hidden = !change.lost; });
    this.#show();
  }

  // Said to screen readers, without a sign on the page.
  announce(text) {
    this.status.textContent = text;
  }

  async #show() {
    const view = Object.hasOwn(VIEWS, this.state.view) ? this.state.view : "runs";
    this.#drawTabs(view);
    const place = `${view}/${this.state.subject ?? ""}`;
    if (this.#mounted && place === this.#shown) {
      this.#mounted.update?.();
      return;
    }
    this.#mounted?.unmount?.();
    this.#mounted = null;
    this.#shown = place;
    const turn = (this.#turn += 1);
    const content = h("div", { class: `view view-${view}` });
    fill(this.main, content);
    try {
      const mounted = await VIEWS[view].mount(content, this);
      if (turn !== this.#turn) mounted?.unmount?.();
      else {
        this.#mounted = mounted ?? {};
        content.dataset.mounted = "";
      }
    } catch (error) {
      if (turn !== this.#turn) return;
      if (!(error instanceof SourceError)) console.error(error);
      fill(content, problem(error));
      content.dataset.mounted = "";
    }
  }

  #drawTabs(current) {
    const chosen = this.state.all("runs");
    fill(this.tabs, TABS.map(([view, label]) => h("a", {
      href: this.state.link(view, null, chosen.length ? { runs: chosen } : {}),
      "aria-current": view === current ? "page" : null,
    }, label)));
    const subject = this.state.subject;
    if (current === "run" && subject !== null) this.tabs.append(h("a", { href: location.hash, "aria-current": "page" }, said(subject)));
    document.title = `${subject ?? TABS.find(([view]) => view === current)?.[1] ?? "Runs"} · relume`;
  }
}

// What stands where a view could not be shown.
export function problem(error) {
  return h("div", { class: "problem", role: "alert" }, h("h2", {}, "This cannot be shown"), h("p", {}, said(error.message)));
}

function themeButton() {
  const root = document.documentElement;
  const names = { "": "as the system", light: "light", dark: "dark" };
  const next = { "": "dark", dark: "light", light: "" };
  const wanted = () => root.dataset.theme ?? "";
  try {
    const kept = localStorage.getItem("relume-theme");
    if (kept && names[kept]) root.dataset.theme = kept;
  } catch { /* a file, or storage that is switched off: the choice is not kept */ }
  const toggle = button("◐", () => {
    const theme = next[wanted()];
    if (theme) root.dataset.theme = theme;
    else delete root.dataset.theme;
    try { localStorage.setItem("relume-theme", theme); } catch { /* as above */ }
    describe();
    window.dispatchEvent(new Event("themechange"));
  }, { class: "quiet" });
  const describe = () => {
    toggle.title = `Colours: ${names[wanted()]}`;
    toggle.setAttribute("aria-label", `Colours: ${names[wanted()]}. Change them.`);
  };
  describe();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => window.dispatchEvent(new Event("themechange")));
  return toggle;
}

open().then((source) => new App(source)).catch((error) => {
  console.error(error);
  fill(document.getElementById("app"), h("main", {}, problem(error)));
});
