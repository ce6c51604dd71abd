// The parts of a run's page as tabs: arrow keys, Home and End move between them.

import { button, h } from "relume/dom.js";

const STEPS = { ArrowRight: 1, ArrowLeft: -1 };

export class Tabs {
  #made = new Map();

  constructor(onpick) {
    this.onpick = onpick;
    this.element = h("div", { class: "tabs", role: "tablist", "aria-label": "Parts of this run",
      onkeydown: (event) => this.#key(event) });
  }

  // Tabs that stay are kept, so that the focus stays too.
  fill(parts, chosen) {
    const before = this.chosen;
    this.chosen = chosen;
    const wanted = parts.map((part) => {
      if (!this.#made.has(part.id)) {
        this.#made.set(part.id, button(part.label, () => this.onpick(part.id),
          { role: "tab", id: `tab-${part.id}`, "aria-controls": "run-panel", dataset: { part: part.id } }));
      }
      return this.#made.get(part.id);
    });
    if (wanted.length !== this.element.children.length || wanted.some((tab, place) => tab !== this.element.children[place])) {
      const focused = document.activeElement;
      this.element.replaceChildren(...wanted);
      if (wanted.includes(focused)) focused.focus();
    }
    for (const tab of wanted) {
      const isChosen = tab.dataset.part === chosen;
      tab.setAttribute("aria-selected", String(isChosen));
      tab.tabIndex = isChosen ? 0 : -1;
    }
    if (before !== chosen) this.#reveal(wanted.find((tab) => tab.dataset.part === chosen));
  }

  #reveal(tab) {
    if (!tab) return;
    const left = tab.offsetLeft - this.element.offsetLeft;
    const { scrollLeft, clientWidth } = this.element;
    if (left < scrollLeft || left + tab.offsetWidth > scrollLeft + clientWidth) this.element.scrollLeft = left - clientWidth / 3;
  }

  #key(event) {
    const tabs = [...this.element.children];
    const place = tabs.indexOf(document.activeElement);
    if (place < 0) return;
    const ends = { Home: 0, End: tabs.length - 1 };
    const next = ends[event.key] ?? (STEPS[event.key] ? (place + STEPS[event.key] + tabs.length) % tabs.length : null);
    if (next === null) return;
    event.preventDefault();
    tabs[next].focus();
    this.onpick(tabs[next].dataset.part);
  }
}
