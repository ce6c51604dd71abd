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
  #layer = "";

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

  // Of predictions, each sample; of an image with marks, as it is chosen, with them, without them, or one of its masks.
  get images() {
    const images = this.#answer?.images ?? [];
    const [first] = images;
    return images.length === 1 && this.#layer && layersOf(first).some(([file]) => file === this.#layer)
      ? [{ ...first, file: this.#layer }] : images;
  }

  // Those that are shown, in their order, each with its place among all.
  get shown() {
    const all = this.images.map((image, place) => ({ image, place }));
    const kept = all.filter(({ image }) => (!this.#onlyWrong || isWrong(image))
      && (!this.#class || trueOf(image) === this.#class));
    if (!this.#isGuessed) return kept;
    const by = { worst: (one) => [badness(one.image)], logged: (one) => [one.image.sample ?? one.place],
      class: (one) => [trueOf(one.image), badness(one.image)] }[this.#order];
    return kept.map((one) => ({ ...one, key: by(one) })).sort((a, b) => compare(a.key, b.key) || a.place - b.place);
  }

  get #isGuessed() { return this.images.some((image) => isGuess(image)); }

  #drawBar() {
    const classes = [...new Set(this.images.map(trueOf).filter(Boolean))].sort((a, b) => a.localeCompare(b, "en",
      { numeric: true }));
    const layers = this.#answer?.images?.length === 1 ? layersOf(this.#answer.images[0]) : [];
    const key = JSON.stringify([this.#isGuessed, classes, layers]);
    if (key === this.barKey) return;
    this.barKey = key;
    if (!classes.includes(this.#class)) this.#class = "";
    const redraw = () => this.#draw();
    this.bar.hidden = !this.#isGuessed && !layers.length;
    if (layers.length) {
      if (!layers.some(([file]) => file === this.#layer)) this.#layer = layers[0][0];
      fill(this.bar, switches("Show", layers.map(([file, text]) => [file, text]), this.#layer,
        (file) => { this.#layer = file; redraw(); }));
    }
    if (!this.#isGuessed) return;
    fill(this.bar,
      switches("Order", [["worst", "Worst first"], ["class", "By class"], ["logged", "As logged"]], this.#order,
        (value) => { this.#order = value; redraw(); }),
      switches("Which", [["all", "All"], ["wrong", "Only wrong"]], this.#onlyWrong ? "wrong" : "all",
        (value) => { this.#onlyWrong = value === "wrong"; redraw(); }),
      classes.length > 1 ? choice("True class", [["", "all"], ...classes.map((name) => [name, visible(name)])], this.#class,
        (value) => { this.#class = value; redraw(); }) : null);
  }

  // A report may hold only the worst of them.
  #left() {
    const left = (this.#answer.total ?? 0) - (this.#answer.shown ?? 0);
    return left > 0 ? ` · ${plural(left, "other")} not in this report` : "";
  }

  #draw() {
    const shown = this.shown;
    const isOne = this.images.length === 1;
    const wrong = this.images.filter(isWrong).length;
    this.count.textContent = this.#isGuessed
      ? `${plural(shown.length, "image")} · ${number(wrong)} of ${number(this.images.length)} wrong${this.#left()}` : "";
    this.count.hidden = !this.#isGuessed;
    this.grid.classList.toggle("one", isOne);
    fill(this.grid, shown.length ? shown.map((one, at) => h("li", {}, this.#tile(one.image, at, isOne)))
      : h("li", { class: "none" }, empty("None of them.")));
  }

  #tile(image, at, isOne) {
    const src = this.address(image);
    const isSmall = Math.min(image.width ?? 0, image.height ?? 0) < SMALL;
    const guess = guessText(image);
    return h("button", { type: "button", class: `tile-image${isWrong(image) ? " wrong" : isGuess(image) ? " right" : ""}`,
      onclick: () => this.lightbox.open(at), dataset: { place: at } },
    src ? h("img", { src, loading: "lazy", decoding: "async", alt: guess ? "" : altOf(image, guess), onerror: isGone,
      width: image.width, height: image.height,
      class: isSmall ? "pixels" : isOne ? "whole" : null }) : h("span", { class: "dim" }, "not in this report"),
    guess ? h("span", { class: "guess" }, isGuess(image)
      ? [h("span", { class: "sign", "aria-hidden": "true" }, isWrong(image) ? "✗" : "✓"),
      h("span", { class: "announcement" }, isWrong(image) ? "wrong: " : "right: ")] : null, said(guess)) : null,
    image.caption ? h("span", { class: "caption dim", title: visible(image.caption) }, said(image.caption)) : null,
    Array.isArray(image.stretched) ? h("span", { class: "caption dim" },
      `Stretched from ${image.stretched.map((value) => number(value)).join(" to ")}`) : null);
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

// What an image can be shown as: [file, what it is].
function layersOf({ file, plain, masks = [] }) {
  if (!plain && !masks.length) return [];
  return [[file, "With marks"], ...(plain ? [[plain, "Without marks"]] : []),
    ...masks.map((mask) => [mask.file, `Mask ${visible(mask.name)}`])];
}

function isGone(event) {
  event.target.replaceWith(h("span", { class: "error" }, "This picture is gone or damaged."));
}

export function trueOf(image) {
  const name = image.label ?? image.true ?? null;
  return name === null ? "" : String(name);
}

export function isGuess(image) {
  return image.predicted !== undefined && image.predicted !== null && image.predicted !== "";
}

export function isWrong(image) {
  if (typeof image.right === "boolean") return !image.right;
  return isGuess(image) && trueOf(image) !== "" && String(image.predicted) !== trueOf(image);
}

// The least likely true class first; without probabilities the wrong ones.
function badness(image) {
  if (typeof image.label_score === "number") return image.label_score;
  if (typeof image.score !== "number") return isWrong(image) ? 0 : 1;
  return isWrong(image) ? -image.score : image.score;
}

export function guessText(image) {
  if (!isGuess(image)) return trueOf(image);
  const truth = isWrong(image) ? `, is ${visible(trueOf(image))}${percent(image.label_score)}` : "";
  return `${visible(image.predicted)}${percent(image.score)}${truth}`;
}

function percent(share) {
  return typeof share === "number" ? ` ${Math.round(100 * share)} %` : "";
}

export function altOf(image, guess) {
  return [isGuess(image) ? (isWrong(image) ? "wrong:" : "right:") : "", guess,
    image.caption ? visible(image.caption) : ""].filter(Boolean).join(" ") || "logged image";
}

function compare(a, b) {
  for (let place = 0; place < a.length; place += 1) {
    const found = typeof a[place] === "string" ? a[place].localeCompare(b[place], "en", { numeric: true }) : a[place] - b[place];
    if (found) return found;
  }
  return 0;
}
