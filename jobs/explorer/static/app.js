// The views, and which of them the URL names.
import { $, ask, go, h, say, setClasses, state } from "./page.js";
import { setFacts, showFilters } from "./filters.js";
import { galleryKey, showDetail, showGallery } from "./gallery.js";
import { showCompare } from "./compare.js";
import { showFailures, showSql } from "./tables.js";

const VIEWS = { images: "Images", compare: "Compare", failures: "Failures", sql: "SQL" };
const KEYS = [["/", "search in names"], ["n, p", "next and previous page"], ["Enter", "open the image that has the focus"], ["x", "pick the image"], ["← →", "previous and next image, when one is open"], ["Esc", "close"], ["?", "these keys"]];
let facts, showing = new AbortController(), drawn = null;

/** Everything but the open image, which needs no new gallery. */
function background() {
  const without = state();
  without.delete("image");
  return without.toString();
}

async function show() {
  const view = state().get("view") ?? "images";
  $("views").replaceChildren(...Object.entries(VIEWS).map(([name, text]) => h("a", { href: `?view=${name}`, "aria-current": name === view ? "page" : null, onclick: (event) => { event.preventDefault(); history.pushState(null, "", name === "images" ? location.pathname : `?view=${name}`); show(); } }, text)));
  try {
    if (background() !== drawn) {
      drawn = background();
      showing.abort();
      showing = new AbortController();
      $("side").hidden = view !== "images";
      if (view === "compare") await showCompare(facts, showing.signal);
      else if (view === "failures") await showFailures(showing.signal);
      else if (view === "sql") showSql(showing.signal);
      else { showFilters(); await showGallery(showing.signal); }
    }
    await showDetail(state().get("image"));
  } catch (error) { say(error); }
}

function help() {
  $("help").replaceChildren(h("table", {}, h("caption", {}, "Keys"), h("tbody", {}, KEYS.map(([key, text]) => h("tr", {}, h("th", {}, key), h("td", {}, text))))), h("button", { type: "button", onclick: () => $("help").close() }, "Close"));
  $("help").showModal();
}

addEventListener("popstate", show);
addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, textarea, select") || $("help").open) return;
  if (event.key === "?") help();
  else if (!$("detail").open && !$("side").hidden) galleryKey(event);
});
$("keys").addEventListener("click", help);

try {
  facts = await ask("/api/table");
  setFacts(facts);
  setClasses(facts.classes);
  $("table").textContent = facts.table;
  document.title = `${facts.table.split("/").at(-1)} · ssd-batch explorer`;
  await show();
} catch (error) { say(error); }
