"use strict";
// Nothing here is needed to read the page: it sorts the table, and opens what a link leads to.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const text = "text" in head.dataset;
    const first = text ? "ascending" : "descending";
    const other = text ? "descending" : "ascending";
    const order = head.getAttribute("aria-sort") === first ? other : first;
    heads.forEach((each) => each.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", order);
    const sign = order === "ascending" ? 1 : -1;
    const value = (row) => row.cells[column].dataset.value;
    const compare = (a, b) => {
      const [one, two] = [value(a), value(b)];
      if (one === "" || two === "") return (one === "") - (two === ""); // what is missing comes last
      return sign * (text ? one.localeCompare(two, "en", { numeric: true }) : one - two);
    };
    body.append(...[...body.rows].sort(compare));
  }));
}
const slides = document.querySelectorAll("details.slide");
const lead = (hash) => {
  const target = hash && document.getElementById(hash.slice(1));
  if (target instanceof HTMLDetailsElement) {
    target.open = true;
    target.scrollIntoView();
  }
};
addEventListener("hashchange", () => lead(location.hash));
addEventListener("click", (event) => {
  const link = event.target instanceof Element && event.target.closest("a");
  if (link && link.getAttribute("href") === location.hash) lead(location.hash); // no hashchange then
});
for (const button of document.querySelectorAll("button[data-open]")) {
  button.addEventListener("click", () => slides.forEach((each) => { each.open = button.dataset.open === "all"; }));
}
lead(location.hash);
