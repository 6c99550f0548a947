(function () {
  var root = document.documentElement, tip = document.getElementById("tip"), box = document.querySelector("dialog");
  root.classList.add("js");
  function theme(name) { root.dataset.theme = name; }
  theme(matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  document.getElementById("theme").onclick = function () { theme(root.dataset.theme === "dark" ? "light" : "dark"); };
  function show() {
    var parts = location.hash.slice(1).split("+"), sections = document.querySelectorAll("section");
    if (parts[1]) theme(parts[1]);
    var on = Array.from(sections).find(function (s) { return s.dataset.name === parts[0]; }) || sections[0];
    sections.forEach(function (s) { s.classList.toggle("on", s === on); });
    document.querySelectorAll("nav a").forEach(function (a) { a.classList.toggle("on", a.hash === "#" + on.dataset.name); });
    scrollTo(0, 0);
  }
  addEventListener("hashchange", show);
  show();

  function element(name, text, parent) {
    var made = document.createElement(name);
    made.textContent = text;
    if (parent) parent.appendChild(made);
    return made;
  }
  document.querySelectorAll("svg[data-chart]").forEach(function (svg) {
    var data = JSON.parse(svg.dataset.chart), ns = "http://www.w3.org/2000/svg";
    var hair = document.createElementNS(ns, "line");
    hair.setAttribute("stroke", "currentColor");
    hair.setAttribute("stroke-opacity", ".45");
    hair.setAttribute("y1", data.plot[1]);
    hair.setAttribute("y2", data.plot[1] + data.plot[3]);
    hair.style.display = "none";
    svg.appendChild(hair);
    svg.querySelectorAll("title").forEach(function (t) { t.remove(); });
    svg.addEventListener("mousemove", function (event) {
      var spot = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse()), best = 0;
      data.x.forEach(function (x, i) { if (Math.abs(x - spot.x) < Math.abs(data.x[best] - spot.x)) best = i; });
      hair.setAttribute("x1", data.x[best]);
      hair.setAttribute("x2", data.x[best]);
      hair.style.display = tip.style.display = "block";
      tip.textContent = "";
      element("b", data.t[best], tip);
      data.s.forEach(function (s) {
        if (s[2][best] === null) return;
        var row = element("div", "", tip);
        element("i", "", row).style.background = s[1];
        element("span", s[0], row);
        element("em", s[2][best], row);
      });
      var left = event.clientX + 16;
      if (left + tip.offsetWidth > innerWidth - 8) left = event.clientX - tip.offsetWidth - 16;
      tip.style.left = left + "px";
      tip.style.top = Math.min(event.clientY + 14, innerHeight - tip.offsetHeight - 8) + "px";
    });
    svg.addEventListener("mouseleave", function () { hair.style.display = tip.style.display = "none"; });
  });
  document.querySelectorAll("template.popup").forEach(function (template) {
    var link = template.previousElementSibling;
    if (!link) return;
    link.tabIndex = 0;
    link.setAttribute("role", "button");
    link.onclick = link.onkeydown = function (event) {
      if (event.type === "keydown" && event.key !== "Enter") return;
      box.replaceChildren(template.content.cloneNode(true));
      box.showModal();
    };
  });
  box.addEventListener("click", function (event) { if (event.target === box) box.close(); });
})();
