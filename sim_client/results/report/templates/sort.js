// A click on a heading of a table sorts its rows; a second click turns them round. Cells without a value come last.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  const valueOf = (row, column) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
      const rows = [...table.tBodies[0].rows].sort((one, other) => {
        const [a, b] = [valueOf(one, column), valueOf(other, column)];
        if (a === "" || b === "") return (a === "") - (b === "");
        return sign * (Number(a) - Number(b) || String(a).localeCompare(String(b)));
      });
      table.tBodies[0].append(...rows);
    });
  });
}
