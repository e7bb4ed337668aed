// The links to examples, the switches above the panels, and the settings below them.

class Controls {
  constructor(playground) {
    this.playground = playground;
    this.inputs = {};
    this.examples = htmlElement("nav", { class: "examples", "aria-label": "examples" });
    for (const [label, state] of examples(playground.data)) {
      const link = htmlElement("a", { href: writeHash(state) }, label);
      if (!playground.options.withHash) {
        link.addEventListener("click", (event) => {
          event.preventDefault();
          playground.choose(state);
        });
      }
      this.examples.append(link);
    }
    const pictures = playground.data.pictures.map((_, index) => [index, String(index + 1)]);
    this.main = htmlElement("form", { class: "controls main" },
      this.choice("stride", "stride", STRIDES.map((stride) => [stride, `${stride} px`])),
      this.slider(),
      this.choice("picture", "picture", pictures),
    );
    this.more = htmlElement("form", { class: "controls" },
      this.choice("head", "draw the mask", [["faultless", "of a faultless head"], ["pooled", "as the pooled bins say"]]),
      this.select("bins", "bins", Array.from({ length: 14 }, (_, i) => [i + 1, `${i + 1} × ${i + 1}`])),
      this.select("samples", "samples in a bin", [[1, "1"], [2, "2 × 2"], [3, "3 × 3"], [4, "4 × 4"], [0, "about one a cell"]]),
      this.aligned(),
    );
    for (const form of [this.main, this.more]) form.addEventListener("submit", (event) => event.preventDefault());
  }

  // Buttons of which one is chosen.
  choice(name, legend, options) {
    const group = htmlElement("fieldset", { class: "choice" }, htmlElement("legend", {}, legend));
    this.inputs[name] = options.map(([value, label]) => {
      const input = htmlElement("input", { type: "radio", name: `${name}-${panels}`, value });
      input.addEventListener("change", () => this.playground.choose(this.choose(name, value)));
      group.append(htmlElement("label", {}, input, htmlElement("span", {}, label)));
      return input;
    });
    return group;
  }

  // Another picture comes with the box of its first object.
  choose(name, value) {
    return name === "picture" ? { picture: value, box: this.playground.data.pictures[value].objects[0].box } : { [name]: value };
  }

  select(name, text, options) {
    const select = htmlElement("select", {}, ...options.map(([value, label]) => htmlElement("option", { value }, label)));
    select.addEventListener("change", () => this.playground.choose({ [name]: Number(select.value) }));
    this.inputs[name] = [select];
    return htmlElement("label", { class: "select" }, htmlElement("span", {}, text), select);
  }

  slider() {
    const input = htmlElement("input", { type: "range", min: "0", max: "1", step: "0.125", "aria-label": "rounding step of RoIWarp, in cells: 0 is RoIAlign, 1 RoIWarp" });
    input.addEventListener("input", () => this.playground.choose({ step: Number(input.value) }));
    this.inputs.step = [input];
    this.step = htmlElement("output", {});
    return htmlElement("fieldset", { class: "slider" }, htmlElement("legend", {}, "rounding step ", this.step),
      htmlElement("div", {}, htmlElement("span", {}, "RoIAlign"), input, htmlElement("span", {}, "RoIWarp")));
  }

  aligned() {
    const input = htmlElement("input", { type: "checkbox" });
    input.addEventListener("change", () => this.playground.choose({ aligned: input.checked }));
    this.inputs.aligned = [input];
    return htmlElement("label", { class: "check" }, input, htmlElement("span", {}, "aligned = true: cells stand half a cell further on"));
  }

  show(state) {
    for (const name of ["stride", "picture", "head"]) for (const input of this.inputs[name]) input.checked = input.value === String(state[name]);
    for (const name of ["bins", "samples", "step"]) this.inputs[name][0].value = String(state[name]);
    this.inputs.aligned[0].checked = state.aligned;
    const text = state.step ? `${Math.round(state.step * state.stride * 10) / 10} px` : "none";
    if (this.step.textContent !== text) this.step.textContent = text;
  }
}
