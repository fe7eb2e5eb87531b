"use strict";
// Everything on the page can be read without this: it sorts the table and hides what is not asked for.
const table = document.getElementById("results");
const boxes = [...document.querySelectorAll("input[data-method]")];
const search = document.getElementById("search");
const said = document.getElementById("said");

function show() {
  const words = search.value.toLowerCase();
  let shown = 0;
  for (const box of boxes) {
    const on = box.checked && box.parentElement.textContent.toLowerCase().includes(words);
    shown += on;
    for (const row of document.querySelectorAll(`tr[data-method="${box.dataset.method}"]`)) row.hidden = !on;
    for (const group of document.querySelectorAll(`svg g[id^="m${box.dataset.method}-"]`)) {
      group.style.display = on ? "" : "none";
    }
  }
  said.textContent = `${shown} of ${boxes.length} methods are shown.`;
}

function sort(button) {
  const header = button.closest("th");
  const column = [...header.parentElement.children].indexOf(header);
  const down = header.getAttribute("aria-sort") !== "descending";
  for (const other of header.parentElement.children) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", down ? "descending" : "ascending");
  const text = (row) => row.children[column].textContent.trim();
  // The dash of what is missing is no number and goes last either way.
  const value = (row) => parseFloat(text(row).replace("−", "-"));
  const rows = [...table.tBodies[0].rows];
  rows.sort((one, other) => {
    if (column === 0) return text(one).localeCompare(text(other)) * (down ? -1 : 1);
    const [a, b] = [value(one), value(other)];
    if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b);
    return (a - b) * (down ? -1 : 1);
  });
  table.tBodies[0].append(...rows);
}

for (const box of boxes) box.addEventListener("change", show);
search.addEventListener("input", show);
for (const button of table.querySelectorAll("th button")) button.addEventListener("click", () => sort(button));
for (const part of document.querySelectorAll("[data-needs-script]")) part.hidden = false;
show();
