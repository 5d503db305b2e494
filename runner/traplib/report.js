"use strict";
(() => {
  const form = document.getElementById("filter");
  const words = document.getElementById("words");
  const bad = document.getElementById("bad");
  const odd = document.getElementById("odd");
  const shown = document.getElementById("shown");
  const items = [...document.querySelectorAll("article.f, table.map tbody tr, table.sides tbody tr, details.k")];
  const texts = items.map(item => item.dataset.k.toLowerCase());
  const apply = () => {
    const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    items.forEach((item, index) => {
      let visible = true;
      if (item.matches("details.k")) {
        let any = false;
        for (const line of item.querySelectorAll("li")) {
          const all = (texts[index] + " " + line.textContent).toLowerCase();
          line.hidden = !wanted.every(word => all.includes(word)) ||
            (bad.checked && !line.matches(".b")) || (odd.checked && !line.matches(".d"));
          any = any || !line.hidden;
        }
        visible = any;
      } else {
        const key = texts[index];
        visible = item.matches(".map tr") ? wanted.length === 0 || wanted.some(word => key.includes(word))
                                     : wanted.every(word => key.includes(word));
        if (bad.checked && item.matches("tr") && !item.matches(".b")) visible = false;
        if (odd.checked && item.matches("tr") && !item.matches(".d")) visible = false;
      }
      item.hidden = !visible;
      count += visible;
    });
    shown.textContent = wanted.length || bad.checked || odd.checked ? count + " shown" : "";
  };
  form.addEventListener("submit", event => event.preventDefault());
  words.addEventListener("input", apply);
  bad.addEventListener("change", apply);
  odd.addEventListener("change", apply);
  form.hidden = false;
})();
