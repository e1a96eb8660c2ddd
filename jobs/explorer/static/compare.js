// Two models or runs side by side on the same images, those that differ most first.
import { $, ask, boxesIn, go, h, number, picture, state } from "./page.js";

const PAGE = 30, MIN_IOU = 0.5;

function iou(a, b) {
  const width = Math.min(a.xmax, b.xmax) - Math.max(a.xmin, b.xmin), height = Math.min(a.ymax, b.ymax) - Math.max(a.ymin, b.ymin);
  if (width <= 0 || height <= 0) return 0;
  const area = (box) => (box.xmax - box.xmin) * (box.ymax - box.ymin);
  return width * height / (area(a) + area(b) - width * height);
}

/** The boxes that have no box of the same class on the other side: each box has one partner at most, the best scores choose first. */
function unmatched(boxes, others) {
  const free = new Set(others);
  return new Set(boxes.filter((box) => {
    let best = null, overlap = MIN_IOU;
    for (const other of free) if (other.label === box.label && iou(box, other) >= overlap) { best = other; overlap = iou(box, other); }
    if (best) free.delete(best);
    return !best;
  }));
}

export async function showCompare(facts, signal) {
  const sides = [...facts.models.map((model) => ({ value: `model:${model.model_digest}`, text: `model ${model.model_name} ${model.model_digest.slice(0, 8)}` })), ...facts.runs.map((run) => ({ value: `run:${run}`, text: `run ${run}` }))];
  const given = state(), a = given.get("a") ?? sides[0]?.value, b = given.get("b") ?? sides[1]?.value;
  const choose = (name, chosen) => h("select", { "aria-label": `side ${name}`, onchange: (event) => go({ [name]: event.target.value }) }, sides.map((side) => h("option", { value: side.value, selected: side.value === chosen }, side.text)));
  const status = h("span", { class: "grow", role: "status" }, sides.length > 1 ? "…" : "there is one model and one run only: nothing to compare");
  const pairs = h("div", { class: "pairs" });
  $("main").replaceChildren(h("div", { class: "bar" }, choose("a", a), choose("b", b), status), pairs);
  if (sides.length < 2) return;
  const offset = Number(given.get("offset") ?? 0), parameters = new URLSearchParams({ offset, min_score: given.get("min_score") ?? "0.5" });
  for (const [name, value] of [["a", a], ["b", b]]) parameters.set(`${name}_${value.split(":", 1)[0]}`, value.slice(value.indexOf(":") + 1));
  const found = await ask("/api/compare", parameters, signal);
  status.textContent = `${number(found.images)} images on both sides, ${number(found.differing)} with other numbers of boxes`;
  pairs.replaceChildren(...found.page.map((pair) => {
    const [onlyA, onlyB] = [unmatched(pair.a.boxes, pair.b.boxes), unmatched(pair.b.boxes, pair.a.boxes)];
    const side = (image, only) => h("div", {}, picture(image, { marked: (box) => only.has(box) }), h("div", { class: "note" }, `${boxesIn(image.boxes.length)}, ${number(only.size)} only here`));
    return h("section", { class: "pair-of-images" }, h("code", {}, pair.a.uri), h("div", { class: "sides" }, side(pair.a, onlyA), side(pair.b, onlyB)));
  }));
  const turn = (text, to, isPossible) => h("button", { type: "button", disabled: !isPossible, onclick: () => go({ offset: to || null }, { keepOffset: true }) }, text);
  pairs.append(h("div", { class: "bar" }, turn("Previous", offset - PAGE, offset > 0), turn("Next", offset + PAGE, offset + PAGE < found.images)));
}
