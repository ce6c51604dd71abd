// A small menu behind a button: opens downwards, closes with Escape, with a click elsewhere and when it is left.

import { button, h } from "relume/dom.js";

// entries: [[label, action, properties?], …]; the action is given its button.
export function menu(label, sign, entries, properties = {}) {
  const list = h("div", { class: "menu-list" }, entries.filter(Boolean).map(([text, action, more]) => {
    const one = button(text, () => { action(one); if (!more?.stays) close(); }, { class: "quiet", ...more?.properties });
    return one;
  }));
  const summary = h("summary", { class: "button quiet", "aria-label": label, title: label }, sign);
  const place = h("details", { class: "menu", ...properties }, summary, list);
  closing(place, summary);
  const close = () => { place.open = false; summary.focus(); };
  return place;
}

// What makes <details> a menu.
export function closing(place, summary) {
  place.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !place.open) return;
    event.stopPropagation();
    place.open = false;
    summary.focus();
  });
  const elsewhere = (event) => { if (!place.contains(event.target)) place.open = false; };
  place.addEventListener("toggle", () => {
    document[place.open ? "addEventListener" : "removeEventListener"]("pointerdown", elsewhere);
  });
  place.addEventListener("focusout", (event) => {
    if (event.relatedTarget && !place.contains(event.relatedTarget)) place.open = false;
  });
}
