// Predict first: choices before what came out. Without this script, what came out is simply folded.

function predict(block) {
  const fold = block.querySelector("details");
  const right = block.dataset.right === undefined ? null : Number(block.dataset.right);
  const choices = block.dataset.choices.split("|");
  const group = htmlElement("div", { class: "choices", role: "group", "aria-label": "your prediction" });
  const outcome = htmlElement("p", { class: "outcome", role: "status" });
  choices.forEach((choice, index) => {
    const button = htmlElement("button", { type: "button", "aria-pressed": "false" }, choice);
    button.addEventListener("click", () => {
      for (const other of group.children) other.setAttribute("aria-pressed", String(other === button));
      reveal();
      if (right !== null) outcome.textContent = index === right ? "Right." : `Here it came out differently: ${choices[right]}.`;
      fold.open = true;
    });
    group.append(button);
  });
  const reveal = () => right !== null && group.children[right].classList.add("right");
  fold.addEventListener("toggle", () => fold.open && reveal());
  fold.before(group, outcome);
}

document.querySelectorAll(".predict").forEach(predict);
const hero = new Playground(document.getElementById("hero"), pictures, { isCompact: true });
const playground = new Playground(document.getElementById("playground"), pictures);
