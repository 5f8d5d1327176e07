"use strict";
// Sort a table by the column whose heading is pressed: largest first, then smallest; rows without a value stay last.
for (const button of document.querySelectorAll("table.sortable th button")) {
  button.addEventListener("click", () => {
    const heading = button.closest("th");
    const body = heading.closest("table").tBodies[0];
    const column = heading.cellIndex;
    const largestFirst = heading.getAttribute("aria-sort") !== "descending";
    for (const other of heading.parentElement.children) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", largestFirst ? "descending" : "ascending");
    const key = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
    const compare = (a, b) => {
      if (a === "" || b === "") return (a === "") - (b === "");
      const order = isNaN(a) || isNaN(b) ? b.localeCompare(a) : b - a;
      return largestFirst ? order : -order;
    };
    body.append(...[...body.rows].sort((a, b) => compare(key(a), key(b))));
  });
}
// Show the one table that the three choices name; without this script all of them are there.
const choices = [...document.querySelectorAll(".choose select")];
function show() {
  const chosen = choices.map((choice) => choice.value).join(" ");
  for (const group of document.querySelectorAll("[data-group]")) group.hidden = group.dataset.group !== chosen;
  document.querySelector("#no-group").hidden = document.querySelector(`[data-group="${chosen}"]`) !== null;
}
if (choices.length) {
  for (const choice of choices) choice.addEventListener("change", show);
  show();
}
// On paper nothing can be unfolded.
window.addEventListener("beforeprint", () => {
  for (const folded of document.querySelectorAll("details")) folded.open = true;
});
