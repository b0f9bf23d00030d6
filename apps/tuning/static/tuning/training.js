// The run page: the loss as a curve that grows while the run goes on.

import { call } from "../../../common/static/common/js/api.js";
import { LossChart } from "./chart.js";

const PERIOD_MS = 2000;
const box = document.querySelector("[data-chart]");
const chart = new LossChart(box);

function stored(id) {
  return JSON.parse(document.getElementById(id).textContent);
}

function draw(steps, evals) {
  if (!steps.length && !evals.length) return;
  document.querySelector("[data-chart-empty]").hidden = true;
  chart.draw(steps, evals);
}

function fillTable(steps) {
  const body = document.querySelector("[data-chart-table]");
  for (const step of steps.slice(body.rows.length)) {
    const row = body.insertRow();
    const figures = [step.step, step.loss.toFixed(4), step.learning_rate.toFixed(6), step.grad_norm.toFixed(3)];
    for (const figure of figures) {
      const cell = row.insertCell();
      cell.className = "is-number";
      cell.textContent = figure;
    }
  }
}

// The page is a viewer: state and progress come from the server, this only asks again.
async function follow() {
  try {
    const run = await call("GET", `/training/runs/${box.dataset.run}`);
    draw(run.steps, run.evals);
    fillTable(run.steps);
    if (!["queued", "running"].includes(run.state)) return location.reload();
  } catch {
    // Offline for a moment: the next round tries again.
  }
  setTimeout(follow, PERIOD_MS);
}

draw(stored("run-steps"), stored("run-evals"));
if ("follow" in box.dataset) follow();
