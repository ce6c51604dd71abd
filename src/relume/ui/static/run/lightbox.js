// One image as large as the window: arrow keys go to the next, the pixels of small ones stay square.

import { button, fill, h, said } from "relume/dom.js";
import { altOf, guessText, isWrong } from "relume/run/images.js";
import { whereOf } from "relume/run/parts.js";

export class Lightbox {
  #at = 0;
  #scale = 1;

  constructor(images) {
    this.images = images;
    this.picture = h("div", { class: "lightbox-picture", tabindex: "0", role: "group", "aria-label": "Image" });
    this.text = h("p", { class: "lightbox-text", "aria-live": "polite" });
    this.element = h("dialog", { class: "lightbox", "aria-label": "Image", onkeydown: (event) => this.#key(event),
      onclick: (event) => { if (event.target === this.element) this.close(); } },
    h("div", { class: "bar" }, button("‹", () => this.#move(-1), { "aria-label": "Image before" }),
      button("›", () => this.#move(1), { "aria-label": "Next image" }),
      button("−", () => this.#zoom(0.5), { "aria-label": "Smaller" }),
        button("+", () => this.#zoom(2), { "aria-label": "Larger" }),
      this.text, button("Close", () => this.close())), this.picture);
  }

  open(at) {
    this.#at = at;
    this.#scale = 1;
    this.element.showModal();
    this.#draw();
  }

  close() { if (this.element.open) this.element.close(); }

  refresh() { if (this.element.open) this.#draw(); }

  #move(by) {
    const count = this.images.shown.length;
    if (!count) return;
    this.#at = (this.#at + by + count) % count;
    this.#draw();
  }

  #zoom(by) {
    this.#scale = Math.min(8, Math.max(0.25, this.#scale * by));
    this.#draw();
  }

  #key(event) {
    const does = { ArrowRight: () => this.#move(1), ArrowLeft: () => this.#move(-1), "+": () => this.#zoom(2),
      "-": () => this.#zoom(0.5) }[event.key];
    if (!does) return;
    event.preventDefault();
    does();
  }

  #draw() {
    const shown = this.images.shown;
    if (!shown.length) return this.close();
    this.#at = Math.min(this.#at, shown.length - 1);
    const { image } = shown[this.#at];
    const guess = guessText(image);
    const [width, height] = [image.width || 300, image.height || 300];
    const room = [innerWidth * 0.9 - 40, innerHeight * 0.86 - 110];
    const fit = Math.min(room[0] / width, room[1] / height);
    const whole = fit >= 1 ? Math.max(1, Math.floor(fit)) : fit; // pixels of the same size where it is enlarged
    const scale = Math.min(whole, 16) * this.#scale;
    const src = this.images.address(image);
    fill(this.picture, src ? h("img", { src, alt: altOf(image, guess), class: scale >= 2 ? "pixels" : null,
      style: { width: `${Math.round(width * scale)}px`, height: `${Math.round(height * scale)}px` } }) : null);
    fill(this.text, guess ? h("strong", { class: isWrong(image) ? "wrong" : null }, isWrong(image) ? "✗ " : "", said(guess))
      : null, image.caption ? h("span", {}, " ", said(image.caption)) : null,
      h("span", { class: "dim" }, ` ${this.#at + 1} of ${shown.length} · ${width} × ${height} · `,
        whereOf(this.images.item)));
    return null;
  }
}
