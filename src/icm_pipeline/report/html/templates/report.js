"use strict";
// What reacts in a report. The page is whole without it but for the pictures, which stand once each in its data.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const one = (selector, root = document) => root.querySelector(selector);
  const PLACES = { missed: 0 }; // in the order "disobeyed first"; the others stay as made
  let chosen = null; // the way of steering whose twins are shown, of data.shown

  const fill = (image, name) => image.setAttribute("src", data.pictures[name]);
  all("img[data-picture]").forEach((image) => fill(image, image.dataset.picture));

  // Hints at the pointer and at what has the focus
  const tip = document.getElementById("tip");
  const hint = (text, x, y) => {
    tip.hidden = !text;
    if (!text) return;
    tip.textContent = text;
    const box = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(4, Math.min(x + 14, innerWidth - box.width - 4))}px`;
    tip.style.top = `${y + 18 + box.height > innerHeight ? y - box.height - 10 : y + 18}px`;
  };
  all("[data-tip]").forEach((point) => {
    const show = () => {
      const box = point.getBoundingClientRect();
      hint(point.dataset.tip, box.right - 12, box.top);
    };
    point.addEventListener("pointerenter", show);
    point.addEventListener("focus", show);
    ["pointerleave", "blur"].forEach((name) => point.addEventListener(name, () => hint("")));
  });

  // A label that meets another goes to its point's other side, or where it meets one there too, is told on hover only
  const meets = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
  all(".plot").forEach((plot) => {
    const kept = all(".mark", plot).map((mark) => mark.getBoundingClientRect());
    const labelled = all(".point:has(span)", plot).sort((a, b) => b.matches(".best") - a.matches(".best"));
    labelled.forEach((point) => {
      const label = one("span", point), free = () => !kept.some((box) => meets(box, label.getBoundingClientRect()));
      const fits = free() || (point.classList.toggle("far"), free());
      label.hidden = !fits;
      if (fits) kept.push(label.getBoundingClientRect());
    });
  });

  // Pictures: the twins of what is chosen, filtered and in order
  const form = one(".filters");
  const more = one(".more"), page = matchMedia("(max-width: 36rem)").matches ? 12 : 48; // pairs on a screen at once
  let most = page;
  const arrange = () => {
    if (!form) return;
    const wanted = Object.fromEntries(new FormData(form));
    const shown = chosen && data.shown[chosen];
    let seen = 0, there = 0;
    all(".pairs").forEach((list) => {
      list.hidden = !shown || Number(list.dataset.set) !== shown.originals;
      if (list.hidden) return;
      const items = all("li", list);
      items.forEach((item) => {
        const twin = shown.twins[item.dataset.id];
        const fits = twin && (!wanted.prompt || item.dataset.prompt === wanted.prompt)
          && (!wanted.option || twin.option === wanted.option) && (!wanted.fate || twin.fate === wanted.fate);
        item.hidden = !fits;
        there += twin ? 1 : 0;
        seen += fits ? 1 : 0;
      });
      const place = (item) => {
        const twin = shown.twins[item.dataset.id];
        return (twin && wanted.order === "missed" && PLACES[twin.fate]) ?? 1;
      };
      const made = (item) => Number(item.dataset.place);
      items.sort((a, b) => place(a) - place(b) || made(a) - made(b)).forEach((item) => list.append(item));
      items.filter((item) => !item.hidden).forEach((item, place) => item.classList.toggle("later", place >= most));
    });
    more.hidden = seen <= most;
    more.textContent = `${Math.min(page, seen - most)} more of ${seen}`;
    one("output", form).textContent = `${seen} of ${there} pairs`;
  };
  all(".pairs").forEach((list) => all("li", list).forEach((item, place) => {
    item.dataset.place = place;
    one("button", item).addEventListener("click", () => look(item));
  }));
  if (form) {
    form.addEventListener("change", () => { most = page; arrange(); });
    more.addEventListener("click", () => { most += page; arrange(); });
  }

  // One way of steering is chosen: in charts, in the table, by the slider
  const select = (name) => {
    all("[data-select]").forEach((each) => each.classList.toggle("chosen", each.dataset.select === name));
    all("[data-row]").forEach((row) => row.classList.toggle("chosen", row.dataset.row === name));
    const shown = data.shown[name];
    const heading = one("#chosen"); // a run's page has one way of steering only
    if (!shown && !heading) return;
    chosen = shown ? name : null;
    if (heading) {
      heading.textContent = shown ? shown.title : `Job ${name}: its pictures are not in this page`;
      one("#chosen-figures").textContent = shown ? shown.figures : "";
    }
    if (!shown) return arrange();
    all(`.pairs[data-set="${shown.originals}"] li`).forEach((item) => {
      const twin = shown.twins[item.dataset.id];
      if (!twin) return;
      item.className = twin.fate; // arrange tells which come later
      const image = one(".steered", item);
      fill(image, twin.picture);
      image.alt = twin.option ? `steered to ${twin.option}; the judge sees ${twin.sees || "no option"}` : "steered";
      one(".caption", item).textContent = twin.caption;
    });
    arrange();
    slideTo(name);
  };
  all("[data-select]").forEach((each) => each.addEventListener("click", () => {
    select(each.dataset.select);
    const pictures = document.getElementById("pictures");
    if (pictures && data.shown[each.dataset.select]) pictures.scrollIntoView({ block: "nearest" });
  }));

  // The slider goes along a series of jobs, with the same seeds
  const slider = one(".slider");
  const series = () => data.series[Number(slider.elements.series ? slider.elements.series.value : 0)];
  const tell = () => {
    const current = series(), place = Number(slider.elements.place.value);
    slider.elements.place.max = current.jobs.length - 1;
    one("label:has(input) span", slider).textContent = current.axis;
    one("output", slider).textContent = current.values[place];
    slider.elements.place.setAttribute("aria-valuetext", `${current.axis} ${current.values[place]}`);
    return current.jobs[place];
  };
  const slideTo = (name) => {
    if (!slider) return;
    const number = data.series.findIndex((each) => each.jobs.includes(name));
    if (number < 0) return;
    if (!series().jobs.includes(name)) slider.elements.series.value = number;
    tell();
    slider.elements.place.value = series().jobs.indexOf(name);
    tell();
  };
  if (slider) slider.addEventListener("input", () => select(tell()));

  // A pair, larger
  const closer = document.getElementById("closer");
  const look = (item) => {
    const twin = data.shown[chosen].twins[item.dataset.id], [before, after] = all("img", closer);
    one("h2", closer).textContent = item.dataset.prompt;
    fill(before, one("img", item).dataset.picture);
    fill(after, twin.picture);
    const wanted = twin.option ? `steered to ${twin.option}` : "no option was drawn";
    const seen = twin.fate === "unjudged" ? "not judged" : `the judge sees ${twin.sees || "no option"}`;
    one(".told", closer).textContent = `image ${item.dataset.id}, seed ${item.dataset.seed}: ${wanted}, ${seen}`;
    one("tbody", closer).replaceChildren(...twin.probabilities.map((cells) => {
      const row = document.createElement("tr");
      row.append(...cells.map((text) => Object.assign(document.createElement("td"), { textContent: text })));
      return row;
    }));
    one("table", closer).hidden = !twin.probabilities.length;
    closer.showModal();
  };
  closer.addEventListener("click", (event) => { if (event.target === closer) closer.close(); });

  // The heat map tells the cell under the pointer, or that of the arrow keys
  all(".cells").forEach((cells) => {
    const panel = data.heat.panels[Number(cells.dataset.panel)], cursor = one(".cursor", cells);
    const rows = panel.layers.length, columns = data.heat.steps.length;
    let row = 0, column = 0;
    const words = () => `${panel.layers[row]}${panel.steered[row] ? " (steered)" : ""}, step ${data.heat.steps[column]}: `
      + `${panel.accuracy[row][column].toFixed(3)}, chance ${data.heat.chance.toFixed(3)}`;
    const mark = () => {
      Object.assign(cursor.style, {
        left: `${100 * column / columns}%`, width: `${100 / columns}%`, top: `${100 * row / rows}%`, height: `${100 / rows}%`,
      });
      cursor.hidden = false;
      document.getElementById("readout").textContent = words();
    };
    const point = (event) => {
      const box = cells.getBoundingClientRect();
      const inside = (share, number) => Math.max(0, Math.min(number - 1, Math.floor(share * number)));
      column = inside((event.clientX - box.left) / box.width, columns);
      row = inside((event.clientY - box.top) / box.height, rows);
      mark();
      hint(words(), event.clientX, event.clientY);
    };
    cells.addEventListener("pointermove", point);
    cells.addEventListener("pointerdown", point);
    cells.addEventListener("pointerleave", () => hint(""));
    cells.addEventListener("focus", () => { if (cursor.hidden) mark(); });
    cells.addEventListener("keydown", (event) => {
      const moves = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
      if (!moves[event.key]) return;
      event.preventDefault();
      row = Math.max(0, Math.min(rows - 1, row + moves[event.key][0]));
      column = Math.max(0, Math.min(columns - 1, column + moves[event.key][1]));
      mark();
    });
  });

  const first = Object.keys(data.shown)[0];
  if (data.first ?? first) select(data.first ?? first);
})();
