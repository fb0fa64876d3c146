"use strict";
(() => {
  // [threshold, [sensitivity, low, high], [specificity, low, high]]; no interval: low and high are null.
  const { positive, stored, stops } = JSON.parse(document.getElementById("threshold-stops").textContent);
  const part = (id) => document.getElementById(id);
  const slider = part("threshold"), prevalence = part("prevalence");
  const DASH = "–";

  const ppv = (sensitivity, specificity, share) => {
    const hits = sensitivity * share, alarms = (1 - specificity) * (1 - share);
    return hits + alarms > 0 ? hits / (hits + alarms) : null;
  };
  const npv = (sensitivity, specificity, share) => {
    const missed = (1 - sensitivity) * share, rejected = specificity * (1 - share);
    return rejected + missed > 0 ? rejected / (rejected + missed) : null;
  };
  const missed = (sensitivity, specificity, share) => 1000 * share * (1 - sensitivity);
  const alarms = (sensitivity, specificity, share) => 1000 * (1 - share) * (1 - specificity);

  // Value and interval, the interval from both rates at their lower, then at their upper ends.
  const estimate = (of, [, sensitivity, specificity], share) =>
    [0, 1, 2].map((end) => sensitivity[end] === null || specificity[end] === null ? null
      : of(sensitivity[end], specificity[end], share));
  const percent = (value) => `${(100 * value).toFixed(1)}%`;
  const count = (value) => value.toFixed(1);
  const text = (value, form) => value === null ? DASH : form(value);
  const range = ([, low, high], form) =>
    low === null || high === null ? DASH : `${form(Math.min(low, high))} to ${form(Math.max(low, high))}`;
  const whole = (values, form) => {
    const ends = range(values, form);
    return text(values[0], form) + (values[0] === null || ends === DASH ? "" : ` (${ends})`);
  };

  const share = () => prevalence.checkValidity() && prevalence.value !== "" ? prevalence.valueAsNumber / 100 : null;
  const show = (name, values, form) => {
    part(`t-${name}`).textContent = text(values[0], form);
    part(`t-${name}-range`).textContent = range(values, form);
  };

  const update = () => {
    const stop = stops[slider.valueAsNumber], people = share();
    const unknown = [null, null, null];
    const at = (of) => people === null ? unknown : estimate(of, stop, people);
    part("threshold-value").textContent = stop[0];
    slider.setAttribute("aria-valuetext", stop[0]);
    show("sensitivity", stop[1], percent);
    show("specificity", stop[2], percent);
    show("ppv", at(ppv), percent);
    show("npv", at(npv), percent);
    show("missed", at(missed), count);
    show("alarms", at(alarms), count);
    part("threshold-flag").value = `--threshold ${quoted(`${positive}=${stop[0]}`)}`;
    part("threshold-copied").textContent = "";
  };
  // For a shell: a name with anything but plain characters stands in quotes.
  const quoted = (word) => /^[\w=.,-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;

  const updateTable = () => {
    const people = share();
    if (people === null) return;
    part("table-prevalence").textContent = prevalence.value;
    for (const row of document.querySelectorAll("tr[data-stop]")) {
      const stop = stops[Number(row.dataset.stop)];
      [[ppv, percent], [npv, percent], [missed, count]].forEach(([of, form], column) => {
        row.cells[3 + column].textContent = whole(estimate(of, stop, people), form);
      });
    }
  };

  const copy = async () => {
    const flag = part("threshold-flag");
    flag.select();
    let done = false;
    try { await navigator.clipboard.writeText(flag.value); done = true; } catch { done = document.execCommand("copy"); }
    part("threshold-copied").textContent = done ? "copied" : "press Ctrl-C";
  };

  slider.addEventListener("input", update);
  prevalence.addEventListener("input", () => { update(); updateTable(); });
  part("threshold-stored").addEventListener("click", () => { slider.value = stored; update(); slider.focus(); });
  part("threshold-copy").addEventListener("click", copy);
  slider.value = stored;
  update();
  document.querySelector(".thresholds").hidden = false;
  document.querySelector(".threshold-table").classList.add("paper");
})();
