// Predict first: choices before what came out. Without this script, what came out is simply folded.

for (const block of document.querySelectorAll(".predict")) {
  const fold = block.querySelector("details");
  const group = htmlElement("div", { class: "choices", role: "group", "aria-label": "your prediction" });
  for (const choice of block.dataset.choices.split("|")) {
    const button = htmlElement("button", { type: "button", "aria-pressed": "false" }, choice);
    button.addEventListener("click", () => {
      for (const other of group.children) other.setAttribute("aria-pressed", String(other === button));
      fold.open = true;
    });
    group.append(button);
  }
  fold.before(group);
}

const hero = new Playground(document.getElementById("hero"), pictures, { isCompact: true });
const playground = new Playground(document.getElementById("playground"), pictures);
