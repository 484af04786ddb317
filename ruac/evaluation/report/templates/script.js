// Sort a table by the column of the button pressed; empty values stay last, a second press turns the order.
document.querySelectorAll("table.sortable").forEach(table => {
  const body = [...table.tBodies].at(-1), heads = [...table.tHead.querySelectorAll("th")].filter(th => !th.matches(".group"));
  heads.forEach((th, index) => th.querySelector("button")?.addEventListener("click", () => {
    const up = th.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    const value = row => row.cells[index].dataset.value ?? row.cells[index].textContent.trim();
    const rows = [...body.rows].sort((a, b) => {
      const x = value(a), y = value(b);
      if (x === "" || y === "") return (x === "") - (y === "");
      return up * (isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y);
    });
    heads.forEach(h => h.removeAttribute("aria-sort"));
    th.setAttribute("aria-sort", up > 0 ? "ascending" : "descending");
    body.append(...rows);
  }));
});
const folded = [...document.querySelectorAll("details")];
document.querySelector(".unfold")?.addEventListener("click", () => folded.forEach(d => d.open = true));
// Paper shows everything that is folded away, and every table with all its columns: letters shrink until they fit.
addEventListener("beforeprint", () => {
  folded.forEach(d => { d.dataset.was = d.open; d.open = true; });
  document.querySelectorAll("table").forEach(table => {
    const shown = [...table.rows].at(-1).cells;
    table.style.setProperty("--columns", [...shown].filter(cell => getComputedStyle(cell).display !== "none").length);
  });
});
addEventListener("afterprint", () => folded.forEach(d => d.open = d.dataset.was === "true"));
