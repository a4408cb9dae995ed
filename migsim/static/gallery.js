// Starts the players of a gallery page from the state that the notebook's run saved; folds solutions.
for (const el of document.querySelectorAll(".migsim-frozen"))
  new Player(el, JSON.parse(el.nextElementSibling.textContent));
for (const cell of document.querySelectorAll(".code_cell.celltag_solution")) {
  const fold = document.createElement("details"), summary = document.createElement("summary");
  summary.textContent = "Solution";
  fold.append(summary, ...cell.childNodes);
  cell.append(fold);
}
