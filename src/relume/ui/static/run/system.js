// What the machine did: memory, processor, throughput.

import { fill } from "relume/dom.js";
import { Charts } from "relume/run/charts.js";

export const id = "system";
export const label = "System";
export const isThere = ({ facts }) => Boolean(facts.system?.length);

export async function mount(place, page) {
  const charts = new Charts(page);
  fill(place, charts.element);
  const draw = () => charts.fill(page.facts.system ?? []);
  draw();
  return { refresh: draw, unmount: () => charts.unmount() };
}
