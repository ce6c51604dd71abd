// Images: a grid of what was logged at one step, with what a classifier took each for; the wrong ones are told by a sign.

import { fill, h, said, visible } from "relume/dom.js";
import { number, plural } from "relume/format.js";
import { Lightbox } from "relume/run/lightbox.js";
import { choice, empty, switches } from "relume/run/parts.js";

const SMALL = 64; // images with a shorter side are enlarged by whole pixels

export class Images {
  #answer = null;
  #order = "worst";
  #onlyWrong = false;
  #class = "";

  constructor(panel) {
    this.panel = panel;
    this.bar = h("div", { class: "bar" });
    this.count = h("p", { class: "dim", role: "status" });
    this.grid = h("ul", { class: "images", onkeydown: (event) => this.#key(event) });
    this.lightbox = new Lightbox(this);
    this.element = h("div", {}, this.bar, this.count, this.grid, this.lightbox.element);
  }

  destroy() { this.lightbox.close(); }

  show(answer, item) {
    this.#answer = answer;
    this.item = item;
    this.#drawBar();
    this.#draw();
    this.lightbox.refresh();
  }

  address(image) {
    const { source, name } = this.panel.page;
    return image.file ? source.file(name, this.item.id, image.file) : null;
  }

  get images() { return this.#answer?.images ?? []; }

  // Those that are shown, in their order, each with its place among all.
  get shown() {
    const all = this.images.map((image, place) => ({ image, place }));
    const kept = all.filter(({ image }) => (!this.#onlyWrong || isWrong(image)) && (!this.#class || trueOf(image) === this.#class));
    if (!this.#isGuessed) return kept;
    const by = { worst: (one) => [badness(one.image)], logged: () => [0], class: (one) => [trueOf(one.image), badness(one.image)] }[this.#order];
    return kept.map((one) => ({ ...one, key: by(one) })).sort((a, b) => compare(a.key, b.key) || a.place - b.place);
  }

  get #isGuessed() { return this.images.some((image) => isGuess(image)); }

  #drawBar() {
    const classes = [...new Set(this.images.map(trueOf).filter(Boolean))].sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
    const key = JSON.stringify([this.#isGuessed, classes]);
    if (key === this.barKey) return;
    this.barKey = key;
    if (!classes.includes(this.#class)) this.#class = "";
    this.bar.hidden = !this.#isGuessed;
    if (!this.#isGuessed) return;
    const redraw = () => this.#draw();
    fill(this.bar,
      switches("Order", [["worst", "Worst first"], ["class", "By class"], ["logged", "As logged"]], this.#order, (value) => { this.#order = value; redraw(); }),
      switches("Which", [["all", "All"], ["wrong", "Only wrong"]], this.#onlyWrong ? "wrong" : "all", (value) => { this.#onlyWrong = value === "wrong"; redraw(); }),
      classes.length > 1 ? choice("True class", [["", "all"], ...classes.map((name) => [name, visible(name)])], this.#class,
        (value) => { this.#class = value; redraw(); }) : null);
  }

  #draw() {
    const shown = this.shown;
    const isOne = this.images.length === 1;
    const wrong = this.images.filter(isWrong).length;
    this.count.textContent = this.#isGuessed ? `${plural(shown.length, "image")} · ${number(wrong)} of ${number(this.images.length)} wrong` : "";
    this.count.hidden = !this.#isGuessed;
    this.grid.classList.toggle("one", isOne);
    fill(this.grid, shown.length ? shown.map((one, at) => h("li", {}, this.#tile(one.image, at, isOne))) : h("li", { class: "none" }, empty("None of them.")));
  }

  #tile(image, at, isOne) {
    const src = this.address(image);
    const isSmall = Math.min(image.width ?? 0, image.height ?? 0) < SMALL;
    const guess = guessText(image);
    return h("button", { type: "button", class: `tile-image${isWrong(image) ? " wrong" : isGuess(image) ? " right" : ""}`,
      onclick: () => this.lightbox.open(at), dataset: { place: at } },
    src ? h("img", { src, loading: "lazy", decoding: "async", alt: altOf(image, guess), width: image.width, height: image.height,
      class: isSmall ? "pixels" : isOne ? "whole" : null }) : h("span", { class: "dim" }, "not in this report"),
    guess ? h("span", { class: "guess" }, h("span", { class: "sign", "aria-hidden": "true" }, isWrong(image) ? "✗" : "✓"), said(guess)) : null,
    image.caption ? h("span", { class: "caption dim", title: visible(image.caption) }, said(image.caption)) : null);
  }

  // Arrow keys go over the grid, up and down by what stands above and below.
  #key(event) {
    const tiles = [...this.grid.querySelectorAll("button")];
    const place = tiles.indexOf(document.activeElement);
    const across = tiles.filter((tile) => tile.offsetTop === tiles[0]?.offsetTop).length;
    const by = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: across, ArrowUp: -across }[event.key];
    if (place < 0 || !by || !tiles[place + by]) return;
    event.preventDefault();
    tiles[place + by].focus();
  }
}

export function trueOf(image) {
  const name = image.label ?? image.true ?? null;
  return name === null ? "" : String(name);
}

export function isGuess(image) {
  return image.predicted !== undefined && image.predicted !== null;
}

export function isWrong(image) {
  return isGuess(image) && trueOf(image) !== "" && String(image.predicted) !== trueOf(image);
}

// The least likely true class first; without probabilities the wrong ones.
function badness(image) {
  const share = image.true_score ?? image.true_share;
  if (typeof share === "number") return share;
  if (typeof image.score !== "number") return isWrong(image) ? 0 : 1;
  return isWrong(image) ? -image.score : image.score;
}

export function guessText(image) {
  if (!isGuess(image)) return trueOf(image);
  const share = typeof image.score === "number" ? ` ${Math.round(100 * image.score)} %` : "";
  return `${visible(image.predicted)}${share}${isWrong(image) ? `, is ${visible(trueOf(image))}` : ""}`;
}

export function altOf(image, guess) {
  return [isGuess(image) ? (isWrong(image) ? "wrong:" : "right:") : "", guess, image.caption ? visible(image.caption) : ""].filter(Boolean).join(" ") || "logged image";
}

function compare(a, b) {
  for (let place = 0; place < a.length; place += 1) {
    const found = typeof a[place] === "string" ? a[place].localeCompare(b[place], "en", { numeric: true }) : a[place] - b[place];
    if (found) return found;
  }
  return 0;
}
