// The filters: lists, ranges, and histograms that filter when a bar is chosen.
import { $, ask, colourOf, go, h, number, state } from "./page.js";

const FIRST = "newest first", SORTS = { name: "by name", best: "highest score first", least_certain: "least certain first", most_boxes: "most boxes first", fewest_boxes: "fewest boxes first" };
const SCORE_BIN = 0.05;

let facts;
export function setFacts(found) { facts = found; }

function list(title, name, values, texts = values, unset = "all") {
  if (!values.length) return null;
  const chosen = state().get(name);
  const options = [h("option", { value: "" }, unset), ...values.map((value, index) => h("option", { value, selected: value === chosen }, texts[index] || "(none)"))];
  return h("fieldset", {}, h("legend", {}, title), h("select", { "aria-label": title, onchange: ({ target }) => go({ [name]: target.selectedIndex ? target.value : null }, { keepEmpty: true }) }, options));
}

function range(title, low, high, attributes) {
  const field = (name, text) => h("input", { ...attributes, value: state().get(name) ?? "", placeholder: text, "aria-label": `${title} ${text}`, onchange: (event) => go({ [name]: event.target.value }) });
  return h("fieldset", {}, h("legend", {}, title), h("div", { class: "pair" }, field(low, "from"), field(high, "to")));
}

export function showFilters() {
  const given = state();
  const search = h("input", { type: "search", id: "text", value: given.get("text") ?? "", placeholder: "part of the name", "aria-label": "part of the name", onchange: (event) => go({ text: event.target.value }) });
  const share = { type: "number", min: "0", max: "1", step: "any" };
  const parts = [
    h("fieldset", {}, h("legend", {}, "Name"), search),
    list("Order", "sort", Object.keys(SORTS), Object.values(SORTS), FIRST),
    h("fieldset", {}, h("legend", {}, "Class"), h("ul", { class: "bars", id: "labels" })),
    h("fieldset", {}, h("legend", {}, "Score"), h("div", { class: "columns", id: "scores" }), h("div", { class: "ends" }, h("span", {}, "0"), h("span", {}, "1"))),
    range("Score, 0.5 and more unless given", "min_score", "max_score", share),
    range("Size of boxes, share of the sides", "min_size", "max_size", share),
    range("Boxes in the image", "min_boxes", "max_boxes", { type: "number", min: "0", step: "1" }),
    h("fieldset", {}, h("div", { class: "columns", id: "num_boxes" }), h("div", { class: "ends" }, h("span", {}, "0 boxes"), h("span", {}, "20 or more"))),
    range("Date of the run", "first_date", "last_date", { type: "date" }),
    h("fieldset", {}, h("div", { class: "columns", id: "dates" }), h("div", { class: "ends", id: "date-ends" })),
    list("Status", "status", ["ok", "failed"]),
    list("Run", "run", facts.runs),
    list("Model", "model", facts.models.map((model) => model.model_digest), facts.models.map((model) => `${model.model_name} ${model.model_digest.slice(0, 8)}`)),
    ...Object.entries(facts.columns).map(([name, values]) => list(name, `column.${name}`, values)),
    h("button", { type: "button", onclick: () => { history.pushState(null, "", location.pathname); dispatchEvent(new PopStateEvent("popstate")); } }, "Clear all"),
  ];
  const wasOpen = $("side").querySelector("details")?.open ?? matchMedia("(min-width: 701px)").matches;
  $("side").replaceChildren(h("details", { class: "filters", open: wasOpen }, h("summary", {}, "Filters"), ...parts.filter(Boolean)));
}

function columns(id, bars, isChosen, choose) {
  const most = Math.max(1, ...bars.map((bar) => bar.count));
  $(id)?.replaceChildren(...bars.map((bar) => {
    const inner = h("i");
    inner.style.height = bar.count ? `${Math.max(2, 100 * bar.count / most)}%` : "0";
    return h("button", { type: "button", title: `${bar.text}: ${number(bar.count)}`, "aria-label": `${bar.text}: ${number(bar.count)}`, "aria-pressed": String(isChosen(bar)), onclick: () => choose(bar) }, inner);
  }));
}

/** Draw the histograms of what the filters show, and return the counts. */
export async function showCounts(signal) {
  const parameters = filterParameters();
  const found = await ask("/api/counts", parameters, signal);
  const given = state(), labels = given.getAll("label");
  const most = Math.max(1, ...found.labels.map(([, count]) => count));
  $("labels").replaceChildren(...found.labels.map(([label, count]) => {
    const line = h("i");
    line.style.width = `${100 * count / most}%`;
    line.style.background = colourOf(label);
    const isOn = labels.includes(label);
    return h("li", {}, h("button", { type: "button", "aria-pressed": String(isOn), onclick: () => go({ label: isOn ? labels.filter((each) => each !== label) : [...labels, label] }) }, h("span", {}, label), h("span", {}, number(count)), line));
  }));
  const scores = new Map(found.scores);
  const bins = [...Array(Math.round(1 / SCORE_BIN)).keys()].map((bin) => ({ bin, count: scores.get(bin) ?? 0, text: `${(bin * SCORE_BIN).toFixed(2)} to ${((bin + 1) * SCORE_BIN).toFixed(2)}` }));
  const low = (bar) => (bar.bin * SCORE_BIN).toFixed(2), high = (bar) => ((bar.bin + 1) * SCORE_BIN).toFixed(2);
  const isBin = (bar) => given.get("min_score") === low(bar) && (given.get("max_score") ?? "1.00") === high(bar);
  columns("scores", bins, isBin, (bar) => go(isBin(bar) ? { min_score: null, max_score: null } : { min_score: low(bar), max_score: bar.bin * SCORE_BIN >= 0.95 - 1e-9 ? null : high(bar) }));
  const counted = new Map(found.num_boxes);
  const perImage = [...Array(21).keys()].map((boxes) => ({ boxes, count: counted.get(boxes) ?? 0, text: `${boxes}${boxes === 20 ? " or more" : ""} boxes` }));
  const isNumber = (bar) => given.get("min_boxes") === String(bar.boxes);
  columns("num_boxes", perImage, isNumber, (bar) => go(isNumber(bar) ? { min_boxes: null, max_boxes: null } : { min_boxes: String(bar.boxes), max_boxes: bar.boxes === 20 ? null : String(bar.boxes) }));
  const dates = found.dates.map(([date, count]) => ({ date, count, text: date }));
  const isDate = (bar) => given.get("first_date") === bar.date && given.get("last_date") === bar.date;
  columns("dates", dates, isDate, (bar) => go(isDate(bar) ? { first_date: null, last_date: null } : { first_date: bar.date, last_date: bar.date }));
  $("date-ends")?.replaceChildren(...(dates.length ? [h("span", {}, dates[0].date), h("span", {}, dates.at(-1).date)] : []));
  return found;
}

const OWN = ["view", "offset", "image", "a", "b", "q"];
export function filterParameters() {
  const parameters = state();
  for (const name of OWN) parameters.delete(name);
  return parameters;
}
