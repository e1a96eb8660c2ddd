// Failures by cause, and the box for SQL.
import { $, ask, go, h, number, say, state } from "./page.js";

export async function showFailures(signal) {
  const causes = await ask("/api/failures", new URLSearchParams(), signal);
  const rows = causes.map((cause) => h("tr", {},
    h("td", { class: "number" }, number(cause.num_images)), h("td", {}, cause.error_stage), h("td", {}, `${cause.error_type}: ${cause.message}`),
    h("td", {}, `${cause.first_date} to ${cause.last_date}`),
    h("td", {}, cause.keys.map((key, index) => h("button", { type: "button", onclick: () => go({ image: key }, { keepOffset: true }) }, `image ${index + 1}`)))));
  const header = ["images", "stage", "cause", "dates", "such as"].map((name) => h("th", {}, name));
  $("main").replaceChildren(rows.length ? h("div", { class: "scroll" }, h("table", {}, h("thead", {}, h("tr", {}, header)), h("tbody", {}, rows))) : h("p", {}, "No image failed."));
}

export function showSql(signal) {
  const text = h("textarea", { id: "sql", "aria-label": "SQL", spellcheck: "false" }, state().get("q") ?? "SELECT label, count(*) AS boxes FROM detections WHERE score > 0.5 GROUP BY label ORDER BY boxes DESC");
  const answer = h("div", { class: "scroll", id: "answer", role: "status" });
  const run = () => go({ q: text.value });
  text.addEventListener("keydown", (event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) run(); });
  $("main").replaceChildren(h("p", { class: "note" }, "One SELECT over the views images, detections, failures, runs and history. Ctrl-Enter runs it."), text, h("div", { class: "bar" }, h("button", { type: "button", id: "run", onclick: run }, "Run")), answer);
  if (state().get("q")) {
    answer.textContent = "…";
    ask("/api/sql", new URLSearchParams({ q: state().get("q") }), signal).then((found) => showAnswer(answer, found)).catch((error) => { answer.textContent = error.message; say(error); });
  }
}

function showAnswer(answer, found) {
  const rows = found.rows.map((row) => h("tr", {}, row.map((value) => h("td", { class: typeof value === "number" ? "number" : "" }, value === null ? "" : typeof value === "object" ? JSON.stringify(value) : String(value)))));
  answer.replaceChildren(h("p", { class: "note" }, `${number(found.rows.length)} rows${found.is_cut ? "; there are more" : ""}`), h("table", {}, h("thead", {}, h("tr", {}, found.columns.map((name) => h("th", {}, name)))), h("tbody", {}, rows)));
}
