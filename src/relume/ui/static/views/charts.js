import { fill, h } from "relume/dom.js";

export async function mount(place, app) {
  fill(place, h("h1", {}, "charts"));
  return {};
}
