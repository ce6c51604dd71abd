// In which order the samples came, and where in it the run is.

import { fill, h } from "relume/dom.js";
import { number } from "relume/format.js";
import { facts, section } from "relume/run/parts.js";

export const id = "order";
export const label = "Data order";
export const isThere = ({ facts: { order } }) => Boolean(order && Object.values(order).some((value) => value !== null));

const NAMES = { seed: "seed", epoch: "epochs done", batch: "batch of the epoch", step: "step", samples: "samples seen",
  batches: "batches an epoch",
  epoch_samples: "samples an epoch", world_size: "processes" };

export async function mount(place, page) {
  const from = (checkpoint) => checkpoint && ["name", "epoch", "batch", "step",
    "samples"].filter((name) => checkpoint[name] !== null && checkpoint[name] !== undefined)
    .map((name) => (name === "name" ? checkpoint.name : `${name} ${number(checkpoint[name])}`)).join(" · ");
  const draw = () => {
    const { order } = page.facts;
    const pairs = Object.entries(order).filter(([, value]) => value !== null && typeof value !== "object")
      .map(([name, value]) => [NAMES[name] ?? name.replaceAll("_", " "),
        typeof value === "number" && name !== "seed" ? number(value) : String(value)]);
    const [done, whole] = [order.batch, order.batches];
    fill(place, section("Order of the data", facts([...pairs, ["a resume begins at", from(order.checkpoint)]]),
      whole > 0 ? h("p", { class: "run-progress" },
        h("progress", { max: whole, value: done ?? 0, "aria-label": "Batches of this epoch" }),
          h("span", { class: "dim" }, `${number(done)} of ${number(whole)} batches`)) : null,
      h("p", { class: "dim" },
        "The order of each epoch follows from the seed and the epoch's number alone: it is the same on every machine and with "
        + "any number of workers. A checkpoint holds the seed and the cursor, "
        + "the place up to which samples were taken. A resumed run "
        + "goes on with exactly the next sample: none is seen twice, none is left out."),
      h("p", { class: "dim" },
        "relume rehearse proves it: it stops the training in the middle, resumes it, and compares every number bit for bit.")));
  };
  draw();
  return { refresh: draw };
}
