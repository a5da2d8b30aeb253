(() => {
  "use strict";

  // What a spreadsheet would run is text there, too, with an apostrophe before it.
  const plain = (text) => {
    const one = text.replace(/\s+/g, " ").trim();
    const isNumber = /^[+\-\u2212]?[\d.,]+(e[+-]?\d+)?\s*%?$/i.test(one);
    return !isNumber && /^[=+\-@|%\uFF0B\uFF0D\uFF1D\uFF20]/.test(one) ? "'" + one : one;
  };
  const valueOf = (cell) => (cell.dataset.v !== undefined ? cell.dataset.v : plain(cell.textContent === "\u2013" ? "" : cell.textContent));

  let own = false;  // whether a copy is that of a button
  const put = async (text) => {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      const area = document.createElement("textarea");
      area.value = text;
      area.setAttribute("readonly", "");
      area.className = "skip";
      document.body.append(area);
      area.select();
      own = true;
      const done = document.execCommand("copy");
      own = false;
      area.remove();
      return done;
    }
  };
  const say = (button, done) => {
    const before = button.dataset.label || button.textContent;
    button.dataset.label = before;
    button.textContent = done ? "Copied" : "Select and copy by hand";
    setTimeout(() => { button.textContent = before; }, 1600);
  };

  // Cells that are selected by hand and copied are made safe as well.
  document.addEventListener("copy", (event) => {
    const selection = document.getSelection();
    if (own || !selection || selection.isCollapsed || !event.clipboardData) return;
    const range = selection.getRangeAt(0);
    if (![...document.querySelectorAll("table")].some((table) => range.intersectsNode(table))) return;
    const lines = selection.toString().split("\n").map((line) => line.split("\t").map(plain).join("\t"));
    event.clipboardData.setData("text/plain", lines.join("\n"));
    event.preventDefault();
  });

  for (const button of document.querySelectorAll(".copy-text")) {
    button.hidden = false;
    const source = button.parentElement.querySelector(".source");
    const isCode = source.tagName === "CODE";
    button.addEventListener("click", async () => say(button, await put(isCode ? source.textContent : plain(source.textContent))));
  }

  for (const box of document.querySelectorAll(".data")) {
    const table = box.querySelector("table");
    const body = table.tBodies[0];
    const rows = [...body.rows];
    const heads = [...table.tHead.rows[0].cells];

    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = head.textContent;
      head.replaceChildren(button);
      // A head with a button in it is printed on the first page alone.
      addEventListener("beforeprint", () => { head.textContent = button.textContent; });
      addEventListener("afterprint", () => { head.replaceChildren(button); });
      button.addEventListener("click", () => {
        const now = head.getAttribute("aria-sort");
        const next = now === "ascending" ? "descending" : now === "descending" ? null : "ascending";
        for (const other of heads) other.removeAttribute("aria-sort");
        if (next) head.setAttribute("aria-sort", next);
        const numeric = head.classList.contains("n");
        const keyed = rows.map((row, place) => {
          const cell = row.cells[column];
          return { row, place, key: numeric ? (cell.dataset.v === undefined ? NaN : Number(cell.dataset.v)) : cell.textContent };
        });
        const sign = next === "descending" ? -1 : 1;
        if (next) {
          keyed.sort((a, b) => {
            if (!numeric) return sign * a.key.localeCompare(b.key, "en", { numeric: true }) || a.place - b.place;
            if (Number.isNaN(a.key) || Number.isNaN(b.key)) return Number.isNaN(a.key) - Number.isNaN(b.key) || a.place - b.place;
            return sign * (a.key - b.key) || a.place - b.place;
          });
        }
        body.append(...keyed.map((entry) => entry.row));
      });
    });

    if (!box.classList.contains("long")) continue;
    const tools = box.querySelector(".tools");
    const count = tools.querySelector(".count");
    const texts = rows.map((row) => [...row.cells].map((cell) => cell.textContent).join(" ").toLowerCase());
    tools.hidden = false;
    tools.querySelector("input").addEventListener("input", (event) => {
      const words = event.target.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      rows.forEach((row, place) => {
        row.hidden = !words.every((word) => texts[place].includes(word));
        shown += row.hidden ? 0 : 1;
      });
      count.textContent = words.length ? `${shown} of ${rows.length} rows` : "";
    });
    tools.querySelector(".copy-table").addEventListener("click", async (event) => {
      const lines = [heads.map((head) => plain(head.textContent)), ...[...body.rows].filter((row) => !row.hidden).map((row) => [...row.cells].map(valueOf))];
      say(event.target, await put(lines.map((line) => line.join("\t")).join("\n") + "\n"));
    });
  }
})();
