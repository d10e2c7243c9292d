// What pages do beyond links and forms: ask before a change, follow a job, and keep in step.
"use strict";

const byId = (id) => document.getElementById(id);

// Ask once more before what cannot be undone.
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (!form.dataset.confirm) return;
  event.preventDefault();
  byId("confirm-form").action = form.action;
  byId("confirm-title").textContent = form.dataset.confirm;
  byId("confirm-text").textContent = form.dataset.text;
  byId("confirm-yes").textContent = form.querySelector("button").textContent;
  byId("confirm").showModal();
  byId("confirm-no").focus();
});
byId("confirm-no").addEventListener("click", () => byId("confirm").close());

// Follow a job by its stream of events; when it has ended, the page shows what it found.
const followed = document.querySelector("[data-events]");
if (followed) {
  const events = new EventSource(followed.dataset.events);
  let waits = false;
  const refresh = (event) => {
    if (JSON.parse(event.data).last) {
      events.close();
      location.reload();
    } else if (!waits) {
      waits = true;
      setTimeout(() => {
        waits = false;
        htmx.ajax("GET", followed.dataset.progress, { target: "#progress", swap: "outerMorph" });
      }, 400);
    }
  };
  events.addEventListener("state", refresh);
  events.addEventListener("progress", refresh);
  addEventListener("pagehide", () => events.close());
}

// The slider says its limit at once; the plan follows.
const slider = byId("limit");
if (slider) {
  const labels = JSON.parse(byId("limit-labels").textContent);
  const tell = () => {
    byId("limit-text").textContent = labels[slider.value];
    slider.setAttribute("aria-valuetext", labels[slider.value]);
  };
  slider.addEventListener("input", tell);
  tell();
}

// After a part of the page has changed: mark what is chosen, and let the address name it.
let shown = document.querySelector("[data-chosen]")?.dataset.chosen;
const keepInStep = () => {
  const chosen = document.querySelector("[data-chosen]");
  if (!chosen) return;
  if (chosen.dataset.chosen !== shown) history.replaceState(null, "", chosen.dataset.address);
  shown = chosen.dataset.chosen;
  for (const row of document.querySelectorAll("tr[data-pick]")) {
    if (row.dataset.pick === chosen.dataset.chosen) row.setAttribute("aria-current", "true");
    else row.removeAttribute("aria-current");
  }
};
document.addEventListener("htmx:after:swap", keepInStep);
keepInStep();

// A link whose answer stands elsewhere on the page goes there.
document.addEventListener("click", (event) => {
  const link = event.target.closest("[data-jump]");
  if (link) byId(link.dataset.jump).scrollIntoView({ block: "start" });
});

document.addEventListener("htmx:error", () => {
  byId("told").textContent = "The server cannot be reached now. What you see may be old.";
});
document.addEventListener("htmx:after:request", () => {
  byId("told").textContent = "";
});
