// The gallery, one image large, and the images that were picked.
import { $, ask, boxesIn, go, h, number, picture, state } from "./page.js";
import { filterParameters, showCounts } from "./filters.js";

const PAGE = 60, MAX_LISTED = 100_000;
const picked = new Set();
let shown = [];

export async function showGallery(signal) {
  const offset = Number(state().get("offset") ?? 0);
  const parameters = filterParameters();
  parameters.set("offset", offset);
  const bar = h("div", { class: "bar" }, h("span", { id: "found", class: "grow", role: "status" }, "…"));
  const gallery = h("ul", { id: "gallery" });
  $("main").replaceChildren(bar, gallery);
  const counting = showCounts(signal).then((found) => showBar(bar, found, offset));
  const showing = ask("/api/images", parameters, signal).then((images) => {
    shown = images;
    gallery.replaceChildren(...images.map(tile));
  });
  await Promise.all([counting, showing]);
}

function showBar(bar, found, offset) {
  const last = Math.min(offset + PAGE, found.images);
  const text = found.images ? `${number(offset + 1)} to ${number(last)} of ${number(found.images)} images, ${boxesIn(found.boxes)}` : "no image is like this";
  const turn = (name, to, isPossible) => h("button", { type: "button", id: name, disabled: !isPossible, onclick: () => go({ offset: to || null }, { keepOffset: true }) }, name === "next" ? "Next" : "Previous");
  bar.replaceChildren(
    h("span", { id: "found", class: "grow", role: "status" }, text),
    h("span", { id: "picks" }), turn("previous", offset - PAGE, offset > 0), turn("next", offset + PAGE, last < found.images),
    h("a", { class: "button", href: `/api/list?${filterParameters()}`, title: "a list that infer --input takes" }, found.images > MAX_LISTED ? `List of the first ${number(MAX_LISTED)} by name` : "List of all"),
  );
  showPicks();
}

function showPicks() {
  const link = picked.size ? h("a", { class: "button", href: `/api/list?${new URLSearchParams([...picked].map((key) => ["key", key]))}` }, `List of ${number(picked.size)} picked`) : "";
  $("picks")?.replaceChildren(link);
}

export function pick(key, isPicked = !picked.has(key)) {
  if (isPicked) picked.add(key);
  else picked.delete(key);
  for (const each of document.querySelectorAll(`[data-key="${key}"]`)) {
    each.classList.toggle("picked", isPicked);
    each.querySelector("input").checked = isPicked;
  }
  showPicks();
}

function tile(image) {
  const text = image.status === "ok" ? boxesIn(image.found) : `failed: ${image.error_type}`;
  const isPicked = picked.has(image.key);
  return h("li", { class: isPicked ? "tile picked" : "tile", "data-key": image.key },
    h("button", { type: "button", "aria-label": `${image.uri}, ${text}`, onclick: () => go({ image: image.key }, { keepOffset: true }) }, picture(image), h("div", { class: "caption", title: image.uri }, text, h("br"), image.uri.split("/").at(-1))),
    h("label", { title: "pick (x)" }, h("input", { type: "checkbox", checked: isPicked, "aria-label": `pick ${image.uri}`, onchange: (event) => pick(image.key, event.target.checked) })));
}

export async function showDetail(key) {
  const dialog = $("detail");
  if (!key) {
    dialog.close();
    return;
  }
  const image = await ask(`/api/image/${encodeURIComponent(key)}`);
  if (state().get("image") !== key) return;  // another one was asked for since
  const least = Number(state().get("min_score") ?? 0.5);
  const boxes = image.boxes.filter((box) => box.score >= least);
  const facts = Object.entries(image.row).filter(([, value]) => value !== null);
  const neighbour = (by) => {  // of the image that the URL names by now, which may be further than what is drawn
    const index = shown.findIndex((each) => each.key === state().get("image"));
    return index < 0 ? undefined : shown[index + by];
  };
  const step = (by) => neighbour(by) && go({ image: neighbour(by).key }, { keepOffset: true, replace: true });
  const turn = (text, by) => h("button", { type: "button", disabled: !neighbour(by), onclick: () => step(by) }, text);
  dialog.onkeydown = (event) => {
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
    if (event.key === "x") pick(key);
  };
  dialog.onclose = () => { if (state().get("image")) go({ image: null }, { keepOffset: true }); };
  dialog.replaceChildren(
    h("div", { class: "bar" }, h("strong", { class: "grow" }, image.uri), turn("Previous", -1), turn("Next", 1), h("button", { type: "button", id: "close", onclick: () => dialog.close() }, "Close")),
    h("div", { class: "detail" }, picture({ ...image, boxes }, { whole: true }),
      h("div", { class: "scroll" },
        h("table", {}, h("caption", {}, `${boxesIn(boxes.length)} from a score of ${least} on`), h("tbody", {}, boxes.slice(0, 200).map((box) => h("tr", {}, h("td", {}, box.label), h("td", { class: "number" }, box.score.toFixed(3)), h("td", { class: "number" }, [box.xmin, box.ymin, box.xmax, box.ymax].map((side) => side.toFixed(0)).join(", ")))))),
        h("table", {}, h("caption", {}, "The row of the table"), h("tbody", {}, facts.map(([name, value]) => h("tr", {}, h("th", {}, name), h("td", {}, String(value)))))))),
  );
  if (!dialog.open) dialog.showModal();
  $("close").focus();  // what had the focus is gone, and the keys go to what has it
}

/** The keys of the gallery: x picks the tile that has the focus, n and p turn the page. */
export function galleryKey(event) {
  const focused = document.activeElement?.closest("[data-key]");
  if (event.key === "x" && focused) pick(focused.dataset.key);
  else if (event.key === "n") $("next")?.click();
  else if (event.key === "p") $("previous")?.click();
  else if (event.key === "/") { $("side").querySelector("details").open = true; $("text")?.focus(); event.preventDefault(); }
}
