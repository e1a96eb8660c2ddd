// Elements, requests and the page's URL: what all views share.

export const COLOURS = ["#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#008080", "#9a6324", "#808000"];
const SVG = "http://www.w3.org/2000/svg";
const SVG_TAGS = new Set(["svg", "rect", "text", "title"]);

/** Make an element. Texts are never read as HTML. */
export function h(tag, attributes = {}, ...children) {
  const element = SVG_TAGS.has(tag) ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name in element && !SVG_TAGS.has(tag) && typeof value !== "string") element[name] = value;
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export const $ = (id) => document.getElementById(id);
export const number = (value) => Number(value).toLocaleString("en-US");
export const boxesIn = (count) => `${number(count)} ${count === 1 ? "box" : "boxes"}`;

/** Ask the server. An answer that is late for its view is dropped. */
export async function ask(path, parameters = new URLSearchParams(), signal = undefined) {
  const answer = await fetch(`${path}?${parameters}`, { signal });
  const content = await answer.json();
  if (!answer.ok) throw new Error(content.error);
  return content;
}

let hiding;
export function say(error) {
  if (error.name === "AbortError") return;
  $("error").textContent = error.message;
  $("error").hidden = false;
  clearTimeout(hiding);
  hiding = setTimeout(() => { $("error").hidden = true; }, 8000);
}

/** The page's URL is its state. */
export const state = () => new URLSearchParams(location.search);

/** Change parameters of the URL: null removes one, a list gives it several values. The page then shows what the URL says. */
export function go(changes, { replace = false, keepOffset = false, keepEmpty = false } = {}) {
  const next = state();
  if (!keepOffset) next.delete("offset");
  for (const [name, value] of Object.entries(changes)) {
    next.delete(name);
    for (const each of Array.isArray(value) ? value : [value]) if (each !== null && (each !== "" || keepEmpty)) next.append(name, each);
  }
  const url = `${location.pathname}${next.size ? `?${next}` : ""}`;
  if (replace) history.replaceState(null, "", url);
  else history.pushState(null, "", url);
  dispatchEvent(new PopStateEvent("popstate"));
}

/** The colour of a class: the same in all views. */
let classes = [];
export const setClasses = (names) => { classes = names; };
export const colourOf = (label) => COLOURS[Math.max(0, classes.indexOf(label)) % COLOURS.length];

/** A picture with its boxes. Both are fitted into the frame in the same way, whatever its shape. */
export function picture(image, { whole = false, marked = () => false } = {}) {
  const width = image.width_px || 4, height = image.height_px || 3;
  const line = Math.max(width, height) / (whole ? 400 : 130), size = 7 * line;
  const boxes = (image.boxes || []).map((box) => {
    const colour = colourOf(box.label), text = `${box.label} ${box.score.toFixed(2)}`;
    const rect = h("rect", {
      x: box.xmin, y: box.ymin, width: Math.max(0, box.xmax - box.xmin), height: Math.max(0, box.ymax - box.ymin),
      fill: marked(box) ? `${colour}55` : "none", stroke: colour, "stroke-width": line,
    }, h("title", {}, text));
    // Above the box, or within it where there is no room. The white line behind the letters keeps them readable on any picture.
    const y = box.ymin > 1.2 * size ? box.ymin - 0.3 * size : box.ymin + size;
    return whole ? [rect, h("text", {
      x: box.xmin, y, fill: colour, "font-size": size, "font-weight": "bold", stroke: "white", "stroke-width": size / 5, "paint-order": "stroke",
    }, text)] : rect;
  }).flat();
  const frame = h("div", { class: "frame" },
    h("img", { src: `/${whole ? "picture" : "thumbnail"}/${image.key}`, loading: "lazy", alt: image.uri }),
    h("svg", { viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" }, boxes));
  frame.style.aspectRatio = `${width} / ${height}`;
  return frame;
}
